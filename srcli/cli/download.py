"""Placeholder."""

from __future__ import annotations


def download() -> None:
    """Being written."""
