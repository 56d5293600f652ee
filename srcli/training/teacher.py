"""Teachers: better networks whose enlargements a run learns from.

What an LR picture does not tell, no network can know: to a loss that compares with the
original it is noise. A teacher's picture has only what can be known of the LR picture.
Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
section 2; for super-resolution Gao et al., "Image Super-Resolution Using Knowledge
Distillation", ACCV 2018.

A teacher enlarges every picture once. Its pictures are kept on the disk under what they
were made from, so that the next run over the same pictures need not wait for them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srcli.errors import UsageError
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.degrade import crop_to_multiple, degrade
from srcli.imaging.resize import imresize
from srcli.inference.runner import Runner
from srcli.models.base import Color, SRModel
from srcli.pretrained.catalog import ORDINARY, cache_folder
from srcli.pretrained.loading import read_file
from srcli.pretrained.weight_file import (
    read_degradation,
    read_licence,
    sha256_of,
)
from srcli.progress import SILENT, Progress
from srcli.training.distributed import ALONE, World
from srcli.training.recipe import Recipe
from srcli.units import format_duration
from srcli.writing import write_whole

log = logging.getLogger(__name__)

_BLOCK = 192  # HR pixels; least side of the parts that `choose_detailed` takes
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
        world: The processes of the run, which divide the work on each machine.
    """

    def __init__(
        self,
        by_scale: Mapping[int, Teacher],
        color: Color,
        device: torch.device,
        *,
        cache: Path | None = None,
        world: World = ALONE,
    ) -> None:
        self._by_scale = by_scale
        self._color = color
        self._device = device
        self._cache = cache.expanduser() if cache else cache_folder() / "teacher"
        self._world = world

    @property
    def facts(self) -> tuple[TeacherFacts, ...]:
        """What there is to say of every teacher."""
        return tuple(dict.fromkeys(t.facts for t in self._by_scale.values()))

    @property
    def reads(self) -> Color:
        """What HR pictures must be in to be taught."""
        colors = {teacher.network.color for teacher in self._by_scale.values()}
        return "rgb" if "rgb" in colors else "y"

    @property
    def fingerprint(self) -> str:
        """What decides the pictures that are made of given ones."""
        hashes = {scale: each.facts.sha256 for scale, each in self._by_scale.items()}
        return json.dumps([_VERSION, sorted(hashes.items())])

    def enlarge(
        self,
        scale: int,
        pictures: Sequence[NDArray[np.uint8]],
        progress: Progress = SILENT,
    ) -> list[NDArray[np.uint8]]:
        """The teacher's enlargements of reduced pictures, from the disk if there.

        Args:
            scale: One of the run's.
            pictures: HR, each (H, W, C) in the colours of `reads`.
            progress: Told of pictures, by their size.

        Returns:
            (H, W, C) uint8 each, cropped to a multiple of the scale, in the pupil's
            colours.

        Raises:
            OutputError: If they cannot be kept.
            DeviceError: If memory does not suffice.
        """
        teacher = self._by_scale[scale]
        count, world = len(pictures), self._world
        with ThreadPoolExecutor() as pool:
            shrink = partial(_shrink, scale=scale, color=teacher.network.color)
            small = list(pool.map(shrink, pictures))
            place = partial(self._place, (_VERSION, teacher.facts.sha256, scale))
            paths = list(pool.map(place, small))
            own = range(world.local_rank, count, world.local_size)
            # What the others here make is on the disk then, unless it is another's.
            others = [number for number in range(count) if number not in own]
            made: dict[int, NDArray[np.uint8] | None] = {}
            for numbers in (own, others):
                found = pool.map(_load, [paths[number] for number in numbers])
                made |= dict(zip(numbers, found, strict=True))
                missing = [number for number in numbers if made[number] is None]
                made |= self._make(teacher, scale, small, paths, missing, progress)
                world.barrier()
            return list(pool.map(self._fit, (made[n] for n in range(count))))

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
        scale: int,
        small: Sequence[NDArray[Any]],
        paths: Sequence[Path],
        numbers: Sequence[int],
        progress: Progress,
    ) -> dict[int, NDArray[np.uint8]]:
        """Enlarge the LR pictures of these numbers; the disk is written meanwhile."""
        if not numbers:
            return {}
        # In half precision a picture is up to several levels off, and stays so.
        device = str(self._device)
        runner = Runner(teacher.network, scale, device=device, precision="fp32")
        sizes = [small[number].shape[:2] for number in numbers]
        seconds = sum(runner.estimate_seconds(*size) for size in sizes)
        total = sum(height * width for height, width in sizes) / 1e6
        log.info(
            "%s enlarges %d pictures, %.1f megapixels, by %d in about %s",
            teacher.facts.file,
            len(numbers),
            total,
            scale,
            format_duration(seconds),
        )
        title = f"{teacher.facts.file} makes x{scale} pictures"
        progress.start(title, len(numbers))
        made = {}
        with ThreadPoolExecutor(max_workers=1) as pool:
            stored = pool.submit(lambda: None)
            for number in numbers:
                made[number] = pixels = _enlarge(runner, small[number])
                stored.result()  # a full disk is told at once
                stored = pool.submit(_store, paths[number], pixels)
                # Large pictures count for more, so that the time left is right.
                area = pixels.shape[0] * pixels.shape[1] / scale**2 / 1e6
                progress.advance(len(numbers) * area / total)
            stored.result()
        return made

    def _fit(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What a teacher has made, in the pupil's colours."""
        if pixels.shape[2] == 3 and self._color == "y":
            return rgb_to_y_uint8(pixels)[:, :, None]
        return pixels


def _shrink(hr: NDArray[np.uint8], *, scale: int, color: Color) -> NDArray[Any]:
    """The LR picture that a teacher of `color` gets, as networks are trained."""
    hr = crop_to_multiple(hr, scale)
    if color == "rgb":
        return degrade(hr, scale, "bi")
    luma = hr if hr.shape[2] == 1 else rgb_to_y_uint8(hr)[:, :, None]
    return imresize(luma.astype(np.float32), 1 / scale)


def _enlarge(runner: Runner, lr: NDArray[Any]) -> NDArray[np.uint8]:
    """A teacher's enlargement of one picture, rounded."""
    planes = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32) / 255.0)
    sr = runner.enlarge(planes.contiguous()).clamp(0, 1)
    levels = (sr * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0)
    return np.ascontiguousarray(levels.numpy())


