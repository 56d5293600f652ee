"""DRRN for inference: normalisations, ReLUs and sums joined with the convolutions.

A normalisation of what a convolution gives becomes a part of that convolution. One of a
sum with H^0 cannot, since all units of a block share H^0. But where a is positive,
ReLU(a s + b) = a ReLU(s + b/a): b/a goes into the bias of the convolution before, and
a into the weights of the one after. The convolution makes the sum and the ReLU as it
writes, so that a unit writes two tensors, one for each of its convolutions.

A state h is kept as sign * (h + shift), both per channel, so that the first ReLU needs
no other normalisation, and that the a of a channel may all be negative as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from srcli.imaging.resize import imresize_torch
from srcli.models.folded import (
    FoldedModel,
    Scaling,
    choose_dtype,
    join_layer,
    project,
)
from srcli.models.fused import FusedConv, align_channels, keep_buffers

if TYPE_CHECKING:
    from srcli.models.drrn import DRRN, _RecursiveBlock

# How far a state may be shifted, counted in what its normalisations make one. More
# would cost digits in half precision.
_FURTHEST = 8.0
_LARGEST_BIAS = 4096.0  # with the state added, far below fp16's largest value


class _Rectifier(nn.Module):
    """ReLU of a scaled state, as a copy."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scaling: Scaling, like: Tensor) -> None:
        super().__init__()
        scale, shift = scaling.scale.view(-1, 1, 1), scaling.shift.view(-1, 1, 1)
        keep_buffers(self, like, scale=scale, shift=shift)

    def forward(self, state: Tensor) -> Tensor:
        scale, shift = self.scale.to(state.dtype), self.shift.to(state.dtype)
        return torch.addcmul(shift, state, scale).relu_()


