"""Fields of a recipe that a call replaces (`--set`)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from srcli.errors import UsageError


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `overrides` in their place, tables merged."""
    merged = dict(values)
    for name, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            value = merge(merged[name], value)
        merged[name] = value
    return merged


def replace_fields(
    values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """A recipe's values with others in their place; a rate is for the batch at hand."""
    merged = merge(values, overrides)
    if "learning_rate" in overrides and "rate_batch" not in overrides:
        merged["rate_batch"] = 0
    return merged


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as TOML values; a bare word is a string.

    A dotted key reaches into a table: `config.width=32`.

    Raises:
        UsageError: If a text has no `=` or no sensible key, or the key is `model`.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes key=value, not {text!r}")
        quoted = json.dumps(value.strip())
        for candidate in (f"{name}={value}", f"{name}={quoted}"):
            try:
                values = merge(values, tomllib.loads(candidate))
                break
            except tomllib.TOMLDecodeError:
                continue
        else:
            raise UsageError(f"--set takes key=value, not {text!r}")
    if "model" in values:
        raise UsageError("--set cannot change the model: --model names it")
    return values
