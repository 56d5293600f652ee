"""3x3 convolutions that add, and drop what is negative, before they write.

A feature map of HR size is far larger than any cache: to add to it or to rectify it
afterwards costs a pass over memory each. oneDNN (the CPU) and cuDNN take both as a
part of the convolution; everywhere else the result is the same, made in place.

No gradient passes: these are for inference.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_ONEDNN = torch.ops.mkldnn
_PLACE = ([1, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups
_CUDNN_PLACE = ([1, 1], [1, 1], [1, 1], 1)  # stride, padding, dilation, groups


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, *, relu: bool = False, rows: bool = True
) -> Tensor:
    """The convolution of `x`, and its ReLU if wanted.

    Args:
        x: (N, inputs, h, w).
        weight: (outputs, inputs, 3, 3) of the same dtype.
        bias: (outputs,) of the same dtype.
        relu: Set what is negative to zero.
        rows: Pad with a row of zeros above and below, so that the result is as large as
            `x`. False: it has two rows less.
    """
    padding = [int(rows), 1]
    if _onednn_fuses(x):
        attribute = "relu" if relu else "none"
        return _ONEDNN._convolution_pointwise(
            x, weight, bias, padding, [1, 1], [1, 1], 1, attribute, [], ""
        )
    if relu and _cudnn_fuses(x, weight):
        return torch.cudnn_convolution_relu(x, weight, bias, [1, 1], padding, [1, 1], 1)
    out = F.conv2d(x, weight, bias, padding=padding)
    return out.relu_() if relu else out


def convolve_add(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor,
    *,
    gain: Tensor | None = None,
) -> Tensor:
    """ReLU(convolution of `x` + `other`), as a new tensor.

    Args:
        x: (N, inputs, h, w).
        weight: (outputs, inputs, 3, 3) of the same dtype.
        bias: (outputs,) of the same dtype.
        other: (N, outputs, h, w) of the same dtype.
        gain: What each channel of `other` is multiplied by first, (outputs, 1, 1); this
            costs one more pass.
    """
    if _onednn_fuses(x):
        if gain is not None:
            return _accumulate_onednn(x, weight, bias, other * gain, "relu")
        return _ONEDNN._convolution_pointwise.binary(
            x, other, weight, bias, *_PLACE, "add", 1.0, "relu", [], ""
        )
    if gain is None and _cudnn_fuses(x, weight):
        return torch.cudnn_convolution_add_relu(
            x, weight, other, 1.0, bias, *_CUDNN_PLACE
        )
    out = F.conv2d(x, weight, bias, padding=1)
    out = out.add_(other) if gain is None else out.addcmul_(other, gain)
    return out.relu_()


def accumulate_(total: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`total`, to which the convolution of `x` was added in place.

    Args:
        total: (N, outputs, h, w); channels_last, as `convolve` returns it.
        x: (N, inputs, h, w) of the same dtype.
        weight: (outputs, inputs, 3, 3) of the same dtype.
        bias: (outputs,) of the same dtype.
    """
    if _onednn_fuses(x):
        return _accumulate_onednn(x, weight, bias, total, None)
    return total.add_(F.conv2d(x, weight, bias, padding=1))


def align_channels(x: Tensor) -> Tensor:
    """`x` with its channels side by side in memory.

    As `contiguous(memory_format=torch.channels_last)`, which leaves the strides of a
    single channel as they are: a convolution then takes the picture for planar and
    writes planes, which all later layers would reorder.
    """
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous().view(-1, *x.shape[2:], 1).permute(0, 3, 1, 2)


def _accumulate_onednn(
    x: Tensor, weight: Tensor, bias: Tensor, total: Tensor, then: str | None
) -> Tensor:
    # The result is `total` itself only where the layout is the same.
    return _ONEDNN._convolution_pointwise_.binary(
        total, x, weight, bias, *_PLACE, "add", 1.0, then, [], ""
    )


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
