"""Teachers: better networks whose enlargements a run learns from.

What an LR picture does not tell, no network can know: to a loss that compares with the
original it is noise. A teacher's picture has only what can be known of the LR picture.
Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
section 1; for super-resolution Gao et al., "Image Super-Resolution Using Knowledge
Distillation", ACCV 2018, section 3.

A teacher enlarges every picture once. Its pictures are kept on the disk under what they
were made from, so that the next run over the same pictures begins at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srcli.errors import UsageError
from srcli.imaging.color import rgb_to_y_uint8
from srcli.inference.runner import Runner
from srcli.models.base import Color, SRModel
from srcli.pretrained.catalog import cache_folder, read_file, sha256_of
from srcli.pretrained.metadata import read_licence
from srcli.progress import SILENT, Progress
from srcli.training.distributed import ALONE, World
from srcli.training.recipe import Recipe
from srcli.units import format_duration
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

_BLOCK = 192  # HR pixels; side of the parts that `choose_detailed` takes, or more
_VERSION = "1"  # of how a teacher's pictures are made; another one makes them anew


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFacts:
    """What is said of a teacher in weight files, the manifest and the report."""

    file: str  # its name
    sha256: str
    licence: str
    scales: tuple[int, ...]  # of those that the run learns


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network that a run learns from."""

    facts: TeacherFacts
    network: SRModel


class Teachers:
    """Who teaches each scale, and where their pictures are kept.

    Args:
        by_scale: A teacher for every scale of the run.
        color: What the pupil works on.
        device: Where teachers run.
        cache: Folder of their pictures; None is `teacher` in the user's cache.
        world: The processes of the run: one on each machine makes the pictures.
    """

    def __init__(
        self,
        by_scale: dict[int, Teacher],
        color: Color,
        device: torch.device,
        *,
        cache: Path | None = None,
        world: World = ALONE,
    ) -> None:
        self._by_scale = by_scale
        self._color = color
        self._device = device
        self._cache = cache or cache_folder() / "teacher"
        self._world = world

    @property
    def facts(self) -> tuple[TeacherFacts, ...]:
        """What there is to say of every teacher."""
        return tuple(dict.fromkeys(t.facts for t in self._by_scale.values()))

    @property
    def reads(self) -> Color:
        """What the pictures must be in that are enlarged."""
        colors = {teacher.network.color for teacher in self._by_scale.values()}
        return "rgb" if "rgb" in colors else "y"

    def enlarge(
        self,
        scale: int,
        pictures: Sequence[NDArray[Any]],
        progress: Progress = SILENT,
    ) -> list[NDArray[np.uint8]]:
        """The teacher's enlargements, from the disk as far as they are there.

        Args:
            scale: One of the run's.
            pictures: LR, each (h, w, 3) uint8 RGB or, for a teacher of luma, (h, w, 1)
                in [0, 255].
            progress: Told of LR megapixels.

        Returns:
            (s*h, s*w, C) uint8 each, C being the pupil's.

        Raises:
            OutputError: If they cannot be kept.
            DeviceError: If memory does not suffice.
        """
        teacher = self._by_scale[scale]
        # In half precision a picture is up to several levels off, and stays so.
        runner = Runner(
            teacher.network, scale, device=str(self._device), precision="fp32"
        )
        said = (_VERSION, teacher.facts.sha256, scale, self._color)
        with ThreadPoolExecutor() as pool:
            paths = list(pool.map(lambda lr: self._place(said, lr), pictures))
        if self._world.local_rank == 0:
            self._make(teacher, runner, pictures, paths, progress)
        self._world.barrier()
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(_load, paths))
        # Another machine's disk may have lost one that this process has not made.
        return [
            self._ask(runner, lr) if made is None else made
            for lr, made in zip(pictures, found, strict=True)
        ]

    def _place(self, said: tuple[object, ...], lr: NDArray[Any]) -> Path:
        """Where the enlargement of `lr` is kept."""
        kind = json.dumps([*said, str(lr.dtype), lr.shape])
        digest = hashlib.sha256(kind.encode())
        digest.update(np.ascontiguousarray(lr).data)
        name = digest.hexdigest()
        return self._cache / name[:2] / f"{name}.npy"

    def _make(
        self,
        teacher: Teacher,
        runner: Runner,
        pictures: Sequence[NDArray[Any]],
        paths: Sequence[Path],
        progress: Progress,
    ) -> None:
        """Enlarge what is not on the disk yet; the disk is written meanwhile."""
        with ThreadPoolExecutor() as pool:
            there = list(pool.map(lambda path: _load(path) is not None, paths))
        left = [number for number, found in enumerate(there) if not found]
        if not left:
            return
        sizes = [pictures[number].shape[:2] for number in left]
        seconds = sum(runner.estimate_seconds(*size) for size in sizes)
        total = sum(height * width for height, width in sizes) / 1e6
        log.info(
            "%s enlarges %d pictures, %.1f megapixels, by %d in about %s",
            teacher.facts.file,
            len(left),
            total,
            runner.scale,
            format_duration(seconds),
        )
        progress.start(f"{teacher.facts.file} makes x{runner.scale} pictures", total)
        with ThreadPoolExecutor(max_workers=1) as pool:
            kept = []
            for number in left:
                made = self._ask(runner, pictures[number])
                kept.append(pool.submit(_store, paths[number], made))
                progress.advance(made.shape[0] * made.shape[1] / runner.scale**2 / 1e6)
            for each in kept:
                each.result()

    def _ask(self, runner: Runner, lr: NDArray[Any]) -> NDArray[np.uint8]:
        """The teacher's enlargement of one picture, rounded."""
        planes = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32) / 255.0)
        sr = runner.enlarge(planes.contiguous()).clamp(0, 1)
        levels = (sr * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0)
        pixels: NDArray[np.uint8] = np.ascontiguousarray(levels.numpy())
        if pixels.shape[2] == 3 and self._color == "y":
            return rgb_to_y_uint8(pixels)[:, :, None]
        return pixels


