"""3x3 convolutions on the CPU with a quarter of the multiplications.

Winograd's F(4x4, 3x3) multiplies 36 values where the definition multiplies 144, and its
transforms cost little where there are many channels. The transforms are compiled by
Numba, an extra (`pip install 'srcli[fast-cpu]'`); the products are torch's. A picture
is worked on in strips, small enough for the cache, each by one thread.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)

_MULTIPLE = 16  # of which both sides' channels are one
# Channels of both sides. With fewer, the transforms take what the products save: of 64
# channels in bfloat16, oneDNN's own convolution is as fast, and rounds less.
_CHANNELS = {torch.float32: 32, torch.bfloat16: 128}
_LEAST = 1 << 11  # pixels of all pictures, below which threads cost more than they save
TILES = 150  # that are multiplied at once, about: they stay in the cache

_ONEDNN = torch.ops.mkldnn
_PLACE = ([0, 0], [1, 1], [1, 1], 36)  # padding, stride, dilation, groups
_suspensions: list[None] = []


@cache
def is_available() -> bool:
    """Whether the extra is installed that compiles the transforms."""
    return find_spec("numba") is not None


@cache
def kernels() -> ModuleType | None:
    """The compiled transforms, `winograd_kernels`; None where they cannot be had."""
    if not is_available():
        return None
    try:
        return importlib.import_module("srcli.models.winograd_kernels")
    except (ImportError, RuntimeError) as error:
        # A NumPy that is too new for Numba, or no folder where it may keep its code.
        log.warning("numba is installed but of no use here: %s", error)
        return None


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
        and kernels() is not None
    )


def transform_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """G w G^T of (outputs, inputs, 3, 3) as `convolve` takes it.

    A 1x1 convolution in 36 groups, in the layout that oneDNN reads best.
    """
    inputs = weight.shape[1]
    taps = weight.float().permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    plain = (weight_transform() @ taps).view(-1, inputs, 1, 1).to(dtype)
    size = [1, 36 * inputs, TILES, 1]
    return _ONEDNN._reorder_convolution_weight(plain, [0, 0], *_PLACE[1:], size)


@cache
def weight_transform() -> Tensor:
    """G of section 4.1 in both directions, (36, 9): a kernel's taps to its tile."""
    a, b = _compiled().POINTS
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
    compiled, onto = _compiled(), add is out
    source, target = as_array(x), as_array(out)
    other = as_array(out[:, :, :0] if add is None or onto else add)
    then = bias.numpy(), np.float32(slope), np.float32(share)
    number, height, width, outputs = target.shape
    inputs, across = source.shape[3], -(-width // 4)
    strips = _cut(number, -(-height // 4), across)
    most = across * max(last - first for _, first, last in strips)
    waiting = iter(strips)  # of all threads together

    @torch.inference_mode()
    def work(*_: int) -> None:
        tiles = torch.empty(most, 36, inputs, dtype=x.dtype)
        entered = as_bits(tiles.flatten(0, 1))
        room = make_room(source)
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
            products = as_bits(left.permute(0, 2, 3, 1).view(used, 36, -1))
            rest = other[index], onto, target[index], leaving
            compiled.leave_strip(products, first, last, *then, *rest)

    in_threads(work)
    return out


def make_room(source: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `enter_strip` works in, and its zeros, for maps of (N, h, w, channels)."""
    _, _, width, channels = source.shape
    rows = np.empty((6, 66 * channels), np.float32)
    return rows, np.zeros(width * channels, source.dtype)


def in_threads(work: Callable[[int, int], _Result]) -> list[_Result]:
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


def as_array(images: Tensor) -> NDArray[Any]:
    """(N, channels, h, w) of channels_last as (N, h, w, channels), not copied."""
    return as_bits(images.permute(0, 2, 3, 1))


def as_bits(values: Tensor) -> NDArray[Any]:
    """The values as an array, not copied; bfloat16 as its 16 bits."""
    if values.dtype == torch.bfloat16:
        values = values.view(torch.uint16)
    return values.numpy()


def _compiled() -> ModuleType:
    compiled = kernels()
    assert compiled is not None  # as `serves` says
    return compiled


def _cut(number: int, down: int, across: int) -> list[tuple[int, int, int]]:
    """The strips of some pictures: of which, and from which to which row of tiles.

    They are about as high as each other, and as many for every thread.
    """
    threads = torch.get_num_threads()
    strips = -(-down * across // TILES)
    while strips < down and number * strips % threads:
        strips += 1
    strips = min(strips, down)
    edges = [down * index // strips for index in range(strips + 1)]
    return [(index, *edge) for index in range(number) for edge in pairwise(edges)]
