"""Convolutions that add, and rectify, before they write.

A feature map of HR size is far larger than any cache: to add to it or to rectify it
afterwards costs a pass over memory each. oneDNN (the CPU) and cuDNN take both as a
part of the convolution, and so does `winograd` (the CPU); everywhere else the result is
the same, made in place.

No gradient passes: these are for inference. They compute in the dtype of what they are
given, whatever autocast says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models import winograd

_ONEDNN = torch.ops.mkldnn
_CUDNN_PLACE = ([1, 1], [1, 1], [1, 1], 1)  # stride, padding, dilation, groups


def keep_buffers(module: nn.Module, like: Tensor, **values: Tensor) -> None:
    """Give a module tensors that no weight file is to hold.

    Args:
        module: Gets them as buffers.
        like: Has the dtype and the device that they get.
        values: The tensors, by name.
    """
    for name, value in values.items():
        kept = value.to(like.dtype).to(like.device)
        module.register_buffer(name, kept, persistent=False)


class _Forms(dict[Any, Any]):
    """A weight in the forms that were needed so far; a copy of a layer begins anew."""

    def __deepcopy__(self, _memo: object) -> _Forms:
        return _Forms()


class FusedConv(nn.Module):
    """A convolution with an odd kernel that keeps the size, and what follows it.

    Its weight is brought into the form that the device computes with once, not at every
    call: recurrent networks call the same layer dozens of times a picture.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, like: Tensor) -> None:
        """Take over a kernel.

        Args:
            weight: (outputs, inputs, k, k), k odd.
            bias: (outputs,).
            like: Has the dtype and the device that they get.
        """
        super().__init__()
        keep_buffers(self, like, weight=weight, bias=bias)
        self._forms = _Forms()
        self._reach = weight.shape[-1] // 2

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedConv:
        self._forms.clear()  # of another device or dtype from now on
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(
        self,
        x: Tensor,
        *,
        slope: float = 1.0,
        add: Tensor | None = None,
        gain: Tensor | None = None,
        rows: bool = True,
    ) -> Tensor:
        """act(convolution of `x` + gain * add), as a new tensor.

        Args:
            x: (N, inputs, h, w).
            slope: act is v where v is positive, else slope * v: 0 is the ReLU.
            add: (N, outputs, h, w) of the same dtype.
            gain: What each channel of `add` is multiplied by first, (outputs,); without
                Winograd this costs one more pass.
            rows: Pad with rows of zeros above and below, so that the result is as high
                as `x`. False: it lacks those.
        """
        if _winograd_serves(x, self.weight):
            out = _make_map(x, len(self.bias), x.shape[2] - (0 if rows else 2))
            return winograd.convolve(
                x,
                *self._winograd_form(x),
                out,
                slope=slope,
                add=add,
                gain=None if gain is None else gain.float(),
            )
        if gain is not None and add is not None:
            add = add * gain.to(add.dtype).view(-1, 1, 1)
            return self._add_to(add, x, slope)
        if add is None:
            return self._convolve(x, slope, rows)
        return self._convolve_add(x, add, slope)

    def add_to(
        self,
        total: Tensor,
        x: Tensor,
        *,
        slope: float = 1.0,
        share: float | None = None,
    ) -> Tensor:
        """`total` with the convolution of `x` added, in place.

        With a share that is total + share * act(convolution), else act(total +
        convolution).

        Args:
            total: (N, outputs, h, w), channels_last; or h - 2k rows, if `x` brings the
                rows above and below.
            x: (N, inputs, h, w) of the same dtype.
            slope: As `forward`.
            share: A factor.
        """
        if _winograd_serves(x, self.weight):
            form = self._winograd_form(x)
            if share is None:
                return winograd.convolve(x, *form, total, slope=slope, add=total)
            return winograd.convolve(x, *form, total, slope=slope, share=share)
        if share is None:
            return self._add_to(total, x, slope)
        rows = total.shape[2] == x.shape[2]
        return total.add_(self._convolve(x, slope, rows), alpha=share)

    def _winograd_form(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key = "winograd", x.dtype
        if key not in self._forms:
            weight = winograd.transform_weight(self.weight, x.dtype)
            self._forms[key] = weight, self.bias.float()
        return self._forms[key]

    def _plain_form(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias in the dtype of `x`; on the CPU as oneDNN reads them best."""
        key = x.device, x.dtype
        if key not in self._forms:
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            if _onednn_fuses(x):
                size, ones = list(x.shape), [1, 1]
                weight = _ONEDNN._reorder_convolution_weight(
                    weight, [self._reach] * 2, ones, ones, 1, size
                )
            self._forms[key] = weight, bias
        return self._forms[key]

    def _convolve(self, x: Tensor, slope: float, rows: bool) -> Tensor:
        weight, bias = self._plain_form(x)
        padding = [self._reach * int(rows), self._reach]
        if _onednn_fuses(x):
            attribute = {1.0: "none", 0.0: "relu"}.get(slope, "leaky_relu")
            factors = [slope] if attribute == "leaky_relu" else []
            return _ONEDNN._convolution_pointwise(
                x, weight, bias, padding, [1, 1], [1, 1], 1, attribute, factors, ""
            )
        if slope == 0 and self._reach == 1 and _cudnn_fuses(x, weight):
            ones = [1, 1]
            return torch.cudnn_convolution_relu(x, weight, bias, ones, padding, ones, 1)
        return rectify(convolve_plainly(x, weight, bias, padding), slope)

    def _convolve_add(self, x: Tensor, add: Tensor, slope: float) -> Tensor:
        weight, bias = self._plain_form(x)
        padding = [self._reach] * 2
        if _onednn_fuses(x):
            then = "relu" if slope == 0 else None
            out = _ONEDNN._convolution_pointwise.binary(
                x,
                add,
                weight,
                bias,
                padding,
                [1, 1],
                [1, 1],
                1,
                "add",
                1.0,
                then,
                [],
                "",
            )
            return out if slope == 0 else rectify(out, slope)
        if slope == 0 and self._reach == 1 and _cudnn_fuses(x, weight):
            return torch.cudnn_convolution_add_relu(
                x, weight, add, 1.0, bias, *_CUDNN_PLACE
            )
        return rectify(convolve_plainly(x, weight, bias, padding).add_(add), slope)

    def _add_to(self, total: Tensor, x: Tensor, slope: float) -> Tensor:
        """act(`total` + convolution of `x`), in place."""
        weight, bias = self._plain_form(x)
        padding = [self._reach] * 2
        if not _onednn_fuses(x):
            total.add_(convolve_plainly(x, weight, bias, padding))
            return rectify(total, slope)
        # The result is `total` itself only where the layout is the same.
        then = "relu" if slope == 0 else None
        total = _ONEDNN._convolution_pointwise_.binary(
            total, x, weight, bias, padding, [1, 1], [1, 1], 1, "add", 1.0, then, [], ""
        )
        return total if slope == 0 else rectify(total, slope)


def _make_map(x: Tensor, channels: int, height: int) -> Tensor:
    """Room for a feature map beside `x`, channels_last."""
    shape = (len(x), height, x.shape[3], channels)
    return x.new_empty(shape).permute(0, 3, 1, 2)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Layers compute in the dtype of what they are given, where `x` is."""
    device = x.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def convolve_plainly(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: Sequence[int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """`F.conv2d` in the dtype of `x`, whatever autocast says."""
    with without_autocast(x):
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)


def rectify(x: Tensor, slope: float) -> Tensor:
    """What is negative, times `slope`; in place."""
    if slope == 1:
        return x
    return x.relu_() if slope == 0 else F.leaky_relu_(x, slope)


def align_channels(x: Tensor) -> Tensor:
    """`x` with its channels side by side in memory.

    As `contiguous(memory_format=torch.channels_last)`, which leaves the strides of a
    single channel as they are: a convolution then takes the picture for planar and
    writes planes, which all later layers would reorder.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().view(-1, *x.shape[2:], 1).permute(0, 3, 1, 2)


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
    halves = (torch.float16, torch.bfloat16)
    if x.device.type != "cuda" or torch.version.hip is not None:
        return False
    if not torch.backends.cudnn.enabled:
        return False
    if x.dtype not in halves or weight.shape[0] % 8 or weight.shape[1] % 8:
        return False
    return _try_cudnn(x.device, x.dtype, *weight.shape[:2])


@cache
def _try_cudnn(
    device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> bool:
    """Whether cuDNN's fused convolutions run and agree with separate steps.

    Not every version has them for every GPU and dtype.
    """

    def draw(*shape: int) -> Tensor:
        values = torch.arange(torch.Size(shape).numel(), device=device)
        wave = values.double().mul(0.7).sin().view(shape)
        return align_channels(wave.to(dtype))

    x, other = draw(1, inputs, 16, 16), draw(1, outputs, 16, 16)
    weight = draw(outputs, inputs, 3, 3) / (3 * inputs**0.5)
    bias = torch.linspace(-1, 1, outputs, device=device, dtype=dtype)
    plain = F.conv2d(x, weight, bias, padding=1)
    try:
        relu = torch.cudnn_convolution_relu(x, weight, bias, *_CUDNN_PLACE)
        rows = torch.cudnn_convolution_relu(x, weight, bias, [1, 1], [0, 1], [1, 1], 1)
        sum_ = torch.cudnn_convolution_add_relu(
            x, weight, other, 1.0, bias, *_CUDNN_PLACE
        )
    except torch.OutOfMemoryError:
        raise  # which another time may not: not an answer to keep
    except RuntimeError:
        return False
    pairs = ((relu, plain), (rows, plain[:, :, 1:-1]), (sum_, plain + other))
    return all(
        torch.allclose(fused, wanted.relu(), atol=0.05, rtol=0.02)
        for fused, wanted in pairs
    )
