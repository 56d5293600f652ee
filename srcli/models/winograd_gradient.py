"""Winograd's convolutions for training on the CPU: autograd goes back through them.

The gradient with respect to the input is a convolution with the kernel turned round.
That of the kernel is, in each of the 36 places of a tile, a product over all tiles of
what the input and the output's gradient are there, and one 3x3 transform at the end.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1, of whose equation 12 these are the derivatives.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from srcli.models import winograd

_TILES = 150  # that are multiplied at once, about: they stay in the cache
_state = threading.local()


@contextmanager
def used_by(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network's convolutions are Winograd's where that is faster.

    They compute in the type that autocast chooses. No weight may change meanwhile:
    transformed kernels are kept for all passes.
    """
    layers = [layer for layer in network.modules() if _fits(layer)]
    for layer in layers:
        layer.forward = _Layer(cast("nn.Conv2d", layer))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _fits(layer: nn.Module) -> bool:
    """Whether it is a 3x3 convolution that keeps the size of what it is given."""
    return isinstance(layer, nn.Conv2d) and (
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.padding_mode,
    ) == (
        (3, 3),
        (1, 1),
        (1, 1),
        (1, 1),
        1,
        "zeros",
    )


class _Layer:
    """What a convolutional layer does meanwhile.

    Attributes:
        tiles: Stands for the transformed weight where the gradients of all uses are
            added up, (36, outputs, inputs); it has no values.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer
        self.otherwise = layer.forward
        self.kernels: dict[tuple[torch.dtype, bool], Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution of (N, inputs, h, w)."""
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if not winograd.serves(x, self.layer.weight):
            return self.otherwise(x)
        result: Tensor = _Convolution.apply(x, self.tiles, self)  # type: ignore[no-untyped-call]
        bias = self.layer.bias
        return result if bias is None else result + bias.to(x.dtype).view(-1, 1, 1)

    @cached_property
    def tiles(self) -> Tensor:
        return cast("Tensor", _Transform.apply(self.layer.weight))  # type: ignore[no-untyped-call]

    def kernel(self, dtype: torch.dtype, back: bool) -> Tensor:
        """What `winograd.convolve` takes, ahead or for the input's gradient."""
        key = dtype, back
        if key not in self.kernels:
            weight = self.layer.weight.detach()
            turned = weight.flip(2, 3).transpose(0, 1) if back else weight
            self.kernels[key] = winograd.transform_weight(turned, dtype)
        return self.kernels[key]


class _Transform(torch.autograd.Function):
    """G w G^T without its values: the gradient of all its uses goes back at once.

    Nothing is saved, so that a recomputed layer finds it as the first pass left it.
    """

    @staticmethod
    def forward(_: Any, weight: Tensor) -> Tensor:  # noqa: ANN401
        outputs, inputs, *_ = weight.shape
        return torch.empty(1).expand(36, outputs, inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        outputs, inputs = gradient.shape[1:]
        taps = winograd.weight_transform().T @ gradient.flatten(1)
        return taps.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution of (N, inputs, h, w), whose edges see zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tiles: Tensor, layer: _Layer) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x)
        ctx.layer = layer
        return _convolve(x, layer.kernel(x.dtype, False), tiles.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        of_x = of_tiles = None
        if ctx.needs_input_grad[0]:
            kernel = ctx.layer.kernel(x.dtype, True)
            of_x = _convolve(gradient, kernel, x.shape[1])
        if ctx.needs_input_grad[1]:
            of_tiles = _multiply(x, gradient)
        return of_x, of_tiles, None


def _side_by_side(x: Tensor) -> Tensor:
    """`x` as the compiled transforms take it: the channels of a pixel side by side."""
    return x.detach().contiguous(memory_format=torch.channels_last)


def _convolve(x: Tensor, kernel: Tensor, outputs: int) -> Tensor:
    size = (len(x), outputs, *x.shape[2:])
    out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    return winograd.convolve(_side_by_side(x), kernel, torch.zeros(outputs), out)


def _multiply(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the transformed kernel, (36, outputs, inputs) float32.

    Args:
        x: What was convolved, (N, inputs, h, w).
        gradient: Of the result, (N, outputs, h, w), of the same dtype.
    """
    work = partial(_multiply_some, _side_by_side(x), _side_by_side(gradient))
    total, *others = winograd.in_threads(work)
    for other in others:
        total += other
    return total


def _multiply_some(x: Tensor, gradient: Tensor, part: int, parts: int) -> Tensor:
    """What one of so many parts of all tiles adds to it."""
    pair = _Pair(x, gradient)
    first, end = (pair.rows * edge // parts for edge in (part, part + 1))
    product = _room("product", gradient.shape[1], x)
    total = torch.zeros(product.shape)
    while first < end:
        last = min(end, first + pair.most)
        entered, returned = pair.transform(first, last)
        torch.bmm(returned.transpose(1, 2), entered, out=product)
        total += product
        first = last
    return total


class _Pair:
    """What was convolved and the result's gradient, in tiles that match.

    Attributes:
        rows: Of tiles, in all pictures.
        most: How many of them are transformed at once.
    """

    def __init__(self, x: Tensor, gradient: Tensor) -> None:
        self.both = winograd.as_array(x), winograd.as_array(gradient)
        number, height, width, _ = self.both[0].shape
        self.down, self.across = -(-height // 4), -(-width // 4)
        self.rows = number * self.down
        self.most = min(self.rows, max(1, _TILES // self.across))
        # One more, or what is written for a tile would all be of one set of the cache.
        room = self.most * self.across + 1
        self.tiles = _room("entered", room, x), _room("returned", room, gradient)

    def transform(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Rows of tiles, (36, tiles, channels) each; the next go to the same memory."""
        compiled = winograd.kernels()
        assert compiled is not None  # as `winograd.serves` says
        enter_strip, _, return_strip = compiled
        entered, returned = (winograd.as_bits(t.flatten(0, 1)) for t in self.tiles)
        steps = 1, self.tiles[0].shape[1]
        inner, outer = (
            (
                np.empty((6, 66 * each.shape[3]), np.float32),
                np.zeros(each.shape[2] * each.shape[3], each.dtype),
            )
            for each in self.both
        )
        row = start
        while row < end:
            picture, first = divmod(row, self.down)
            last = min(self.down, first + end - row)
            place = (row - start) * self.across
            x, gradient = (each[picture] for each in self.both)
            enter_strip(x, 1, first, last, entered[place:], steps, *inner)
            return_strip(gradient, first, last, returned[place:], steps, *outer)
            row += last - first
        used = (end - start) * self.across
        return self.tiles[0][:, :used], self.tiles[1][:, :used]


def _room(name: str, rows: int, like: Tensor) -> Tensor:
    """(36, rows, channels), the thread's own and kept for the next convolution."""
    rooms = _state.__dict__.setdefault("rooms", {})
    size = 36, rows, like.shape[1]
    room = rooms.get(name)
    if room is None or room.shape != size or room.dtype != like.dtype:
        rooms[name] = room = torch.empty(size, dtype=like.dtype)
    return cast("Tensor", room)
