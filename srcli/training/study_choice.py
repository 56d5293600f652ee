"""What a user chooses of a study: its scale, tables, variants and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from srcli.errors import UsageError, unknown
from srcli.evaluation.published import find_table
from srcli.models import variant
from srcli.models.base import SRModel
from srcli.training.recipe import Recipe

OWN_FIELDS = ("tables", "variants", "seeds")  # of `--set`, beside those of a recipe
_MOST_SEEDS = 99


def check_fields(fields: Collection[str]) -> None:
    """See to it that a recipe or a study has these fields.

    Raises:
        UsageError: If one is unknown, or two contradict each other.
    """
    known = [each.name for each in dataclasses.fields(Recipe)]
    for name in fields:
        if name not in (*known, *OWN_FIELDS):
            raise unknown("field of the study", name, (*known, *OWN_FIELDS))
    if "tables" in fields and "variants" in fields:
        raise UsageError(
            "a study is of tables or of named variants, not of both: leave --set "
            "tables or --set variants out"
        )


def choose_scale(
    scales: Sequence[int], fields: Mapping[str, object], usual: int
) -> int:
    """The enlargement that all variants are trained and measured at.

    Args:
        scales: What `-x` gave.
        fields: What `--set` gave, which is not the place for it.
        usual: The study's own.

    Raises:
        UsageError: If there are several, or `fields` has any.
    """
    if len(scales) > 1 or "scales" in fields:
        raise UsageError("a study trains and measures one scale: -x names it")
    return scales[0] if scales else usual


def choose_tables(given: object, tables: Mapping[str, str]) -> dict[str, str]:
    """Those of the study's tables that the user named, or all; in the study's order.

    Args:
        given: What `--set tables` gave; None for nothing.
        tables: All of the study, as `Study.tables`.

    Raises:
        UsageError: If a name is unknown or there twice.
    """
    if given is None:
        return dict(tables)
    known = {name.lower(): name for name in tables}
    names = _read_names("tables", given)
    for name in names:
        if name.lower() not in known:
            raise unknown("table of the study", name, tables)
    return {name: tables[name] for key, name in known.items() if key in _lower(names)}


def choose_variants(
    given: object, network: type[SRModel], tables: Iterable[str]
) -> list[str]:
    """The variants that the user named, or the network's own among the tables' rows.

    Args:
        given: What `--set variants` gave; None for nothing.
        network: Whose study it is.
        tables: Sources of `published.json`.

    Raises:
        UsageError: If a name is unknown, of another network or there twice.
    """
    if given is None:
        rows = [model for source in tables for model in find_table(source).labels]
        return [name for name in dict.fromkeys(rows) if name in network.variants]
    names = _lower(_read_names("variants", given))
    for name in names:
        owner, _ = variant(name)
        if owner is not network:
            raise UsageError(
                f"{name} is a variant of {owner.arch}: a study of {network.arch} "
                "compares its own (`srcli models --all`)"
            )
    return names


def choose_seeds(given: object, first: int) -> tuple[int, ...]:
    """The seeds that every variant is trained with, counted on from the first.

    Args:
        given: What `--set seeds` gave: how many; None for nothing.
        first: The first.

    Raises:
        UsageError: If it is no such number.
    """
    count = 1 if given is None else given
    if type(count) is not int or not 1 <= count <= _MOST_SEEDS:
        raise UsageError(
            f"--set seeds says how often each variant is trained, 1 to {_MOST_SEEDS}, "
            f"not {given!r}"
        )
    return tuple(range(first, first + count))


def _read_names(field: str, given: object) -> list[str]:
    """Names as a list, or in one text with commas between.

    Raises:
        UsageError: If they are none, or one is there twice.
    """
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"--set {field} takes names such as a,b, not {given!r}")
    names = [word.strip() for word in words if word.strip()]
    if not names:
        raise UsageError(f"--set {field} names none")
    if len(set(_lower(names))) < len(names):
        raise UsageError(f"--set {field} names one twice")
    return names


def _lower(names: Iterable[str]) -> list[str]:
    return [name.lower() for name in names]
