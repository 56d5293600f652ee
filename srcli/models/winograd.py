"""3x3 convolutions on the CPU with a quarter of the multiplications.

Winograd's F(4x4, 3x3) multiplies 36 values where the definition multiplies 144, and its
transforms cost little where there are many channels. The transforms are compiled by
Numba, an extra (`pip install 'srcli[fast-cpu]'`); the products are torch's. A picture
is worked on in strips, small enough for the cache, each by one thread.

In training, the gradient of the input is a convolution with the kernel turned round;
that of the kernel is, in each of a tile's 36 places, a product over all tiles of what
the input and the output's gradient are there, and one 3x3 transform at the end.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1; the gradients are the derivatives of its equation 12.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property, partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from srcli.models.layers import keeps_size

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

_MULTIPLE = 16  # of which both sides' channels are one
# Channels of both sides. With fewer, the transforms take what the products save: of 64
# channels in bfloat16, oneDNN's own convolution is as fast, and rounds less.
_CHANNELS = {torch.float32: 32, torch.bfloat16: 128}
_LEAST = 1 << 11  # pixels of all pictures, below which threads cost more than they save
_TILES = 150  # that are multiplied at once, about: they stay in the cache

_ONEDNN = torch.ops.mkldnn
_PLACE = ([0, 0], [1, 1], [1, 1], 36)  # padding, stride, dilation, groups
_suspensions: list[None] = []


@cache
def _kernels() -> Any:  # noqa: ANN401 - a module
    """The compiled transforms, `winograd_kernels`; None where they cannot be had."""
    if find_spec("numba") is None:
        return None
    try:
        return importlib.import_module("srcli.models.winograd_kernels")
    except (ImportError, RuntimeError) as error:
        # A NumPy that is too new for Numba, or no folder where it may keep its code.
        log.warning("numba is installed but of no use here: %s", error)
        return None


def is_available() -> bool:
    """Whether the extra is installed that compiles the transforms, and of use here."""
    return _kernels() is not None


@contextmanager
def suspended() -> Iterator[None]:
    """Do without for a while, as if the extra were not installed."""
    _suspensions.append(None)
    try:
        yield
    finally:
        _suspensions.pop()


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether this is faster for (N, inputs, h, w) `x`, and can be done here."""
    outputs, inputs, *kernel = weight.shape
    return (
        x.device.type == "cpu"
        and x.dtype in _CHANNELS
        and kernel == [3, 3]
        and min(outputs, inputs) >= _CHANNELS[x.dtype]
        and outputs % _MULTIPLE == inputs % _MULTIPLE == 0
        and x.shape[0] * x.shape[2] * x.shape[3] >= _LEAST
        and not _suspensions
        and is_available()
    )


def transform_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """G w G^T of (outputs, inputs, 3, 3) as `convolve` takes it.

    A 1x1 convolution in 36 groups, in the layout that oneDNN reads best.
    """
    inputs = weight.shape[1]
    taps = weight.float().permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    plain = (_weight_transform() @ taps).view(-1, inputs, 1, 1).to(dtype)
    size = [1, 36 * inputs, _TILES, 1]
    return _ONEDNN._reorder_convolution_weight(plain, [0, 0], *_PLACE[1:], size)


