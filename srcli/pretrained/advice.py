"""What is said where weights are asked for that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.pretrained.catalog import WeightEntry


def explain_missing(
    model: str, scale: int | None, degradation: str, entries: Sequence[WeightEntry]
) -> str:
    """Why there are no such weights, and what to do instead.

    Args:
        model: The name that was asked for.
        scale: Enlargement; None is any.
        degradation: What the pictures suffered.
        entries: The whole manifest.
    """
    own = [entry for entry in entries if entry.model == model]
    fitting = [entry.model for entry in entries if entry.degradation == degradation]
    if scale is None or (degradation != "bi" and model not in fitting):
        return f"{model} has no weights for {degradation}; " + _point_to(
            list(dict.fromkeys(fitting)), degradation
        )
    trained = ", ".join(
        _name_task(s, entry.degradation) for entry in own for s in entry.scales
    )
    there = f"trained: {trained}" if trained else "no weights are bundled yet"
    return (
        f"no weights for {model} {_name_task(scale, degradation)} ({there}); "
        "`srcli models` lists what there is, `srcli train` makes your own"
    )


def _point_to(models: Sequence[str], degradation: str) -> str:
    """Where weights for a degradation are to be had."""
    if not models:
        return (
            f"nor has any other model: `srcli train --set degradation={degradation}` "
            "makes your own"
        )
    has = "has" if len(models) == 1 else "have"
    return f"{', '.join(models)} {has}: use -m {models[0]}"


def _name_task(scale: int, degradation: str) -> str:
    """What weights are for: "x3", or "x3 dn"."""
    return f"x{scale}" if degradation == "bi" else f"x{scale} {degradation}"