def _load(path: Path) -> NDArray[np.uint8] | None:
    """A kept picture; None if there is none, or it is damaged."""
    try:
        pixels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    is_one = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    return pixels if is_one and pixels.ndim == 3 else None


def _store(path: Path, pixels: NDArray[np.uint8]) -> None:
    # Two runs over the same pictures may write the same at once.
    with write_whole(path, run="teacher") as part, part.open("wb") as file:
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
        purpose = read_degradation(path)
        if purpose not in (None, ORDINARY):
            raise UsageError(
                f"{path} is for degradation {purpose}: teachers enlarge what is only "
                "small"
            )
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


def read_facts(said: Mapping[str, Any]) -> tuple[TeacherFacts, ...]:
    """The teachers that a weight file or checkpoint names; none is the originals.

    Args:
        said: What it says of itself.

    Raises:
        ValueError: If it cannot be read.
        TypeError: If it names no teachers there.
        KeyError: Likewise.
    """
    return tuple(
        TeacherFacts(**{**each, "scales": tuple(each["scales"])})
        for each in json.loads(said.get("teachers", "[]"))
    )


def describe_facts(facts: Sequence[TeacherFacts]) -> dict[str, str]:
    """What a weight file says of its teachers; nothing where it has none."""
    if not facts:
        return {}
    return {"teachers": json.dumps([asdict(each) for each in facts])}


def choose_detailed(
    pictures: Sequence[NDArray[np.uint8]], recipe: Recipe
) -> list[NDArray[np.uint8]]:
    """The parts of the pictures with the most detail, `teacher_megapixels` together.

    From as many pictures as there are: each gives its most detailed part first, and a
    second one only once all others have given theirs. Where the pictures have no more
    megapixels, they are returned whole; those too small for crops of every scale are
    left out while there are others.

    Args:
        pictures: HR, (H, W, C) uint8.
        recipe: Of the run.
    """
    left = recipe.teacher_megapixels * 1e6
    if sum(p.shape[0] * p.shape[1] for p in pictures) <= left:
        return list(pictures)
    least = max(recipe.lr_crop(scale) * scale for scale in recipe.scales)
    large = [p for p in pictures if min(p.shape[:2]) >= least] or pictures
    rank = partial(_rank_parts, side=max(_BLOCK, least * 3 // 2))
    with ThreadPoolExecutor() as pool:
        ranked = [entry for parts in pool.map(rank, large) for entry in parts]
    ranked.sort(key=lambda entry: entry[:2])
    chosen = []
    for _, _, part in ranked:
        if left <= 0:
            break
        chosen.append(part.copy())  # so that its picture can be forgotten
        left -= part.shape[0] * part.shape[1]
    return chosen


def _rank_parts(
    picture: NDArray[np.uint8], side: int
) -> list[tuple[int, float, NDArray[np.uint8]]]:
    """Parts of a picture: their turn, what sorts within the turn, and they."""
    parts = ((-_measure_detail(part), part) for part in _cut(picture, side))
    ordered = sorted(parts, key=lambda pair: pair[0])
    return [(turn, calm, part) for turn, (calm, part) in enumerate(ordered)]


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
