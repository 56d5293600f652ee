"""Recipes: how a network is trained, as one frozen description read from TOML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from srcli.errors import InputError, UsageError, unknown
from srcli.imaging.degrade import Degradation, check_degradation
from srcli.models import MODELS, variant
from srcli.models.base import ModelConfig, SRModel, check_value
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

# What numbers have to be, in words and as a test.
_INTERVALS: dict[str, Callable[[float], bool]] = {
    "positive": lambda value: 0 < value < math.inf,
    "0 or more": lambda value: 0 <= value < math.inf,
    "above 0 and at most 1": lambda value: 0 < value <= 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in [0, 1)": lambda value: 0 <= value < 1,
}
_NUMBERS = {
    "positive": "steps batch crop validate_every checkpoint_every learning_rate",
    "0 or more": "weight_decay warmup decay_every min_rate final_rate clip_at "
    "alpha_steps rate_batch teacher_megapixels minutes",
    "above 0 and at most 1": "decay_factor",
    "in [0, 1]": "alpha teacher_share",
    "in [0, 1)": "momentum beta2 ema",
}
# Fields that came later: without them a recipe keeps the hash that it had before.
_LATER = ("minutes", "teacher_share", "teacher_megapixels", "teacher_licence")


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
        for words, names in _NUMBERS.items():
            for name in names.split():
                if not _INTERVALS[words](getattr(self, name)):
                    raise UsageError(f"recipe: {name} must be {words}")
        scales, odds = self.scales, self.scale_odds
        shares, limits = map(list, zip((0.0, 1), *self.recursions, strict=True))
        rise = sorted(shares) == shares and sorted(limits) == limits
        for is_wrong, text in (
            (self.schedule in ("step", "plateau") and self.decay_every < 1,
             f"schedule {self.schedule!r} needs decay_every"),
            (self.clip != "none" and self.clip_at <= 0,
             f"clip {self.clip!r} needs a positive clip_at"),
            (not self.rescale or not all(0.1 <= factor <= 1 for factor in self.rescale),
             "rescale factors lie between 0.1 and 1"),
            (self.min_rate > self.learning_rate * self.rate_for_batch,
             "min_rate must not be above the learning rate"),
            (not rise or shares[-1] > 1 or shares[1:2] > [0.0],
             "recursions are pairs of a share of the steps, the first 0 and none above "
             "1, and a number of at least 1, both rising"),
            (len(set(scales)) < len(scales), "scales names one twice"),
            (bool(odds) and len(odds) != len(scales),
             "scale_odds takes one figure for each scale"),
            (not all(0 < each < math.inf for each in odds),
             "scale_odds must be positive"),
            ("scales" in self.config, "scales is a field of its own, not of config"),
        ):  # fmt: skip
            if is_wrong:
                raise UsageError(f"recipe: {text}")
        for scale in scales:
            check_degradation(self.degradation, scale)

    def position(self, step: int, seconds: float) -> float:
        """Where the schedule stands, as one of the recipe's steps.

        `step` are done; of a time budget, `seconds` are spent.
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
        begun = [
            limit for share, limit in self.recursions if step >= share * self.steps
        ]
        return begun[-1] if begun else None

    def alpha_at(self, step: float) -> float:
        """The weight of the intermediate predictions at step number `step`."""
        if self.alpha_steps == 0:
            return self.alpha
        return self.alpha * max(0.0, 1 - step / self.alpha_steps)

    def divide_batch(self, scales: Sequence[int]) -> dict[int, int]:
        """How many crops each of `scales` gets: as even as can be, one at least."""
        each, more = divmod(self.batch, len(scales))
        return {s: max(1, each + (n < more)) for n, s in enumerate(scales)}

    def lr_crop(self, scale: int) -> int:
        """Side of a crop in LR pixels at `scale`."""
        return self.crop if self.crop_of == "lr" else -(-self.crop // scale)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @property
    def changed_later(self) -> list[str]:
        """Those of the fields that came later which are not at their defaults."""
        defaults = Recipe(model=self.model)
        return [n for n in _LATER if getattr(self, n) != getattr(defaults, n)]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        values = self.as_dict()
        for name in set(_LATER).difference(self.changed_later):
            del values[name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


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
    return Recipe(**{
        name: check_value(f"recipe field {name}", value, hints[name])
        for name, value in values.items()
    })  # fmt: skip


def outline_config(recipe: Recipe) -> tuple[type[SRModel], ModelConfig]:
    """The class and config of the network that a recipe trains.

    Raises:
        UsageError: If the recipe's config makes no network.
    """
    network, config = variant(recipe.model)
    values = {**config.as_dict(), **recipe.config, "scales": recipe.scales}
    return network, type(config).from_dict(values)


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


def read_bundled(arch: str, name: str) -> dict[str, Any]:
    """The values of a network's recipe that comes with srcli, or of its study.

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

    `recipe` is "paper", "fast", "ablation" (what the variants of a study share) or the
    path of a TOML file; a variant has its network's.

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
        try:
            own = tomllib.loads(Path(recipe).read_text("utf-8"))
        except OSError as error:
            reason = error.strerror
            raise InputError(f"cannot read the recipe {recipe}: {reason}") from error
        except ValueError as error:  # of TOML, or of UTF-8
            text = f"the recipe {recipe} is no valid TOML: {error}"
            raise InputError(text) from error
        values = {"scales": list(config.scales), **own}
        wanted = values.get("model", model)
        if not isinstance(wanted, str) or variant(wanted)[0] is not network:
            raise UsageError(f"the recipe {recipe} is for {wanted}, not for {model}")
    else:
        raise unknown("recipe", recipe, (*NAMES, STUDY, "FILE.toml"))
    values = replace_fields({**values, "model": model.lower()}, overrides or {})
    return make_recipe(values, f"recipe {recipe!r}")
