"""DRCN for inference: two feature maps of HR size, however many recursions.

A recursion reads three rows of the state for each that it writes. Written one row
higher in the same memory, a strip of rows spoils nothing that is still to be read: the
state moves up by a row with every recursion, and no second one is needed. The strips
are small enough for a cache, and what f3 makes of the state is added up likewise, so
that one last convolution serves all recursions (`DRCN.forward`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from srcli.imaging.resize import imresize_torch
from srcli.models.folded import (
    FoldedModel,
    choose_dtype,
    cut_strips,
    fuse_layer,
    project,
)
from srcli.models.fused import align_channels

if TYPE_CHECKING:
    from srcli.models.drcn import DRCN, _Reconstruction


class FoldedDRCN(FoldedModel):
    """A DRCN with one reconstruction that only infers; see the top of this file."""

    def __init__(self, source: DRCN) -> None:
        """Take over a network.

        Args:
            source: It is not changed; `sharing` is "all". Recursions that its limit
                leaves out are left out.
        """
        super().__init__(source)
        reconstruct = cast("_Reconstruction", source.reconstruct[0])
        self.embed = nn.ModuleList(map(fuse_layer, (source.embed[0], source.embed[2])))
        self.recurse = fuse_layer(source.recurse)
        self.hidden = fuse_layer(reconstruct.hidden)
        self.output = fuse_layer(reconstruct.output)
        self.skip = source.config.skip
        weights = source.stage_weights
        if weights is None:  # the last recursion is the only one that is predicted from
            weights = torch.zeros(source.limited(source.config.recursions))
            weights[-1] = 1.0
        self.weights: list[float] = weights.tolist()

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The final estimate, equation 10; those of single recursions are not made."""
        picture = imresize_torch(lr, self.resolve_scale(scale))
        features = self._add_features(picture, choose_dtype(picture))
        sr = project(self.output, features, picture.dtype)
        return (sr + picture if self.skip else sr,)

    def _add_features(self, picture: Tensor, dtype: torch.dtype) -> Tensor:
        """What the last convolution reads: f3's features of all recursions, weighted.

        Args:
            picture: (N, 1, H, W).
            dtype: To compute in.

        Returns:
            (N, width, H, W).
        """
        height = picture.shape[2]
        state, first = self._embed(picture, len(self.weights), dtype)
        features = torch.zeros_like(state[:, :, :height])
        strips = list(cut_strips(features, multiple=4))
        for weight in self.weights:
            # Row r of the picture is row `first` + r here, one row of zeros before it.
            for top, bottom in strips:
                rows = state[:, :, first + top - 1 : first + bottom + 1]
                rows = self.recurse(rows, slope=0.0, rows=False)
                state[:, :, first + top - 1 : first + bottom - 1] = rows
            first -= 1
            state[:, :, first + height] = 0.0
            if not weight:
                continue
            for top, bottom in strips:
                rows = state[:, :, first + top - 1 : first + bottom + 1]
                total = features[:, :, top:bottom]
                self.hidden.add_to(total, rows, slope=0.0, share=weight)
        return features

    def _embed(
        self, picture: Tensor, rise: int, dtype: torch.dtype
    ) -> tuple[Tensor, int]:
        """The first state H_0, with room to move up by `rise` rows.

        Returns:
            (N, width, rise + H + 2, W), zero but for the state, and where that begins.
        """
        batch, _, height, width = picture.shape
        channels = len(self.recurse.bias)
        first = rise + 1
        shape = (batch, first + height + 1, width, channels)
        state = picture.new_zeros(shape, dtype=dtype).permute(0, 3, 1, 2)
        place = state[:, :, first : first + height]
        padded = nn.functional.pad(picture, (0, 0, 2, 2))
        for top, bottom in cut_strips(place, multiple=4):
            rows = align_channels(padded[:, :, top : bottom + 4])
            # Rounded, the picture itself would be seen in the result.
            rows = self.embed[0](rows, slope=0.0, rows=False).to(dtype)
            # Beyond the picture are zeros, not what the first layer makes of them.
            if top == 0:
                rows[:, :, 0] = 0.0
            if bottom == height:
                rows[:, :, -1] = 0.0
            place[:, :, top:bottom] = self.embed[1](rows, slope=0.0, rows=False)
        return state, first
