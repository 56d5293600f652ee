"""Training pictures: found, decoded once, and what cannot be used named."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.evaluation.datasets import read_hr
from srcli.evaluation.originals import find_originals
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.resize import imresize
from srcli.models.base import Color
from srcli.progress import SILENT, Progress
from srcli.storage import show_path

log = logging.getLogger(__name__)


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders, sorted; files may be named directly.

    Hidden files are left out, and copies of others (`find_originals`).

    Raises:
        InputError: If a folder is missing or there is no picture at all.
    """
    found: set[Path] = set()
    for folder in folders:
        try:
            there = [folder] if folder.is_file() else None
            if there is None and not folder.is_dir():
                raise InputError(
                    f"no training pictures at {show_path(folder)}: no such folder"
                )
        except OSError as error:
            raise InputError(
                f"cannot read {show_path(folder)}: {error.strerror}"
            ) from error
        found.update(there or find_originals(folder))
    if not found:
        names = ", ".join(show_path(folder) for folder in folders)
        raise InputError(
            f"no training pictures below {names}: PNG, JPEG, TIFF, BMP, WebP and AVIF "
            "are looked for"
        )
    # As a resumed run will name them, from wherever it is started.
    return sorted(path.absolute() for path in found)


@dataclass(frozen=True, slots=True)
class ReadPictures:
    """Training pictures as they are cropped from.

    Attributes:
        pictures: (H, W, C) uint8, each followed by its reduced copies.
        skipped: Files that cannot be read, or hold the pixels of one before them.
        fingerprint: Twelve hexadecimal digits of all pixels.
    """

    pictures: tuple[NDArray[np.uint8], ...]
    skipped: tuple[Path, ...]
    fingerprint: str


def read_pictures(
    paths: Sequence[Path],
    color: Color,
    factors: Sequence[float] = (1.0,),
    progress: Progress = SILENT,
) -> ReadPictures:
    """Decode every picture once; what cannot be used is named and left out.

    Args:
        paths: HR pictures.
        color: "y" takes the rounded luma.
        factors: Sizes of the copies of each picture, 1 for the picture itself.
        progress: Told about every file.

    Raises:
        InputError: If no picture can be read.
    """
    progress.start("Reading pictures", len(paths))
    seen: dict[bytes, Path] = {}
    pictures: list[NDArray[np.uint8]] = []
    skipped: list[Path] = []
    load = partial(_load, color=color, factors=factors)
    with ThreadPoolExecutor() as pool:
        for path, outcome in zip(paths, pool.map(load, paths), strict=True):
            progress.advance()
            if isinstance(outcome, InputError):
                log.warning("skipped: %s", outcome)
                skipped.append(path)
            elif outcome.digest in seen:
                log.warning(
                    "skipped: %s is the same picture as %s",
                    show_path(path), show_path(seen[outcome.digest]),
                )  # fmt: skip
                skipped.append(path)
            else:
                seen[outcome.digest] = path
                pictures += outcome.copies
    if not pictures:
        raise InputError(
            f"none of {len(paths)} training pictures can be read: --data FOLDER names "
            "others"
        )
    if 2 * len(skipped) > len(paths):
        log.warning("only %d of %d files are used", len(seen), len(paths))
    digest = hashlib.sha256(b"".join(seen)).hexdigest()[:12]
    return ReadPictures(tuple(pictures), tuple(skipped), digest)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A picture as training takes it, (H, W, C) uint8, and its reduced copies."""

    copies: list[NDArray[np.uint8]]
    digest: bytes  # of its RGB values


def _load(path: Path, color: Color, factors: Sequence[float]) -> _Loaded | InputError:
    """The picture, or the error that reading it gave."""
    try:
        pixels = read_hr(path)
    except InputError as error:
        return error
    shape = (*pixels.shape[:2], 3)
    planes = pixels[:, :, None] if pixels.ndim == 2 else pixels
    rgb = np.ascontiguousarray(np.broadcast_to(planes, shape))
    picture = rgb_to_y_uint8(rgb)[:, :, None] if color == "y" else rgb
    return _Loaded(
        [picture if factor == 1.0 else imresize(picture, factor) for factor in factors],
        hashlib.sha256(rgb.data).digest(),
    )
