"""Placeholder."""

from __future__ import annotations


def upscale() -> None:
    """Being written."""