def _weight_transform() -> Tensor:
    """G of section 4.1 in both directions, (36, 9): a kernel's taps to its tile."""
    a, b = _kernels().POINTS
    finite = torch.tensor([0, a, -a, b, -b], dtype=torch.float64)
    apart = finite[:, None] - finite + torch.eye(5, dtype=torch.float64)
    rows = finite[:, None] ** torch.arange(3) / apart.prod(dim=1, keepdim=True)
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    rows = torch.cat((rows, last))
    return torch.kron(rows, rows).float()


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    *,
    slope: float = 1.0,
    add: Tensor | None = None,
    share: float = 0.0,
    above: int = 1,
) -> Tensor:
    """Convolve with the kernel of `transform_weight` and write to `out`.

    That gets act(conv(x) + add), or with a share out + share * act(conv(x)).

    Args:
        x: (N, inputs, h, w), channels_last.
        weight: Of `transform_weight`, of the same dtype.
        bias: (outputs,) float32.
        out: (N, outputs, h, w), or fewer rows if `x` brings its own row above or below;
            channels_last, of the same dtype, and no part of `x`.
        slope: act is max(v, 0) + slope * min(v, 0).
        add: As `out`, or `out` itself.
        share: Zero is none.
        above: Rows of zeros above `x`, 1 or 0; there are as many below as it takes.
    """
    compiled, onto = _kernels(), add is out
    source, target = _as_array(x), _as_array(out)
    other = _as_array(out[:, :, :0] if add is None or onto else add)
    then = bias.numpy(), np.float32(slope), np.float32(share)
    number, height, width, outputs = target.shape
    inputs, across = source.shape[3], -(-width // 4)
    strips = _cut(number, -(-height // 4), across)
    most = across * max(last - first for _, first, last in strips)
    waiting = iter(strips)  # of all threads together

    @torch.inference_mode()
    def work(*_: int) -> None:
        tiles = torch.empty(most, 36, inputs, dtype=x.dtype)
        entered = _as_bits(tiles.flatten(0, 1))
        room = _make_room(source)
        leaving = np.empty((7, 4 * outputs), np.float32)
        for index, first, last in waiting:
            compiled.enter_strip(
                source[index], above, False, first, last, entered, (36, 1), *room
            )
            used = (last - first) * across
            maps = tiles[:used].view(1, used, 1, -1).permute(0, 3, 1, 2)
            left = _ONEDNN._convolution_pointwise(
                maps, weight, None, *_PLACE, "none", [], ""
            )
            products = _as_bits(left.permute(0, 2, 3, 1).view(used, 36, -1))
            rest = other[index], onto, target[index], leaving
            compiled.leave_strip(products, first, last, *then, *rest)

    _in_threads(work)
    return out


def _make_room(source: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `enter_strip` works in, and its zeros, for maps of (N, h, w, channels)."""
    _, _, width, channels = source.shape
    rows = np.empty((6, 66 * channels), np.float32)
    return rows, np.zeros(width * channels, source.dtype)


def _in_threads(work: Callable[[int, int], _Result]) -> list[_Result]:
    """The results of `work`, given each thread's number and how many there are."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, 1)]
    pool = _pool(threads)
    parts = [pool.submit(work, part, threads) for part in range(threads)]
    return [part.result() for part in parts]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that torch computes in without further threads of its own."""
    workers = ThreadPoolExecutor(threads, "winograd", partial(torch.set_num_threads, 1))
    barrier = threading.Barrier(threads)
    for done in [workers.submit(barrier.wait) for _ in range(threads)]:
        done.result()  # all of them have started
    torch.set_num_threads(threads)  # the number that new threads begin with
    return workers


def _as_array(images: Tensor) -> NDArray[Any]:
    """(N, channels, h, w) of channels_last as (N, h, w, channels), not copied."""
    return _as_bits(images.permute(0, 2, 3, 1))


def _as_bits(values: Tensor) -> NDArray[Any]:
    """The values as an array, not copied; bfloat16 as its 16 bits."""
    if values.dtype == torch.bfloat16:
        values = values.view(torch.uint16)
    return values.numpy()


def _cut(number: int, down: int, across: int) -> list[tuple[int, int, int]]:
    """The strips of some pictures: of which, and from which to which row of tiles.

    They are about as high as each other, and as many for every thread.
    """
    threads = torch.get_num_threads()
    strips = -(-down * across // _TILES)
    while strips < down and number * strips % threads:
        strips += 1
    strips = min(strips, down)
    edges = [down * index // strips for index in range(strips + 1)]
    return [(index, *edge) for index in range(number) for edge in pairwise(edges)]


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
        if not serves(x, self.layer.weight):
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
            kernel = transform_weight(weight, x.dtype)
            self.kernels[x.dtype, back] = kernel
        size, layout = (len(x), len(weight), *x.shape[2:]), torch.channels_last
        out = torch.empty(size, dtype=x.dtype, memory_format=layout)
        x = x.detach().contiguous(memory_format=layout)
        bias = torch.zeros(len(weight))
        return convolve(x, self.kernels[x.dtype, back], bias, out)


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
        taps = _weight_transform().T @ gradient.flatten(1)
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
            x, gradient = (
                each.contiguous(memory_format=layout) for each in (x, gradient)
            )
            total, *others = _in_threads(partial(_multiply, x, gradient))
            of_tiles = sum(others, total)
        return of_x, of_tiles, None


def _multiply(x: Tensor, gradient: Tensor, part: int, parts: int) -> Tensor:
    """What a part of all tiles adds to the transformed kernel's gradient, in float32.

    `x` was convolved, and `gradient`, of the same dtype, is that of the result.
    """
    arrays = [_as_array(each) for each in (x, gradient)]
    rooms = [_make_room(array) for array in arrays]
    number, height, width, _ = arrays[0].shape
    down, across = -(-height // 4), -(-width // 4)
    most = min(number * down, max(1, _TILES // across))  # rows of tiles at once
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
                products = _as_bits(tiles[back].flatten(0, 1))[place:]
                _kernels().enter_strip(
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
