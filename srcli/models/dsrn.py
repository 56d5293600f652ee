"""DSRN: dual-state recurrent network (Han et al., CVPR 2018).

Source: "Image Super-Resolution via Dual-State Recurrent Networks", section 4 for the
structure (equations 2 to 6), section 5.2 for the sizes, Table 2 and Figure 3 for the
variants. What the paper leaves open is decided in docs/models.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.imaging.resize import imresize_torch
from srcli.models.base import ModelConfig, SRModel, find_hr_radius, recomputed
from srcli.models.layers import ResidualBlock, start_with_details


@dataclass(frozen=True, slots=True, kw_only=True)
class DSRNConfig(ModelConfig):
    """DSRN's sizes; the defaults are the network of Table 1."""

    scales: tuple[int, ...] = (2,)  # the one scale it is trained for
    steps: int = 7  # T, how often the recursion is unrolled; Figure 3
    width: int = 128  # channels of both states; the first convolution has half
    # Of f_up and f_down at x2, x3, x4; their stride is the scale.
    kernel: tuple[int, int, int] = (4, 5, 6)
    # What follows the sum that makes a state: PReLUs of one slope per state and step,
    # the paper's; of one slope per state; an ordinary ReLU; nothing.
    activation: Literal["prelu", "shared-prelu", "relu", "none"] = "prelu"
    untied: bool = False  # every step its own transitions; Table 2
    feedback: bool = True  # f_down, from the HR state to the LR state; Table 2
    dual: bool = True  # False: one HR state on bicubic input; Table 2's baseline

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        self.check_single_scale()
        if self.steps < 1 or self.width < 2:
            raise UsageError("dsrn needs at least one step and two channels")
        for scale, kernel in zip((2, 3, 4), self.kernel, strict=True):
            # Less leaves pixels out, more would reach further than a residual block,
            # which the radius rests on.
            if not scale <= kernel <= 3 * scale - 2:
                sizes = f"sizes from {scale} to {3 * scale - 2} for x{scale}"
                raise UsageError(f"kernel takes {sizes}, not {kernel}")


