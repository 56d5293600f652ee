"""Trained networks by name or file, checked, ours or others'."""

from __future__ import annotations

from pathlib import Path

from srcli.errors import WeightsError
from srcli.models.base import SRModel
from srcli.pretrained.catalog import ORDINARY, find_entry, is_weight_file, locate
from srcli.pretrained.community import read_community
from srcli.pretrained.weight_file import check_kind, is_own, read_weights


def load_model(
    model: str | Path, scale: int | None = None, *, degradation: str = ORDINARY
) -> SRModel:
    """A trained network in evaluation mode, on the CPU, in float32.

    Args:
        model: A name of `srcli models`, or the path of a weight file.
        scale: Enlargement; may be None for a network that serves several, or a file.
        degradation: What the pictures suffered: "bi", "bd" or "dn". A file is what it
            is.

    Raises:
        UsageError: For an unknown model, scale or degradation.
        WeightsError: If the weights are not there, damaged, or do not fit.
    """
    if isinstance(model, Path) or is_weight_file(model):
        network = read_file(Path(model))
        if scale is not None:
            network.resolve_scale(scale)
        return network
    entry = find_entry(model, scale, degradation)
    path = locate(entry)
    if path is None:
        raise WeightsError(
            f"the weights {entry.file} are not installed: "
            f"`srcli download {entry.model}` fetches them"
        )
    return read_weights(path, entry)


def read_file(path: Path) -> SRModel:
    """The network of any weight file, ours or another's, in evaluation mode.

    Raises:
        UsageError: If another's needs an extra that is not installed.
        WeightsError: If the file is missing, damaged, or holds no known network.
    """
    check_kind(path)
    return read_weights(path) if is_own(path) else read_community(path)
