"""Studies: which variants of a network are trained alike, and what its paper claims.

A network has one if `recipes/<network>_ablation.toml` is there. It says which published
tables are repeated and what their figures were printed on, the recipe that all variants
share, the components of each variant, and the claims; the tables' rows are the
variants, and nothing here knows a network.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srcli.errors import UsageError
from srcli.evaluation.published import PublishedResult, every, find_table
from srcli.models import variant
from srcli.models.base import ModelConfig, SRModel
from srcli.training.recipe import STUDY, Recipe, load_recipe, read_bundled
from srcli.training.study_choice import (
    OWN_FIELDS,
    check_fields,
    choose_scale,
    choose_seeds,
    choose_tables,
    choose_variants,
)

_DIGITS = 3  # of a difference in dB, beyond those that the papers print


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That one variant is better than another, as the paper says."""

    text: str
    section: str  # of the paper
    better: str
    than: str
    at_least: bool = False  # claimed is only that it is no worse


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One training run of a study."""

    variant: str
    seed: int
    folder: Path
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Variants of one network that are trained alike."""

    network: str
    # Sources of `published.json`, each with the data set that its figures are of.
    tables: Mapping[str, str]
    dataset: str  # measured on, unless the user names another
    scale: int
    margin: float  # dB; a difference below is none
    # Fields of a config that make each: numbers are the least, other values the only.
    components: Mapping[str, Mapping[str, Any]]
    claims: tuple[Claim, ...]  # those between variants that are as published
    seeds: tuple[int, ...]
    recipes: Mapping[str, Recipe]  # by variant, in the order of training
    asked: Mapping[str, Any] = field(default_factory=dict)  # what `--set` replaced

    @property
    def variants(self) -> tuple[str, ...]:
        """What is trained, in order."""
        return tuple(self.recipes)

    @property
    def recipe(self) -> Recipe:
        """The first variant's recipe; the others' differ in the model's name alone."""
        return self.recipes[self.variants[0]]

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces fields of the bundled recipe."""
        fields = {k: v for k, v in self.asked.items() if k not in OWN_FIELDS}
        return {**fields, "scales": [self.scale]}

    @property
    def changed(self) -> tuple[str, ...]:
        """The variants that `config` makes other networks than the published ones."""
        return tuple(n for n, each in self.recipes.items() if not _is_published(each))

    def list_components(self, name: str) -> dict[str, bool]:
        """Which components a variant has, as it is trained."""
        _, config = outline_config(self.recipes[name])
        return {
            component: all(_has(config, *each) for each in fields.items())
            for component, fields in self.components.items()
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change while a study is under way, as JSON values."""
        recipe = self.recipe.as_dict()
        del recipe["model"]
        values = {
            "scale": self.scale,
            "tables": list(self.tables),
            "variants": self.variants,
            "seeds": self.seeds,
            "recipe": recipe,
        }
        found: dict[str, Any] = json.loads(json.dumps(values))
        return found

    def list_members(self, out: Path) -> list[Member]:
        """Every run, in order: all variants with the first seed, then with the next.

        Args:
            out: The study's folder.
        """
        several = len(self.seeds) > 1
        return [
            Member(
                variant=name,
                seed=seed,
                folder=out / name / f"seed-{seed}" if several else out / name,
                recipe=recipe,
            )
            for seed in self.seeds
            for name, recipe in self.recipes.items()
        ]

    def find_printed(
        self, name: str, dataset: str, source: str | None = None
    ) -> PublishedResult | None:
        """What the papers print for a variant as it is trained, on one data set.

        Args:
            name: The variant.
            dataset: As `published.json` names it.
            source: The table that counts first; then the study's others do.
        """
        if not _is_published(self.recipes[name]):
            return None
        found = every(name, dataset, self.scale, self.recipe.degradation)
        return min(
            (result for result in found if result.psnr is not None),
            key=lambda r: (r.source != source, r.source not in self.tables),
            default=None,
        )

    def compare_printed(self, name: str, other: str) -> float | None:
        """How many dB one variant is above another in print; None where not both are.

        Tables that have rows of both come first.
        """
        places = sorted(
            self.tables.items(),
            key=lambda each: not {name, other} <= find_table(each[0]).labels.keys(),
        )
        for source, dataset in places:
            mine, others = (
                self.find_printed(each, dataset, source) for each in (name, other)
            )
            difference = subtract_printed(mine, others)
            if difference is not None:
                return difference
        return None


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
    values = read_bundled(network.arch, STUDY)
    asked = dict(overrides or {})
    check_fields(asked)
    scale = choose_scale(scales, asked, values["scale"])
    tables = choose_tables(asked.get("tables"), values["tables"])
    names = choose_variants(asked.get("variants"), network, tables)
    fields = {k: v for k, v in asked.items() if k not in OWN_FIELDS}
    fields["scales"] = [scale]
    recipes = {name: load_recipe(name, STUDY, fields) for name in names}
    _check_equal_budget(recipes)
    published = {name for name, recipe in recipes.items() if _is_published(recipe)}
    claims = [Claim(**claim) for claim in values.get("claims", ())]
    return Study(
        network=network.arch,
        tables=tables,
        dataset=values["dataset"],
        scale=scale,
        margin=values["margin"],
        components=values.get("components", {}),
        claims=tuple(c for c in claims if {c.better, c.than} <= published),
        seeds=choose_seeds(asked.get("seeds"), seed),
        recipes=recipes,
        asked=asked,
    )


def subtract_printed(
    mine: PublishedResult | None, others: PublishedResult | None
) -> float | None:
    """How many dB one printed result is above another; None without both."""
    if mine is None or others is None or mine.psnr is None or others.psnr is None:
        return None
    return round(mine.psnr - others.psnr, _DIGITS)


def outline_config(recipe: Recipe) -> tuple[type[SRModel], ModelConfig]:
    """The class and config of the network that a recipe trains.

    Raises:
        UsageError: If the recipe's config makes no network.
    """
    network, config = variant(recipe.model)
    values = {**config.as_dict(), **recipe.config, "scales": recipe.scales}
    return network, type(config).from_dict(values)


def _is_published(recipe: Recipe) -> bool:
    """Whether the recipe's config leaves its variant as the paper has it."""
    plain = dataclasses.replace(recipe, config={})
    return outline_config(recipe) == outline_config(plain)


def _has(config: ModelConfig, name: str, wanted: object) -> bool:
    """Whether a field is as a component needs it."""
    value = getattr(config, name)
    return value >= wanted if type(wanted) is int else value == wanted


def _check_equal_budget(recipes: Mapping[str, Recipe]) -> None:
    """See to it that the variants take the same steps and are different networks.

    Raises:
        UsageError: If they do not, or are not.
    """
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
