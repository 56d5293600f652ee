"""Placeholder."""

from __future__ import annotations


def benchmark() -> None:
    """Being written."""