def _load(path: Path) -> NDArray[np.uint8] | None:
    """A kept picture; None if there is none, or it is damaged."""
    try:
        pixels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    is_one = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    return pixels if is_one and pixels.ndim == 3 else None


def _store(path: Path, pixels: NDArray[np.uint8]) -> None:
    make_folder(path.parent)
    with write_whole(path) as part, part.open("wb") as file:
        np.save(file, pixels)


def find_teachers(
    paths: Sequence[Path], recipe: Recipe, color: Color
) -> dict[int, Teacher]:
    """A teacher for every scale of a run.

    Args:
        paths: Weight files, ours or others'.
        recipe: The run's.
        color: What the pupil works on.

    Raises:
        UsageError: If a scale has none or several, a teacher of luma would have to
            teach colours, or the pictures are not only small but degraded.
        WeightsError: If a file is missing, damaged, or holds no known network.
    """
    if recipe.degradation != "bi":
        raise UsageError(
            f"teachers enlarge what is only small: leave --teacher or degradation "
            f"{recipe.degradation} out"
        )
    found: dict[int, Teacher] = {}
    for path in paths:
        network = read_file(path)
        scales = [s for s in recipe.scales if s in network.config.scales]
        if not scales:
            log.warning("%s teaches nothing: the run has none of its scales", path)
            continue
        if color == "rgb" and network.color == "y":
            raise UsageError(
                f"{path} enlarges luma alone: {recipe.model} needs a teacher on RGB"
            )
        licence = read_licence(path) or recipe.teacher_licence
        facts = TeacherFacts(
            file=path.name,
            sha256=sha256_of(path),
            licence=licence,
            scales=tuple(scales),
        )
        for scale in scales:
            if scale in found:
                raise UsageError(
                    f"{found[scale].facts.file} and {path.name} both teach x{scale}: "
                    "name one"
                )
            found[scale] = Teacher(facts, network)
    missing = [f"x{scale}" for scale in recipe.scales if scale not in found]
    if missing:
        raise UsageError(
            f"no teacher for {', '.join(missing)}: --teacher FILE names one for each "
            "scale, or -x leaves the scale out"
        )
    return found


def read_facts(metadata: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """The teachers that a weight file names; none where it was taught by originals.

    Raises:
        ValueError: If what it says cannot be read.
    """
    return tuple(json.loads(metadata.get("teachers", "[]")))


def describe_facts(facts: Sequence[TeacherFacts]) -> dict[str, str]:
    """What a weight file says of its teachers; nothing where it has none."""
    if not facts:
        return {}
    return {"teachers": json.dumps([asdict(each) for each in facts])}


def choose_detailed(
    pictures: Sequence[NDArray[np.uint8]], megapixels: float, side: int
) -> list[NDArray[np.uint8]]:
    """The parts of the pictures with the most detail, so many megapixels together.

    From as many pictures as there are: each gives its most detailed part first, and a
    second one only once all others have given theirs.

    Args:
        pictures: HR, (H, W, C) uint8.
        megapixels: Of the parts together, about. Where the pictures have no more, they
            are returned whole.
        side: Least length of a part, in pixels, where its picture has it.
    """
    if sum(p.shape[0] * p.shape[1] for p in pictures) <= megapixels * 1e6:
        return list(pictures)
    ranked: list[tuple[int, float, NDArray[np.uint8]]] = []
    for picture in pictures:
        parts = sorted(
            ((_measure_detail(part), part) for part in _cut(picture, side)),
            key=lambda pair: -pair[0],
        )
        ranked += [(turn, -detail, part) for turn, (detail, part) in enumerate(parts)]
    ranked.sort(key=lambda entry: entry[:2])
    chosen, left = [], megapixels * 1e6
    for _, _, part in ranked:
        if left <= 0:
            break
        chosen.append(part)
        left -= part.shape[0] * part.shape[1]
    return chosen


def find_side(recipe: Recipe) -> int:
    """The side of the parts that `choose_detailed` takes: crops have room in them."""
    return max(_BLOCK, *(recipe.lr_crop(s) * s * 3 // 2 for s in recipe.scales))


def _cut(picture: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    """Parts of equal size that cover the picture, `side` long or a little more."""
    height, width, _ = picture.shape
    rows, columns = (max(1, length // side) for length in (height, width))
    for row in range(rows):
        for column in range(columns):
            yield picture[
                row * height // rows : (row + 1) * height // rows,
                column * width // columns : (column + 1) * width // columns,
            ]


def _measure_detail(picture: NDArray[np.uint8]) -> float:
    """The mean step between pixels that are next to each other, in grey levels."""
    grey = picture.astype(np.float32).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey)).mean())
