"""Folders for results, and room on the disk: whether they are there."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from srcli.errors import OutputError
from srcli.imaging.formats import FORMATS
from srcli.imaging.picture import PictureInfo
from srcli.inference.jobs import Job
from srcli.storage import Place
from srcli.units import format_bytes

log = logging.getLogger(__name__)

# Bytes of a file in shares of those of its pixels, for enlarged photographs at x4: ten
# of the benchmark sets, AVIF taken to be as WebP.
_SHARES = {"png": 0.25, "tiff": 0.28, "jpg": 0.08, "webp": 0.04, "avif": 0.04}
_DEEP_SHARE = 0.8  # of 16 bits and more, whose last bits are noise
# Bytes a pixel of the result over those of the input: the same picture, smoother, as
# JPEG of quality 95 where it was one of quality 80.
_LOSSY = ("jpg", "webp", "avif")
_GROWTH = {
    (False, False): 0.6,
    (False, True): 0.4,
    (True, False): 4.0,
    (True, True): 1.3,
}


def estimate_room(info: PictureInfo, format: str, pixels: int, read: int) -> int:
    """About how many bytes a result's file will take, give or take a factor of two.

    What takes little room now, such as a drawing, will not take much then.

    Args:
        info: What the header of the input says.
        format: Of the result, a key of `FORMATS`.
        pixels: That the result has.
        read: Bytes of the input's file.
    """
    entry = FORMATS[format]
    samples = info.channels + (info.alpha and entry.alpha)
    depth = min(info.depth, entry.depth)
    raw = samples * depth / 8
    if format == "bmp":
        return int(pixels * raw)
    share = _SHARES[format] if depth == 8 else _DEEP_SHARE
    growth = _GROWTH[info.format in _LOSSY, format in _LOSSY]
    now = read / (info.width * info.height) * growth
    return int(pixels * min(raw * share, now))


def check_space(jobs: Iterable[Job]) -> None:
    """See that the disks have room for the results, before any work begins.

    Raises:
        OutputError: If there is not even half of what they will take.
    """
    needs: defaultdict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for job in jobs:
        # A store does not say how much it holds.
        if isinstance(job.output, Path) and job.is_open:
            place = _existing(job.output.parent)
            device = place.stat().st_dev
            places.setdefault(device, place)
            needs[device] += job.room - _replaced(job.output)
    for device, need in needs.items():
        place = places[device]
        free = _free_space(place)
        if need <= free:
            continue
        room = f"{format_bytes(free)} are free"
        about = f"the results take about {format_bytes(need)} and {room}"
        if need / 2 > free:
            raise OutputError(f"{place} has no room: {about}: choose another -o")
        log.warning("%s may have no room: %s", place, about)


def prepare_folders(folders: Iterable[Place]) -> None:
    """Make the folders that results go to, and see that they can be written to.

    Raises:
        OutputError: If one cannot be made or written to.
    """
    for folder in dict.fromkeys(folders):
        if not isinstance(folder, Path):
            continue  # it comes with its files
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"folder {folder} cannot be written: {reason}") from error


def require_room(job: Job, *, makes_folder: bool = False) -> None:
    """See that the folder of a result is there and has room, before it is computed.

    Args:
        job: Open.
        makes_folder: Whether the folder is made with the file.

    Raises:
        OutputError: If the folder is gone, or the disk is full.
    """
    if not isinstance(job.output, Path):
        return
    folder = job.output.parent
    if makes_folder:
        folder = _existing(folder.absolute())
    try:
        free = _free_space(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {job.output}: {reason}") from error
    if job.room / 2 > free:
        raise OutputError(
            f"cannot write {job.output}: no room: about {format_bytes(job.room)} are "
            f"needed and {format_bytes(free)} are free"
        )


def _free_space(folder: Path) -> float:
    """Bytes that are free where a folder lies; without end where nobody can tell.

    Raises:
        OSError: If it is not there.
    """
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total else math.inf


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    places = (folder, *folder.parents)
    return next((place for place in places if place.exists()), folder)


def _replaced(path: Path) -> int:
    """Bytes that a file gives back."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
