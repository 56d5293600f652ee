"""Convolutions that add, and rectify, before they write.

A feature map of HR size is far larger than any cache: to add to it or to rectify it
afterwards costs a pass over memory each. oneDNN (the CPU) and cuDNN take both as a
part of the convolution, and so does `winograd` (the CPU); everywhere else the result is
the same, made in place. No gradient passes: these are for inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models import winograd

# Values of a feature map that are computed at once: what stays in a CPU's cache, and
# what keeps a GPU busy.
_STRIP = 1 << 23
_GPU_STRIP = 1 << 26
_FEW = 1 << 14  # pixels whose products with all taps stay in the cache
_ONEDNN = torch.ops.mkldnn
_ONES = [1, 1]  # stride and dilation
_thin: list[None] = []


class FusedConv(nn.Module):
    """A convolution with an odd kernel that keeps the size, and what follows it.

    It computes in what autocast chooses; one that reads or writes a picture, in the
    dtype of its weight: rounded, the picture itself would be seen in the result. The
    form of its weight that the device computes with is made once.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, *, reads: bool = False, writes: bool = False
    ) -> None:
        """Take over an odd kernel that reads or writes a picture, or neither."""
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self._reads, self._writes = reads, writes
        self._reach = weight.shape[-1] // 2
        self._forms: dict[Any, tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_forms": {}}  # a copy makes its own

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedConv:
        self._forms.clear()  # of another device or dtype from now on
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(
        self,
        x: Tensor,
        add: Tensor | None = None,
        *,
        slope: float = 1.0,
        share: float | None = None,
        into: Literal["x", "add"] | None = None,
    ) -> Tensor:
        """act(convolution of `x` + add), or add + share * act(convolution of x).

        act is v where v is positive, else slope * v: 0 is the ReLU. `into` says whose
        memory the result may take; None is its own.
        """
        if into == "x" and len(list(self._strips(x))) == 1:
            into = None  # what is made at once would only be copied
        inner = choose_dtype(self.weight)
        compute = self.weight.dtype if self._reads or self._writes else inner
        result = self.weight.dtype if self._writes else inner
        if x.shape[1] == 1:
            x = align_channels(x)
        if add is not None and into != "add":
            add = align_channels(add)
        if share is not None and into is None and add is not None:
            add, into = add.clone(memory_format=torch.preserve_format), "add"
        plain = x.dtype == compute == result and into != "x" and not self._spreads(x)
        if plain and (share is None or _winograd_serves(x, self.weight)):
            return self._compute(x, add, slope, share, into == "add")
        out = x if into == "x" else add if into == "add" else None
        if out is None:
            out = _make_map(x, len(self.bias), x.shape[2], result)
        with without_autocast(x):
            for rows, made in self._cut(x, add, slope, share, compute, out is x):
                if share is None:
                    out[:, :, rows] = made
                else:
                    out[:, :, rows].add_(made, alpha=share)
        return out

    def _strips(self, x: Tensor) -> Iterator[tuple[int, int]]:
        """Where strips of what is given begin and end."""
        batch, _, height, width = x.shape
        least = max(1, self._reach)
        most = max(least, _FEW // width) if self._spreads(x) else height
        across = batch * width * max(self.weight.shape[:2])
        return cut_strips(height, across, x.device, least, most)

    def _cut(
        self,
        x: Tensor,
        add: Tensor | None,
        slope: float,
        share: float | None,
        compute: torch.dtype,
        late: bool,
    ) -> Iterator[tuple[slice, Tensor]]:
        """What `forward` writes, rows by rows, and which, computed in `compute`.

        With `late`, what is written is `x`: rows that the next strip reads come then.
        """
        reach, height = self._reach, x.shape[2]
        waiting = None
        for top, bottom in self._strips(x):
            zeros = max(0, reach - top), max(0, bottom + reach - height)
            rows = x[:, :, max(0, top - reach) : bottom + reach].to(compute)
            other = None
            if add is not None and share is None:
                other = add[:, :, top:bottom].to(compute)
            made = self._compute(rows, other, slope, zeros=zeros)
            if waiting is not None:
                yield slice(top - reach, top), waiting
            end = bottom - reach if late and bottom < height else bottom
            yield slice(top, end), made[:, :, : end - top]
            waiting = made[:, :, end - top :].clone() if end < bottom else None

    def _compute(
        self,
        x: Tensor,
        add: Tensor | None,
        slope: float = 1.0,
        share: float | None = None,
        in_place: bool = False,
        zeros: tuple[int, int] | None = None,
    ) -> Tensor:
        """As `forward`, at once, in the dtype of `x` and, if `in_place`, into `add`.

        `zeros` are the rows of zeros above and below; None is as many as the kernel
        reads, with which the result is as high as `x`.
        """
        reach = self._reach
        above, below = zeros or (reach, reach)
        height = x.shape[2] + above + below - 2 * reach
        if self._spreads(x):
            made = self._spread(x)[:, :, 2 * reach - above :][:, :, :height]
            return rectify(made, slope, in_place=True)
        if _winograd_serves(x, self.weight):
            out = add if in_place else _make_map(x, len(self.bias), height, x.dtype)
            assert out is not None
            return winograd.convolve(
                x,
                *self._form("winograd", x),
                out,
                slope=slope,
                add=None if share else add,
                share=share or 0.0,
                above=above,
            )
        if above == below:
            return self._compute_plainly(x, add, slope, in_place, above)
        most = max(above, below)  # and what is too much is cut off
        made = self._compute_plainly(x, None, 1.0, False, most)
        made = made[:, :, most - above :][:, :, :height]
        return rectify(made if add is None else made.add_(add), slope, in_place=True)

    def _compute_plainly(
        self, x: Tensor, add: Tensor | None, slope: float, in_place: bool, zeros: int
    ) -> Tensor:
        """As `_compute`, without Winograd, and as much above as below."""
        padding = [zeros, self._reach]
        weight, bias = self._form("plain", x)
        if _onednn_fuses(x):
            return _convolve_onednn(x, weight, bias, padding, add, slope, in_place)
        if slope == 0 and self._reach == 1 and _cudnn_fuses(x, weight):
            place = (_ONES, padding, _ONES, 1)
            if add is None:
                return torch.cudnn_convolution_relu(x, weight, bias, *place)
            return torch.cudnn_convolution_add_relu(x, weight, add, 1.0, bias, *place)
        with without_autocast(x):
            out = F.conv2d(x, weight, bias, padding=padding)
        if add is not None:
            out = add.add_(out) if in_place else out.add_(add)
        return rectify(out, slope, in_place=True)

    def _spreads(self, x: Tensor) -> bool:
        """Whether there are so few outputs that `_spread` is faster."""
        return self._writes and len(self.bias) <= 4 and x.device.type == "cpu"

    def _spread(self, x: Tensor) -> Tensor:
        """The convolution to a picture: products with all taps, each put in its place.

        oneDNN computes sixteen outputs where there are three or one. The result has as
        many rows more, above and below, as the kernel reads.
        """
        matrix, bias = self._form("taps", x)
        products = matrix @ x.permute(0, 2, 3, 1).flatten(1, 2).mT
        size = x.shape[2] + 2 * self._reach, x.shape[3]
        side = 2 * self._reach + 1
        return F.fold(products, size, side, padding=(0, self._reach)).add_(bias)

    def _form(self, kind: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias in the dtype of `x`, as one of the ways reads them best."""
        key = kind, x.device, x.dtype
        if key in self._forms:
            return self._forms[key]
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if kind == "winograd":
            weight, bias = winograd.transform_weight(self.weight, x.dtype), bias.float()
        elif kind == "taps":
            weight = weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2).contiguous()
            bias = bias.view(-1, 1, 1)
        elif _onednn_fuses(x):
            padding = [self._reach] * 2
            weight = _ONEDNN._reorder_convolution_weight(
                weight, padding, _ONES, _ONES, 1, list(x.shape)
            )
        self._forms[key] = weight, bias
        return weight, bias


def _convolve_onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: list[int],
    add: Tensor | None,
    slope: float,
    in_place: bool,
) -> Tensor:
    """act(convolution + add) by oneDNN, whose sums know the ReLU alone."""
    place = (weight, bias, padding, _ONES, _ONES, 1)
    if add is None:
        act = {1.0: "none", 0.0: "relu"}.get(slope, "leaky_relu")
        factors = [slope] if act == "leaky_relu" else []
        return _ONEDNN._convolution_pointwise(x, *place, act, factors, "")
    then: tuple[Any, ...] = ("add", 1.0, "relu" if slope == 0 else None, [], "")
    if in_place:  # the result is `add` itself only where the layout is the same
        out = _ONEDNN._convolution_pointwise_.binary(add, x, *place, *then)
    else:
        out = _ONEDNN._convolution_pointwise.binary(x, add, *place, *then)
    return out if slope == 0 else rectify(out, slope, in_place=True)


def rectify(x: Tensor, slope: float, *, in_place: bool = False) -> Tensor:
    """`x` with what is negative times `slope`; 1 leaves it as it is."""
    if slope == 1:
        return x
    if slope == 0:
        return F.relu(x, inplace=in_place)
    return F.leaky_relu(x, slope, inplace=in_place)


def choose_dtype(weight: Tensor) -> torch.dtype:
    """What a layer computes in: autocast's choice, or the dtype of its weight."""
    device = weight.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Layers compute in the dtype of what they are given, where `x` is."""
    device = x.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def align_channels(x: Tensor) -> Tensor:
    """`x` with its channels side by side in memory.

    As `contiguous(memory_format=torch.channels_last)`, which leaves the strides of a
    single channel as they are: a convolution then takes the picture for planar and
    writes planes, which all later layers would reorder.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().view(-1, *x.shape[2:], 1).permute(0, 3, 1, 2)


@contextmanager
def thin_strips() -> Iterator[None]:
    """Strips of one row for a while.

    So small pictures have strips, too, and tell what large ones need beside them.
    """
    _thin.append(None)
    try:
        yield
    finally:
        _thin.pop()


def cut_strips(
    height: int, across: int, device: torch.device, least: int = 1, most: int = 1 << 30
) -> Iterator[tuple[int, int]]:
    """Strips of rows, from top to bottom: where they begin and end.

    `across` are the values in a row of the largest tensor that is made of them; a strip
    has at least `least` rows and at most `most`.
    """
    values = _GPU_STRIP if device.type in ("cuda", "mps") else _STRIP
    rows = least if _thin else max(least, min(most, values // across))
    if 4 < rows < height:
        rows -= rows % 4  # as Winograd's tiles
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _make_map(x: Tensor, channels: int, height: int, dtype: torch.dtype) -> Tensor:
    """Room for a feature map beside `x`, channels_last."""
    shape = (len(x), height, x.shape[3], channels)
    return x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2)


def _winograd_serves(x: Tensor, weight: Tensor) -> bool:
    """Whether Winograd's convolution is faster here; its products are oneDNN's."""
    return winograd.serves(x, weight) and _onednn_fuses(x)


def _onednn_fuses(x: Tensor) -> bool:
    """Whether oneDNN is there and computes in this dtype."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if x.dtype == torch.bfloat16:
        return bool(_ONEDNN._is_mkldnn_bf16_supported())
    return x.dtype == torch.float32


def _cudnn_fuses(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN is there, and is known to fuse such a convolution rightly."""
    return (
        x.device.type == "cuda"
        and torch.version.hip is None
        and torch.backends.cudnn.enabled
        and x.dtype in (torch.float16, torch.bfloat16)
        and weight.shape[0] % 8 == weight.shape[1] % 8 == 0
        and _try_cudnn(x.device, x.dtype, *weight.shape[:2])
    )


@cache
def _try_cudnn(
    device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> bool:
    """Whether cuDNN's fused convolutions run and agree with separate steps.

    Not every version has them for every GPU and dtype.
    """

    def draw(*shape: int) -> Tensor:
        values = torch.arange(torch.Size(shape).numel(), device=device)
        return align_channels(values.double().mul(0.7).sin().view(shape).to(dtype))

    x, other = draw(1, inputs, 16, 16), draw(1, outputs, 16, 16)
    weight = draw(outputs, inputs, 3, 3) / (3 * inputs**0.5)
    bias = torch.linspace(-1, 1, outputs, device=device, dtype=dtype)
    plain = F.conv2d(x, weight, bias, padding=1)
    place = (_ONES, _ONES, _ONES, 1)
    try:
        relu = torch.cudnn_convolution_relu(x, weight, bias, *place)
        rows = torch.cudnn_convolution_relu(x, weight, bias, _ONES, [0, 1], _ONES, 1)
        sum_ = torch.cudnn_convolution_add_relu(x, weight, other, 1.0, bias, *place)
    except torch.OutOfMemoryError:
        raise  # which another time may not: not an answer to keep
    except RuntimeError:
        return False
    pairs = ((relu, plain), (rows, plain[:, :, 1:-1]), (sum_, plain + other))
    return all(
        torch.allclose(fused, wanted.relu(), atol=0.05, rtol=0.02)
        for fused, wanted in pairs
    )
