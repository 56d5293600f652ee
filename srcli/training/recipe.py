"""Recipes: how a network is trained, as one frozen description read from TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from srcli.errors import InputError, UsageError, unknown
from srcli.imaging.degrade import Degradation, check_degradation
from srcli.models import MODELS, variant
from srcli.models.base import check_value
from srcli.pretrained.catalog import UNSTATED

NAMES = ("paper", "fast")
STUDY = "ablation"  # what a study's variants share, see `srcli.training.study`

Optimizer = Literal["adam", "muon", "sgd"]
Schedule = Literal["constant", "cosine", "step", "plateau"]
Clip = Literal["none", "norm", "value", "adjustable"]
Loss = Literal["l1", "l2"]
Supervision = Literal["final", "mean", "recursive"]
Reduction = Literal["mean", "sum"]
ScaleMode = Literal["one", "all"]

_POSITIVE = (
    "steps", "batch", "crop", "validate_every", "checkpoint_every", "learning_rate",
    "decay_factor",
)  # fmt: skip
_NOT_NEGATIVE = (
    "weight_decay", "warmup", "decay_every", "min_rate", "final_rate",
    "clip_at", "alpha", "alpha_steps", "rate_batch", "teacher_share",
    "teacher_megapixels", "minutes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides how a network is trained, except the pictures' folder."""

    model: str  # a variant's name (srcli models)
    data: str = "your own pictures"  # what the paper trained on, for people
    data_licence: str = UNSTATED  # the pictures' terms, for the manifest
    # What `srcli download` calls the pictures: used where none are named.
    datasets: tuple[str, ...] = ()
    # How much of what is learned is a teacher's picture (`--teacher`), and how much the
    # original; HR megapixels of the pictures that it enlarges, 0 being all; its terms,
    # where its file does not say.
    teacher_share: float = 1.0
    teacher_megapixels: float = 0.0
    teacher_licence: str = UNSTATED
    config: dict[str, Any] = field(default_factory=dict)  # fields of the model's config
    scales: tuple[int, ...] = (2, 3, 4)  # factors one network learns
    # "one": every step draws one factor; "all": every batch is divided over them.
    scale_mode: ScaleMode = "one"
    scale_odds: tuple[float, ...] = ()  # "one": how often each is drawn; none: alike
    degradation: Degradation = "bi"

    steps: int = 100_000  # optimiser steps in all
    # Wall clock instead (`--for`): every share of the time does what the same share of
    # the steps would. 0: steps count.
    minutes: float = 0.0
    batch: int = 16  # crops a step
    crop: int = 48  # side of a crop, pixels of `crop_of`
    crop_of: Literal["lr", "hr"] = "lr"  # hr: rounded up to a multiple of the scale
    augment: bool = True  # flips and quarter turns
    rescale: tuple[float, ...] = (1.0,)  # copies of each picture, reduced by bicubic

    # "muon": Muon for the kernels between feature maps, Adam for all else.
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-4
    # The batch that the rate was chosen for; with another one the rate grows with the
    # batch for SGD, with its root for Adam. 0: any batch, the rate stays.
    rate_batch: int = 0
    momentum: float = 0.9  # SGD's, or Adam's beta 1; Muon's own is 0.95
    beta2: float = 0.999  # Adam
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup: int = 0  # steps over which the rate rises from zero
    decay_every: int = 0  # "step": steps; "plateau": steps without a better validation
    decay_factor: float = 0.5
    min_rate: float = 0.0  # "plateau": the run ends when the rate falls below
    final_rate: float = 0.0  # "cosine" ends here, as a share of learning_rate
    clip: Clip = "none"
    clip_at: float = 0.0  # "adjustable": the norm of all stays below clip_at / rate

    loss: Loss = "l1"
    reduction: Reduction = "mean"  # over values, or their sum for each crop
    # "final": forward's output; "mean": the mean loss of all predictions; "recursive":
    # DRCN's Eq. 13, alpha * mean of the intermediate ones + (1 - alpha) * final.
    supervision: Supervision = "final"
    alpha: float = 1.0  # "recursive": its weight at the start
    alpha_steps: int = 0  # "recursive": steps over which alpha falls linearly to zero

    ema: float = 0.999  # decay of the averaged weights; 0 keeps the last ones
    # (share of the steps, recursions): at most how many run from there on.
    recursions: tuple[tuple[float, int], ...] = ()

    # Compute each recursion again for its gradient instead of keeping its features.
    recompute: bool = False

    validate_every: int = 1000  # steps
    checkpoint_every: int = 1000  # steps

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_scales()
        if self.schedule in ("step", "plateau") and self.decay_every < 1:
            raise UsageError(f"recipe: schedule {self.schedule!r} needs decay_every")
        if self.clip != "none" and self.clip_at <= 0:
            raise UsageError(f"recipe: clip {self.clip!r} needs a positive clip_at")
        if not self.rescale or any(not 0.1 <= factor <= 1 for factor in self.rescale):
            raise UsageError("recipe: rescale factors lie between 0.1 and 1")
        shares, limits = zip((0.0, 1), *self.recursions, strict=True)
        if self.min_rate > self.learning_rate * self.rate_for_batch:
            raise UsageError("recipe: min_rate must not be above the learning rate")
        if not _rises(shares) or not _rises(limits) or shares[-1] > 1:
            raise UsageError(
                "recipe: recursions are pairs of a share of the steps, from 0 to 1, "
                "and a number of at least 1, both rising"
            )
        if self.recursions and self.recursions[0][0] > 0:
            raise UsageError("recipe: the first pair of recursions begins at share 0")

    def _check_ranges(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                least = "at least 1" if type(value) is int else "positive"
                raise UsageError(f"recipe: {name} must be {least}")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"recipe: {name} must not be negative")
        for name in ("alpha", "decay_factor", "teacher_share"):
            if getattr(self, name) > 1:
                raise UsageError(f"recipe: {name} must not be above 1")
        for name in ("momentum", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"recipe: {name} must be in [0, 1)")

    def _check_scales(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise UsageError("recipe: scales names one twice")
        if self.scale_odds and len(self.scale_odds) != len(self.scales):
            raise UsageError("recipe: scale_odds takes one figure for each scale")
        if not all(0 < odds < math.inf for odds in self.scale_odds):
            raise UsageError("recipe: scale_odds must be positive")
        if "scales" in self.config:
            raise UsageError("recipe: scales is a field of its own, not of config")
        for scale in self.scales:
            check_degradation(self.degradation, scale)

    def position(self, step: int, seconds: float) -> float:
        """Where the schedule stands, as one of the recipe's steps.

        Args:
            step: How many steps are done.
            seconds: How much of a time budget is spent.
        """
        if not self.minutes:
            return step
        return min(1.0, seconds / 60 / self.minutes) * self.steps

    def learning_rate_at(self, step: float) -> float:
        """The rate of step number `step` (from 0), before a plateau's reductions."""
        rate = self.learning_rate * self.rate_for_batch
        if step < self.warmup:
            return rate * (step + 1) / self.warmup
        if self.schedule == "cosine":
            progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
            wave = 0.5 * (1 + math.cos(math.pi * progress))
            return rate * (self.final_rate + (1 - self.final_rate) * wave)
        if self.schedule == "step":
            return rate * self.decay_factor ** (step // self.decay_every)
        return rate

    @property
    def rate_for_batch(self) -> float:
        """What another batch than `rate_batch` does to the learning rate.

        Linear for SGD (Goyal et al., arXiv 1706.02677, section 2.1), the square root
        for Adam (Malladi et al., arXiv 2205.10287) and for Muon, which takes its rate.
        """
        if self.rate_batch == 0:
            return 1.0
        growth = self.batch / self.rate_batch
        return growth if self.optimizer == "sgd" else growth**0.5

    def recursions_at(self, step: float) -> int | None:
        """The recursion limit of step number `step`; None runs them all."""
        limit: int | None = None
        for share, recursions in self.recursions:
            if step >= share * self.steps:
                limit = recursions
        return limit

    def alpha_at(self, step: float) -> float:
        """The weight of the intermediate predictions at step number `step`."""
        if self.alpha_steps == 0:
            return self.alpha
        return self.alpha * max(0.0, 1 - step / self.alpha_steps)

    def divide_batch(self, scales: Sequence[int]) -> dict[int, int]:
        """How many crops each of `scales` gets: as even as can be, one at least."""
        counts = [
            len(range(part, self.batch, len(scales))) for part in range(len(scales))
        ]
        return {scale: max(1, n) for scale, n in zip(scales, counts, strict=True)}

    def lr_crop(self, scale: int) -> int:
        """Side of a crop in LR pixels at `scale`."""
        return self.crop if self.crop_of == "lr" else -(-self.crop // scale)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @property
    def says_of_teachers(self) -> dict[str, Any]:
        """What differs from a recipe that knows nothing of teachers."""
        fields = [f for f in dataclasses.fields(self) if f.name.startswith("teacher_")]
        values = {field.name: getattr(self, field.name) for field in fields}
        usual = {field.name: field.default for field in fields}
        return {name: v for name, v in values.items() if v != usual[name]}

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        values = self.as_dict()
        # Recipes without fields that came later keep the digits that they always had.
        for each in dataclasses.fields(self):
            later = each.name == "minutes" or each.name.startswith("teacher_")
            if later and values[each.name] == each.default:
                del values[each.name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _rises(values: Sequence[float]) -> bool:
    return list(values) == sorted(values)


def make_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UsageError: For an unknown field (naming the nearest) or a wrong value.
    """
    hints = get_type_hints(Recipe)
    for name in values:
        if name not in hints:
            raise unknown(f"field in {source}", name, hints)
    if "model" not in values:
        raise UsageError(f"{source} names no model")
    return Recipe(
        **{
            name: check_value(f"recipe field {name}", value, hints[name])
            for name, value in values.items()
        }
    )


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
    """A recipe's values with others in their place.

    A learning rate among them is for the batch at hand; steps replace a time.
    """
    merged = merge(values, overrides)
    if "learning_rate" in overrides and "rate_batch" not in overrides:
        merged["rate_batch"] = 0
    if "steps" in overrides and "minutes" not in overrides:
        merged.pop("minutes", None)
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


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {path} is no valid TOML: {error}") from error


def read_bundled(arch: str, name: str) -> dict[str, Any]:
    """The values of a recipe file that comes with srcli.

    Args:
        arch: A network.
        name: One of `NAMES`, which every network has, or `STUDY`.

    Raises:
        UsageError: If the network has none of that name; those that have one are named.
    """
    folder = resources.files("srcli.training") / "recipes"
    files = {each: folder / f"{each}_{name}.toml" for each in MODELS}
    if not files[arch].is_file():
        having = ", ".join(each for each, file in files.items() if file.is_file())
        raise UsageError(f"{arch} has no recipe {name}; what has one: {having}")
    return tomllib.loads(files[arch].read_text("utf-8"))


def load_recipe(
    model: str, recipe: str = "fast", overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of a network, by name or from a TOML file, with fields replaced.

    Args:
        model: A variant's name; its network's bundled recipe is read.
        recipe: "paper", "fast", "ablation" (what the variants of a study share), or
            the path of a TOML file.
        overrides: Fields that replace the recipe's.

    Raises:
        UsageError: For an unknown model, recipe, field or value.
        InputError: If the file cannot be read.
    """
    network, config = variant(model)
    if recipe == STUDY:
        study = read_bundled(network.arch, recipe)
        values = {"scales": [study["scale"]], **study["recipe"]}
    elif recipe in NAMES:
        values = read_bundled(network.arch, recipe)
        if model.lower() != network.arch:
            # A variant is trained at the scales it was studied at.
            values["scales"] = list(config.scales)
    elif recipe.endswith(".toml"):
        values = {"scales": list(config.scales), **_read_toml(Path(recipe))}
        wanted = values.get("model", model)
        if not isinstance(wanted, str) or variant(wanted)[0] is not network:
            raise UsageError(f"the recipe {recipe} is for {wanted}, not for {model}")
    else:
        raise unknown("recipe", recipe, (*NAMES, STUDY, "FILE.toml"))
    values = replace_fields({**values, "model": model.lower()}, overrides or {})
    return make_recipe(values, f"recipe {recipe!r}")
