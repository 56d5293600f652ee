"""The contract every network keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import (
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srcli.errors import UsageError, unknown
from srcli.models.layers import resample_transitions

Color = Literal["y", "rgb"]
_Method = TypeVar("_Method", bound=Callable[..., Any])


def check_value(name: str, value: Any, hint: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A value of JSON or TOML as a field holds it: lists as tuples, 1 as 1.0.

    Args:
        name: What the value is for, as a message calls it.
        value: One value may stand for a list of one.
        hint: int, float, bool, str, dict, a `Literal`, or a tuple of these.

    Raises:
        UsageError: If the value is of another type or not among the choices.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in parts:
            raise unknown(f"value of {name}", str(value), map(str, parts))
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        hints = parts[:1] * len(items) if parts[-1] is ... else parts
        if len(items) != len(hints):
            raise UsageError(f"{name} takes {len(hints)} values, not {value!r}")
        pairs = zip(items, hints, strict=True)
        return tuple(check_value(name, item, each) for item, each in pairs)
    plain = origin or hint
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise UsageError(f"{name} takes {plain.__name__}, not {value!r}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The configuration of a network; the defaults are the paper's."""

    scales: tuple[int, ...] = (2, 3, 4)  # enlargement factors one network serves

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__} field {field.name}"
            value = check_value(name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
        if not self.scales or any(scale not in (2, 3, 4) for scale in self.scales):
            raise UsageError(f"scales must be among 2, 3 and 4, not {self.scales}")

    def check_single_scale(self) -> None:
        """Refuse several scales: some layers' strides are the scale."""
        if len(self.scales) > 1:
            raise UsageError("such a network serves one scale; build one for each")

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that `as_dict` described.

        Raises:
            UsageError: If a key is unknown (the message names the nearest), or a value
                is of the wrong type or size.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise unknown(f"{cls.__name__} field", key, known)
        return cls(**values)


def recomputed(method: _Method) -> _Method:
    """A method of a network, or of a module in it, that `recompute` computes again.

    What its gradient needs is then not kept. It may not change its arguments, nor
    anything else.
    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv
    1604.06174.
    """

    @wraps(method)
    def run(self: nn.Module, *args: Any) -> Any:  # noqa: ANN401 - as the method's
        if not (getattr(self, "_recompute", False) and torch.is_grad_enabled()):
            return method(self, *args)
        return checkpoint(
            method,
            self,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is random
            context_fn=lambda: (nullcontext(), _hold_statistics(self)),
        )

    return cast("_Method", run)


@contextmanager
def _hold_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch a second time, without counting it again."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class SRModel(nn.Module):
    """A super-resolution network.

    `forward(lr)` takes (N, C, h, w) in [0, 1] and returns (N, C, s*h, s*w), same dtype
    and device, never clamped. C is 1 (studio-range Y / 255) for `color == "y"` and 3
    for `"rgb"`. Recursive state is local to a call.
    """

    arch: ClassVar[str]  # the paper's name in lower case
    color: Color
    config_class: ClassVar[type[ModelConfig]]
    # Every configuration that the paper's tables and figures study, by name; the first
    # is the paper's final network.
    variants: ClassVar[Mapping[str, ModelConfig]]
    # Whether the paper's network serves all scales, or is trained for each.
    multi_scale: ClassVar[bool]
    # What the paper calls that which each of several predictions comes from (None:
    # there is only one), and the last one if it combines the others.
    stage: ClassVar[str | None] = None
    combination: ClassVar[str | None] = None

    config: ModelConfig
    # What pictures and weights are best laid out as, on every device.
    memory_format: torch.memory_format = torch.channels_last
    # What the network computes well in; see `srcli.inference.device.DTYPES`.
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    # LR pixels. A network that works in windows sees the same in a tile as in the whole
    # only if tiles begin and end where its windows do.
    size_multiple: int = 1
    # LR pixels a side of two small pictures; what the second takes more than the first
    # is what its pixels take. 0 is no picture.
    probe_sides: tuple[int, int] = (8, 16)
    # Whether tiles change more than rounding: a picture then goes as a whole if it can.
    sees_whole: bool = False
    # LR pixels of context that were measured to be enough for tiles (docs/design.md).
    measured_overlap: ClassVar[int | None] = None
    # Run at most this many recursions; None runs all. Training starts shallow with it.
    recursion_limit: int | None = None

    @property
    def channels(self) -> int:
        """Channels of input and output pictures."""
        return 1 if self.color == "y" else 3

    @property
    def recompute(self) -> bool:
        """Whether training computes again what is `recomputed`, to save memory."""
        return getattr(self, "_recompute", False)

    @recompute.setter
    def recompute(self, value: bool) -> None:
        for module in self.modules():
            module._recompute = value  # type: ignore[assignment]

    @property
    def stage_weights(self) -> Tensor | None:
        """The weights by which the last prediction sums up the others.

        (n - 1,) for n predictions, of any sign; None if it is no such sum.
        """
        return None

    def resolve_scale(self, scale: int | None) -> int:
        """The factor a call works at; None is the network's only one.

        Raises:
            UsageError: If the network does not serve `scale`, or serves several and
                none was named.
        """
        scales = self.config.scales
        if scale is None and len(scales) == 1:
            return scales[0]
        served = ", ".join(f"x{known}" for known in scales)
        if scale is None:
            raise UsageError(f"{self.arch} serves {served}: name a scale")
        if scale not in scales:
            raise UsageError(f"this {self.arch} network serves {served}, not x{scale}")
        return scale

    def limited(self, recursions: int) -> int:
        """`recursions`, or the recursion limit when that is lower."""
        if self.recursion_limit is None:
            return recursions
        return min(recursions, self.recursion_limit)

    def limit_recursions(self, limit: int | None) -> None:
        """Run at most `limit` recursions from now on (None: all).

        Networks override this to keep their output when the limit is raised, or to give
        recursions with weights of their own a start.

        Raises:
            UsageError: If the limit leaves no recursion.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"at least one recursion must run, not {limit}")
        self.recursion_limit = limit

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """Every estimate that the paper's loss supervises, the final one last.

        `lr` is (N, C, h, w) in [0, 1], the estimates (N, C, s*h, s*w); the last one
        equals `forward`. `scale` may be None where the network serves only one.
        """
        raise NotImplementedError

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """The enlarged picture, (N, C, s*h, s*w); see the class for the contract."""
        return self.predictions(lr, scale)[-1]

    def fitting_weights(self, source: SRModel) -> dict[str, Tensor]:
        """What this network can start from of another's weights, by name.

        Those of the same names and shapes, and the layers between LR and HR size of
        another scale, resampled (`resample_transitions`).
        """
        own = self.state_dict()
        same = {
            name: value
            for name, value in source.state_dict().items()
            if name in own and own[name].shape == value.shape
        }
        return same | resample_transitions(self, source)

    def find_core(self) -> nn.Module:
        """What a fast copy is made of: the network, or the part that does its work."""
        return self

    def with_core(self, core: SRModel) -> SRModel:
        """This network with a fast copy of its core, which stays as it is."""
        return core

    def receptive_radius(self, scale: int | None = None) -> int:
        """Furthest LR pixel, counted along one axis, that can touch an output pixel."""
        raise NotImplementedError

    def tile_overlap(self, scale: int | None = None) -> int:
        """LR pixels of context that make a tile equal to the whole picture.

        That is: at most one grey level of difference in at most one of 100,000 values.
        The exact radius unless a measurement allows less.
        """
        radius = self.receptive_radius(scale)
        return min(self.measured_overlap or radius, radius)


def find_hr_radius(reach: int, scale: int) -> int:
    """The receptive radius in LR pixels of a network on the bicubic picture.

    The last of an LR pixel's HR pixels reads `reach` of them further; bicubic
    interpolation reads two LR pixels around there.
    """
    return (2 * (reach - 1) + 5 * scale) // (2 * scale)
