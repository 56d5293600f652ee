"""A study: the variants of a network that it trains, its paper's figures and claims.

A network has a study if `recipes/<network>_ablation.toml` is there. It says which
published tables are repeated and what their figures were printed on, the recipe that
all variants share, the components of each variant, and the claims; the tables' rows
are the variants, and nothing here knows a network.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.errors import UsageError, unknown
from srcli.evaluation.published import PublishedResult, every, find_table
from srcli.models import variant
from srcli.models.base import ModelConfig, SRModel
from srcli.training.checkpoint import TrainRequest
from srcli.training.recipe import (
    STUDY,
    Recipe,
    load_recipe,
    outline_config,
    read_bundled,
)

OWN_FIELDS = ("tables", "variants", "seeds")  # of `--set`, beside those of a recipe
_MOST_SEEDS = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That one variant is better than another, as the paper says."""

    text: str
    section: str  # of the paper
    better: str
    than: str
    at_least: bool = False  # claimed is only that it is no worse


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Variants of one network that are trained alike."""

    network: str
    tables: Mapping[str, str]  # sources of `published.json`: data set of its figures
    dataset: str  # measured on, unless the user names another
    scale: int
    margin: float  # dB; a difference below is none
    # Fields of a config that make each: numbers are the least, other values the only.
    components: Mapping[str, Mapping[str, Any]]
    claims: tuple[Claim, ...]  # those between variants that are as published
    seeds: tuple[int, ...]
    recipes: Mapping[str, Recipe]  # by variant, in the order of training
    changed: tuple[str, ...]  # variants that `config` makes others than the published
    asked: Mapping[str, Any]  # what `--set` replaced

    @property
    def recipe(self) -> Recipe:
        """The first variant's recipe; the others' differ in the model's name alone."""
        return next(iter(self.recipes.values()))

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change while a study is under way, as JSON values."""
        values = {
            "scale": self.scale,
            "tables": list(self.tables),
            "variants": list(self.recipes),
            "seeds": self.seeds,
            **self.recipe.as_dict(),
        }
        del values["model"]
        found: dict[str, Any] = json.loads(json.dumps(values))
        return found

    def folder(self, out: Path, name: str, seed: int) -> Path:
        """Where the run of a variant lies in the study's folder."""
        return out / name / f"seed-{seed}" if len(self.seeds) > 1 else out / name

    def list_components(self, name: str) -> dict[str, bool]:
        """Which components a variant has, as it is trained."""
        _, config = outline_config(self.recipes[name])

        def has(field: str, wanted: object) -> bool:
            value = getattr(config, field)
            return value >= wanted if type(wanted) is int else value == wanted

        return {
            component: all(has(*each) for each in fields.items())
            for component, fields in self.components.items()
        }

    def find_printed(
        self, name: str, dataset: str, source: str | None = None
    ) -> PublishedResult | None:
        """What the papers print for a variant as it is trained, on one data set.

        The table `source` counts first, then the study's others do.
        """
        if name in self.changed:
            return None
        found = every(name, dataset, self.scale, self.recipe.degradation)
        return min(
            (result for result in found if result.psnr is not None),
            key=lambda r: (r.source != source, r.source not in self.tables),
            default=None,
        )

    def compare_printed(self, claim: Claim) -> float | None:
        """The dB between a claim's two in print; tables that have both come first."""
        names = {claim.better, claim.than}
        places = sorted(
            self.tables.items(),
            key=lambda each: not names <= find_table(each[0]).labels.keys(),
        )
        for source, dataset in places:
            better = self.find_printed(claim.better, dataset, source)
            than = self.find_printed(claim.than, dataset, source)
            if (difference := subtract_printed(better, than)) is not None:
                return difference
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedVariant:
    """One run of a study as it lies in its folder.

    Compared are the averaged weights of the last step, so that all had the same budget;
    the best validation on the way would favour whoever was validated at a lucky moment.
    """

    steps: int = 0  # taken so far
    psnr: float | None = None  # dB, of the last step; None: it has not come there
    diverged: bool = False  # given up, its loss being no number again and again
    seconds_per_step: float | None = None
    setbacks: int = 0  # how often its loss was no number, which halves its rate
    pictures: str | None = None  # how many it learned from, and their fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRun:
    """A study that trains, or has trained, in a folder."""

    study: Study
    request: TrainRequest  # its gaps filled; `val` and `precision` are what was chosen
    outcomes: Mapping[str, Mapping[int, TrainedVariant]]  # by variant and seed


