"""Winograd's convolutions for training on the CPU: autograd goes back through them.

The gradient with respect to the input is a convolution with the kernel turned round.
That of the kernel is, in each of the 36 places of a tile, a product over all tiles of
what the input and the output's gradient are there, and one 3x3 transform at the end.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1, of whose equation 12 these are the derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from srcli.models import winograd
from srcli.models.layers import keeps_size


@contextmanager
def used_by(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network's convolutions are Winograd's where that is faster.

    They compute in the type that autocast chooses. No weight may change meanwhile:
    transformed kernels are kept for all passes.
    """
    layers = [
        layer
        for layer in network.modules()
        if type(layer) is nn.Conv2d and keeps_size(layer)
    ]
    for layer in layers:
        layer.forward = _Layer(layer)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class _Layer:
    """What a convolutional layer does meanwhile."""

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
        """The transformed weight without values: gradients of all uses are added up."""
        return cast("Tensor", _Transform.apply(self.layer.weight))  # type: ignore[no-untyped-call]

    def convolve(self, x: Tensor, back: bool) -> Tensor:
        """`x` with the kernel, or with the one for the input's gradient."""
        weight = self.layer.weight.detach()
        if back:
            weight = weight.flip(2, 3).transpose(0, 1)
        if (x.dtype, back) not in self.kernels:
            kernel = winograd.transform_weight(weight, x.dtype)
            self.kernels[x.dtype, back] = kernel
        size, layout = (len(x), len(weight), *x.shape[2:]), torch.channels_last
        out = torch.empty(size, dtype=x.dtype, memory_format=layout)
        bias = torch.zeros(len(weight))
        x = x.detach().contiguous(memory_format=layout)
        return winograd.convolve(x, self.kernels[x.dtype, back], bias, out)


class _Transform(torch.autograd.Function):
    """G w G^T without its values: the gradient of all its uses goes back at once.

    Nothing is saved, so that a recomputed layer finds it as the first pass left it.
    """

    @staticmethod
    def forward(_: Any, weight: Tensor) -> Tensor:  # noqa: ANN401
        outputs, inputs, *_ = weight.shape
        return torch.empty(1).expand(36, outputs, inputs)

    @staticmethod
    @once_differentiable
    def backward(_: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        outputs, inputs = gradient.shape[1:]
        taps = winograd.weight_transform().T @ gradient.flatten(1)
        return taps.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution of (N, inputs, h, w), whose edges see zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _tiles: Tensor, layer: _Layer) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer.convolve(x, back=False)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        of_x = of_tiles = None
        if ctx.needs_input_grad[0]:
            of_x = ctx.layer.convolve(gradient, back=True)
        if ctx.needs_input_grad[1]:
            layout = torch.channels_last
            pair = (
                x.contiguous(memory_format=layout),
                gradient.contiguous(memory_format=layout),
            )
            total, *others = winograd.in_threads(partial(_multiply, *pair))
            of_tiles = sum(others, total)
        return of_x, of_tiles, None


def _multiply(x: Tensor, gradient: Tensor, part: int, parts: int) -> Tensor:
    """What a part of all tiles adds to the transformed kernel's gradient, in float32.

    `x` was convolved, and `gradient`, of the same dtype, is that of the result.
    """
    compiled = winograd.kernels()
    assert compiled is not None  # as `winograd.serves` says
    arrays = [winograd.as_array(each) for each in (x, gradient)]
    rooms = [winograd.make_room(array) for array in arrays]
    number, height, width, _ = arrays[0].shape
    down, across = -(-height // 4), -(-width // 4)
    most = min(number * down, max(1, winograd.TILES // across))  # rows of tiles at once
    # One more, or what is written for a tile would all be of one set of the cache.
    size = most * across + 1
    tiles = [
        torch.empty(36, size, each.shape[1], dtype=x.dtype) for each in (x, gradient)
    ]
    total = torch.zeros(36, gradient.shape[1], x.shape[1])
    start, end = (number * down * edge // parts for edge in (part, part + 1))
    for begin in range(start, end, most):
        row, stop = begin, min(end, begin + most)
        while row < stop:  # of a picture at a time
            picture, first = divmod(row, down)
            last = min(down, first + stop - row)
            place = (row - begin) * across
            for back in (0, 1):
                products = winograd.as_bits(tiles[back].flatten(0, 1))[place:]
                compiled.enter_strip(
                    arrays[back][picture],
                    1 - back,
                    bool(back),
                    first,
                    last,
                    products,
                    (1, size),
                    *rooms[back],
                )
            row += last - first
        entered, returned = (each[:, : (stop - begin) * across] for each in tiles)
        total += torch.bmm(returned.transpose(1, 2), entered)
    return total
