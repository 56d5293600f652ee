"""DSRN's layers: the input, and the ways between its two states.

Source: Han et al., CVPR 2018, section 4 ("Transition functions", "Unfolding details").
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError


class Input(nn.Module):
    """s_l^0 of DSRN: two 3x3 convolutions with a skip, on Y.

    The skip takes the first convolution's channels past the second, with zeros for the
    channels that it lacks: the shortcut between unequal widths that needs no weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.empty = width - width // 2
        self.conv1 = nn.Conv2d(1, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        """Y of shape (N, 1, h, w), in [0, 1], as a state (N, width, h, w)."""
        first = F.relu(self.conv1(y))
        skip = F.pad(first, (0, 0, 0, 0, 0, self.empty))
        return F.relu(self.conv2(first) + skip)


def check_kernel(kernel: int, scale: int) -> None:
    """See to it that f_up and f_down can have a kernel of this size.

    Raises:
        UsageError: If it leaves pixels out, or reaches further than a residual block
            does, on which the network's receptive radius rests.
    """
    least, most = scale, 3 * scale - 2
    if kernel < least:
        fault = "it leaves pixels out"
    elif kernel > most:
        fault = "it reaches beyond the ring of pixels that tiles count on"
    else:
        return
    raise UsageError(
        f"kernel takes sizes from {least} to {most} for x{scale}, not {kernel}: {fault}"
    )


def make_up(width: int, kernel: int, scale: int) -> nn.ConvTranspose2d:
    """f_up, a transposed convolution from (N, width, h, w) to (N, width, s*h, s*w).

    Args:
        width: Channels of both states.
        kernel: Its size; see `check_kernel`.
        scale: Its stride.
    """
    padding, output_padding = _fit(kernel, scale)
    return nn.ConvTranspose2d(width, width, kernel, scale, padding, output_padding)


def make_down(width: int, kernel: int, scale: int) -> nn.Conv2d:
    """f_down, a convolution from (N, width, s*h, s*w) to (N, width, h, w).

    Args:
        width: Channels of both states.
        kernel: Its size; see `check_kernel`.
        scale: Its stride.
    """
    padding, _ = _fit(kernel, scale)
    return nn.Conv2d(width, width, kernel, scale, padding)


def _fit(kernel: int, scale: int) -> tuple[int, int]:
    """The padding that keeps both grids exact, and the row that f_up then lacks.

    A kernel that is larger than the scale by an even number reaches as far before an
    LR pixel's own HR pixels as after them; by an odd one, one further before them.
    """
    surplus = kernel - scale
    return -(-surplus // 2), surplus % 2


def pick(modules: nn.ModuleList, use: int) -> nn.Module:
    """The module of the given use: the only one where weights are shared."""
    return modules[min(use, len(modules) - 1)]