class _Input(nn.Module):
    """s_l^0, from Y: two 3x3 convolutions with a skip.

    The skip takes the first convolution's channels past the second, with zeros for the
    channels that it lacks: the shortcut between unequal widths that needs no weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.empty = width - width // 2
        self.conv1 = nn.Conv2d(1, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        first = F.relu(self.conv1(y))
        skip = F.pad(first, (0, 0, 0, 0, 0, self.empty))
        return F.relu(self.conv2(first) + skip)


def _pick(modules: nn.ModuleList, use: int) -> nn.Module:
    """The module of the given use: the only one where weights are shared."""
    return modules[min(use, len(modules) - 1)]


class DSRN(SRModel):
    """Dual-state recurrent network on Y: one state at LR size, one at HR size.

    Source: CVPR 2018, equation 2, t = 1 ... T with a_t and b_t the slopes of PReLUs::

        s_l^t = PReLU(f_lr(s_l^{t-1}) + f_down(s_h^{t-1}), a_t)
        s_h^t = PReLU(f_up(s_l^t) + f_hr(s_h^{t-1}), b_t)

    The output is bicubic Y plus the mean over t of f_out(s_h^t) (equations 4 to 6).
    s_h^0 is nothing rather than zeros: the first step runs neither f_hr nor f_down.
    """

    arch = "dsrn"
    color = "y"
    config_class = DSRNConfig
    multi_scale = False
    variants: ClassVar[Mapping[str, DSRNConfig]] = {
        "dsrn": DSRNConfig(),
        # Table 2.
        "dsrn-untied": DSRNConfig(untied=True),
        "dsrn-no-feedback": DSRNConfig(feedback=False),
        "dsrn-single-state": DSRNConfig(dual=False),
        # Figure 3; T = 7 is the network itself.
        **{f"dsrn-t{t}": DSRNConfig(steps=t) for t in (1, 2, 3, 4, 5, 6, 8, 9)},
    }

    config: DSRNConfig

    def __init__(self, config: DSRNConfig | None = None) -> None:
        super().__init__()
        self.config = config or DSRNConfig()
        width, steps, dual = self.config.width, self.config.steps, self.config.dual

        def repeat(make: Callable[[], nn.Module], uses: int) -> nn.ModuleList:
            copies = uses if self.config.untied else min(1, uses)
            return nn.ModuleList(make() for _ in range(copies))

        scale = self.config.scales[0]
        kernel = self.config.kernel[scale - 2]
        # So padded, both grids are exact; an odd surplus reaches one pixel further
        # before an LR pixel's own HR pixels than after them.
        surplus = kernel - scale
        sizes = width, width, kernel, scale, -(-surplus // 2)
        self.enter = _Input(width)
        block = partial(ResidualBlock, width)
        self.high = repeat(block, steps - 1 if dual else steps)
        self.low = repeat(block, steps if dual else 0)
        self.up = repeat(
            partial(nn.ConvTranspose2d, *sizes, surplus % 2), steps if dual else 0
        )
        fed_back = steps - 1 if dual and self.config.feedback else 0
        self.down = repeat(partial(nn.Conv2d, *sizes), fed_back)
        # Below zero, of the states' PReLUs: one scalar per state and step, never shared
        # (section 5.2); the last row is the HR state's.
        self.slopes = None
        if self.config.activation in ("prelu", "shared-prelu"):
            columns = steps if self.config.activation == "prelu" else 1
            slopes = torch.full((2 if dual else 1, columns), 0.25)
            self.slopes = nn.Parameter(slopes)
        self.leave = nn.Conv2d(width, 1, 3, padding=1)
        _initialise(self)

    def _unroll(self, lr: Tensor, bicubic: Tensor) -> Iterator[Tensor]:
        """The HR states s_h^1 to s_h^T, one after the other."""
        dual = self.config.dual
        low = self.enter(lr if dual else bicubic)  # s_l^0, or the single state
        high = None  # no s_h^0
        for step in range(self.limited(self.config.steps)):
            if dual:
                low = self._update_low(low, high, step)
                high = self._update_high(low, high, step)
            else:
                low = high = self._advance_alone(low, step)
            yield high

    @recomputed
    def _advance_alone(self, high: Tensor, step: int) -> Tensor:
        """The single state, s_h^t from s_h^{t-1}; `step` is t - 1."""
        return self._activate(_pick(self.high, step)(high), -1, step)

    @recomputed
    def _update_low(self, low: Tensor, high: Tensor | None, step: int) -> Tensor:
        """Equation 2: s_l^t from both states of before; `step` is t - 1."""
        low = _pick(self.low, step)(low)
        if high is not None and self.config.feedback:
            low = low + _pick(self.down, step - 1)(high)
        return self._activate(low, 0, step)

    @recomputed
    def _update_high(self, low: Tensor, high: Tensor | None, step: int) -> Tensor:
        """Equation 2: s_h^t from s_l^t and s_h^{t-1}; `step` is t - 1."""
        raised = _pick(self.up, step)(low)
        if high is not None:
            raised = raised + _pick(self.high, step - 1)(high)
        return self._activate(raised, -1, step)

    def _activate(self, state: Tensor, row: int, step: int) -> Tensor:
        """The state through its own step's PReLU, or what stands in for it."""
        if self.slopes is not None:
            column = min(step, self.slopes.shape[1] - 1)
            slope = self.slopes[row, column : column + 1].to(state.dtype)
            if torch.is_grad_enabled() and not state.is_cuda:
                # The same; its gradient takes a quarter of prelu's time on a CPU.
                return slope * state + (1 - slope) * F.relu(state)
            return F.prelu(state, slope)
        return F.relu(state) if self.config.activation == "relu" else state

    def limit_recursions(self, limit: int | None) -> None:
        """Run at most the first `limit` steps.

        When the limit is raised, steps after the last one that ran before begin with
        its slopes, and with its layers where they are untied. Slopes of the start would
        let their states explode (docs/models.md).
        """
        before = self.limited(self.config.steps)
        start = self._match_steps(self).state_dict()
        super().limit_recursions(limit)
        if self.limited(self.config.steps) > before:
            self.load_state_dict(start)

    def fitting_weights(self, source: SRModel) -> dict[str, Tensor]:
        """As `SRModel.fitting_weights`, step by step; a last one stands for later ones.

        Shared layers begin with those of the first step.
        """
        if isinstance(source, DSRN):
            source = self._match_steps(source)
        return super().fitting_weights(source)

    def _match_steps(self, source: DSRN) -> DSRN:
        """A copy of another network, with weights for the steps that this one has."""
        matched = copy.deepcopy(source)
        last = source.limited(source.config.steps) - 1
        for name in ("low", "high", "up", "down"):
            own, known = getattr(self, name), getattr(source, name)
            # The first step of two states has no HR state that it could pass on.
            mine, others = (
                int(each.config.dual and name in ("high", "down"))
                for each in (self, source)
            )
            uses = [max(min(mine + i, last) - others, 0) for i in range(len(own))]
            picked = [copy.deepcopy(_pick(known, use)) for use in uses if len(known)]
            setattr(matched, name, nn.ModuleList(picked))
        if self.slopes is not None and source.slopes is not None:
            last = min(last, source.slopes.shape[1] - 1)
            columns = torch.arange(self.slopes.shape[1]).clamp_max(last)
            matched.slopes = nn.Parameter(source.slopes.detach()[:, columns])
        return matched

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate that the loss supervises, each step's prediction averaged.

        Section 4 calls it deep supervision, yet equation 6 compares the mean alone.
        f_out is linear and shared: on the mean of the HR states it gives the mean of
        the predictions (equations 4 and 5).
        """
        scale = self.resolve_scale(scale)
        bicubic = imresize_torch(lr, float(scale))
        total = reduce(torch.add, self._unroll(lr, bicubic))
        residual = self.leave(total / self.limited(self.config.steps))
        return (bicubic + residual.to(lr.dtype),)

    def receptive_radius(self, scale: int | None = None) -> int:
        """2 a step at LR size, 2 for the input, 1 through f_out and the last f_up.

        f_down and f_up reach no further than the step's f_lr while their padding is
        below the scale. A single HR state counts HR pixels.
        """
        scale, reach = self.resolve_scale(scale), 2 * self.config.steps + 3
        return reach if self.config.dual else find_hr_radius(reach, scale)

    def tile_overlap(self, scale: int | None = None) -> int:
        """14 LR pixels up to T = 7, measured, then 2 T; at most the exact radius."""
        radius = self.receptive_radius(scale)
        measured = max(14, 2 * self.config.steps)
        return min(measured, radius) if self.config.dual else radius


def _initialise(model: DSRN) -> None:
    """Glorot's uniform weights (section 5.2) and no biases, but for two changes.

    A tenth of that ends f_out and every residual block: training starts near bicubic,
    and states grow slowly with t. The first kernels see no brightness.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    blocks = (*model.low, *model.high)
    for last in (model.leave, *(block.conv2 for block in blocks)):
        nn.init.xavier_uniform_(last.weight, gain=0.1)
    start_with_details(model.enter.conv1.weight)