class _Unit(nn.Module):
    """A residual unit (equation 5), with the normalisation and ReLU after it.

    Args:
        inner: The first convolution.
        outer: The second one, to whose result the identity is added.
        share: What the identity is multiplied by for that, (width,); None is one.
        rectify: Given where the sum is the next unit's identity (`path="chain"`): makes
            what that unit reads of it.
    """

    share: Tensor | None

    def __init__(
        self,
        inner: FusedConv,
        outer: FusedConv,
        *,
        share: Tensor | None = None,
        rectify: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.outer = outer
        self.rectify = rectify
        if share is None:
            self.share = None
        else:
            keep_buffers(self, inner.weight, share=share)

    def add(self, x: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
        """What the next layer reads, and the next unit's identity.

        Args:
            x: What `inner` gave.
            identity: Changed in place where the next unit has another.
        """
        if self.rectify is not None:
            identity = self.outer.add_to(identity, x)
            return self.rectify(identity), identity
        return self.outer(x, slope=0.0, add=identity, gain=self.share), identity


class _Block(nn.Module):
    """A recursive block from after its first ReLU to after the next layer's.

    Args:
        enter: The first convolution.
        rectify: Makes what the first unit reads of the state.
        units: None, and `enter` is all there is (VDSR).
    """

    def __init__(
        self, enter: FusedConv, rectify: nn.Module, units: Sequence[_Unit]
    ) -> None:
        super().__init__()
        self.enter = enter
        self.rectify = rectify
        self.units = nn.ModuleList(units)


@dataclass(frozen=True, slots=True)
class _Kept:
    """How a block keeps its state h: as sign * (h + shift), per channel."""

    sign: Tensor
    shift: Tensor
    furthest: Tensor  # the longest shift that is allowed

    @classmethod
    def choose(cls, norms: Sequence[Scaling]) -> _Kept:
        """For states so normalised: not shifted, with the first one's signs."""
        largest = torch.stack([norm.scale.abs() for norm in norms]).amax(dim=0)
        sign = torch.where(norms[0].scale < 0, -1.0, 1.0).double()
        return cls(sign, torch.zeros_like(sign), _FURTHEST / largest)

    def as_scaling(self) -> Scaling:
        """From h to what is kept."""
        return Scaling(self.sign, self.sign * self.shift)

    def move(self, norm: Scaling, like: Tensor) -> tuple[_Kept, nn.Module, Tensor]:
        """Make ready for a normalisation that leaves the state as it is.

        Returns:
            How to keep the state from now on, what makes the next layer's input of it,
            and what that is still to be multiplied by.
        """
        if self._agrees(norm, self.furthest):
            moved = replace(self, shift=norm.shift / norm.scale)
            return moved, nn.ReLU(), norm.scale.abs()
        shift = norm.shift - norm.scale * self.shift
        scaling = Scaling(norm.scale * self.sign, shift)
        return self, _Rectifier(scaling, like), torch.ones_like(norm.scale)

    def join(self, norm: Scaling) -> tuple[Scaling, Tensor | None, Tensor]:
        """Make a normalisation of the state + x part of what gives x.

        Returns:
            What follows x, what the state is multiplied by (None is one), and what the
            sum is still to be multiplied by.
        """
        if self._agrees(norm, _LARGEST_BIAS):
            shift = self.sign * (norm.shift / norm.scale - self.shift)
            return Scaling(self.sign, shift), None, norm.scale.abs()
        then = Scaling(norm.scale, norm.shift - norm.scale * self.shift)
        return then, norm.scale * self.sign, torch.ones_like(norm.scale)

    def _agrees(self, norm: Scaling, limit: Tensor | float) -> bool:
        """Whether ReLU(a h + b) = |a| ReLU(sign * (h + b/a)), b/a within the limit."""
        fits = norm.shift.abs() <= norm.scale.abs() * limit
        return bool((fits & (norm.scale * self.sign > 0)).all())


def _fold_block(
    block: _RecursiveBlock, count: int, gain: Tensor, leaving: Scaling
) -> tuple[_Block, Tensor]:
    """The block, and what its output is still to be multiplied by.

    Args:
        block: Of the network.
        count: Units that run, the first ones.
        gain: What its input is still to be multiplied by, (inputs,).
        leaving: The normalisation after the block.
    """
    first, layers = block.enter.convolution, block.convolutions
    norms = [Scaling.read(norm) for norm in block.norms[: 2 * count]]
    ones = torch.ones_like(leaving.scale)
    if not norms:
        return _Block(join_layer(first, gain, leaving), nn.ReLU(), ()), ones
    states = [*norms[::2], leaving]  # of H^0, then of what each unit gives
    kept, rectify, left = _Kept.choose(states).move(states[0], first.weight)
    enter = join_layer(first, gain, kept.as_scaling())
    units = []
    for index, after in enumerate(states[1:]):
        place = 2 * index
        inner = join_layer(layers[place % len(layers)], left, norms[2 * index + 1])
        second = layers[(place + 1) % len(layers)]
        if block.chain and after is not leaving:
            moved, copy, left = kept.move(after, first.weight)
            then = Scaling(kept.sign, kept.sign * (moved.shift - kept.shift))
            outer, kept = join_layer(second, ones, then), moved
            units.append(_Unit(inner, outer, rectify=copy))
        else:
            then, share, left = kept.join(after)
            outer = join_layer(second, ones, then)
            units.append(_Unit(inner, outer, share=share))
    return _Block(enter, rectify, units), left


class FoldedDRRN(FoldedModel):
    """A DRRN that only infers; see the top of this file.

    At most three tensors of its width live at once: a block's state, and what a
    convolution reads and writes.
    """

    def __init__(self, source: DRRN) -> None:
        """Fold a network, as it is in evaluation.

        Args:
            source: It is not changed. Units that its limit leaves out are left out.
        """
        super().__init__(source)
        blocks = [cast("_RecursiveBlock", block) for block in source.blocks]
        last = source.reconstruct
        units = source.limited(source.config.units)
        after = [block.enter.norm for block in blocks[1:]] + [last.norm]
        first = Scaling.read(blocks[0].enter.norm)
        self.rectify = _Rectifier(first, last.convolution.weight)
        self.blocks = nn.ModuleList()
        gain = torch.ones_like(first.scale)
        for block, norm in zip(blocks, after, strict=True):
            folded, gain = _fold_block(block, units, gain, Scaling.read(norm))
            self.blocks.append(folded)
        bias = last.convolution.get_parameter("bias").detach().cpu().double()
        output = Scaling(torch.ones_like(bias), bias)
        self.reconstruct = join_layer(last.convolution, gain, output)

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate; equation 9."""
        picture = imresize_torch(lr, self.resolve_scale(scale))
        dtype = choose_dtype(picture)
        x = align_channels(self.rectify(picture))
        for each in self.blocks:
            block = cast("_Block", each)
            # Each name is given up as soon as its tensor has been read.
            state = block.enter(x, slope=1.0 if block.units else 0.0).to(dtype)
            if block.units:
                x = block.rectify(state)
                for part in block.units:
                    unit = cast("_Unit", part)
                    x = unit.inner(x, slope=0.0)
                    x, state = unit.add(x, state)
            else:
                x = state
        return (picture + project(self.reconstruct, x, picture.dtype),)