def subtract_printed(
    mine: PublishedResult | None, others: PublishedResult | None
) -> float | None:
    """How many dB one printed result is above another; None without both."""
    if mine is None or others is None or mine.psnr is None or others.psnr is None:
        return None
    return round(mine.psnr - others.psnr, 3)


def load_study(
    model: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    scales: Sequence[int] = (),
    seed: int = 0,
) -> Study:
    """The study of a network.

    Args:
        model: The network's name.
        overrides: Fields that replace those of the shared recipe; beside them
            `tables`, those of the study's that are repeated, or `variants`, names that
            replace the tables' rows, and `seeds`, how often each is trained.
        scales: The enlargement instead of the study's own; one at most.
        seed: Of the first training; the next ones count on from there.

    Raises:
        UsageError: For an unknown network, table, variant, field or value, and for
            what makes the variants unequal in more than they are.
    """
    network, _ = variant(model)
    if model.lower() != network.arch:
        raise UsageError(
            f"a study is of a network, not of {model}: -m {network.arch} "
            f"--set variants={model} trains that alone"
        )
    values, asked = read_bundled(network.arch, STUDY), dict(overrides or {})
    known = (*(each.name for each in dataclasses.fields(Recipe)), *OWN_FIELDS)
    for name in asked:
        if name not in known:
            raise unknown("field of the study", name, known)
    if len(scales) > 1 or "scales" in asked:
        raise UsageError("a study trains and measures one scale: -x names it")
    count = asked.get("seeds", 1)
    if type(count) is not int or not 1 <= count <= _MOST_SEEDS:
        raise UsageError(f"--set seeds takes 1 to {_MOST_SEEDS}, not {count!r}")
    scale = scales[0] if scales else values["scale"]
    tables, names = _choose_variants(asked, values["tables"], network)
    fields = {k: v for k, v in asked.items() if k not in OWN_FIELDS}
    fields["scales"] = [scale]
    recipes = {name: load_recipe(name, STUDY, fields) for name in names}
    _check_equal_budget(recipes)
    changed = [
        name
        for name, recipe in recipes.items()
        if outline_config(recipe)
        != outline_config(dataclasses.replace(recipe, config={}))
    ]
    published = set(names).difference(changed)
    claims = [Claim(**claim) for claim in values.get("claims", ())]
    return Study(
        network=network.arch,
        tables=tables,
        dataset=values["dataset"],
        scale=scale,
        margin=values["margin"],
        components=values.get("components", {}),
        claims=tuple(c for c in claims if {c.better, c.than} <= published),
        seeds=tuple(range(seed, seed + count)),
        recipes=recipes,
        changed=tuple(changed),
        asked=asked,
    )


def _choose_variants(
    asked: Mapping[str, Any], tables: Mapping[str, str], network: type[SRModel]
) -> tuple[dict[str, str], list[str]]:
    """The tables that are repeated, and the variants: those named, or their rows."""
    if "tables" in asked and "variants" in asked:
        raise UsageError(
            "a study is of tables or of named variants, not of both: leave --set "
            "tables or --set variants out"
        )
    if "tables" in asked:
        wanted = _read_names("tables", asked["tables"])
        for name in wanted:
            if name not in [table.lower() for table in tables]:
                raise unknown("table of the study", name, tables)
        tables = {name: tables[name] for name in tables if name.lower() in wanted}
    if "variants" not in asked:
        rows = [model for source in tables for model in find_table(source).labels]
        own = [name for name in dict.fromkeys(rows) if name in network.variants]
        return dict(tables), own
    names = _read_names("variants", asked["variants"])
    for name in names:
        owner, _ = variant(name)
        if owner is not network:
            raise UsageError(
                f"{name} is a variant of {owner.arch}: a study of {network.arch} "
                "compares its own (`srcli models --all`)"
            )
    return dict(tables), names


def _read_names(field: str, given: object) -> list[str]:
    """Names in lower case from a list, or from one text with commas between."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"--set {field} takes names such as a,b, not {given!r}")
    names = [word.strip().lower() for word in words if word.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--set {field} names {'one twice' if names else 'none'}")
    return names


def _check_equal_budget(recipes: Mapping[str, Recipe]) -> None:
    """See to it that the variants take the same steps and are different networks."""
    seen: dict[ModelConfig, str] = {}
    for name, recipe in recipes.items():
        if recipe.schedule == "plateau":
            raise UsageError(
                "a study gives every variant as many steps: schedule 'plateau' does not"
            )
        _, config = outline_config(recipe)
        if config in seen:
            raise UsageError(
                f"{seen[config]} and {name} are the same network here "
                f"(x{config.scales[0]}, as --set config says)"
            )
        seen[config] = name
