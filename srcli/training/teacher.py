"""Teachers: better networks whose enlargements a run learns from.

What an LR picture does not tell, no network can know: to a loss that compares with the
original it is noise. A teacher's picture has only what can be known of the LR picture.
A blurred or noisy one tells less still: there, too, the teacher gets what is only
small, and the network learns what is likely of it.
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
from srcli.units import format_count, format_duration
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


class Teachers:
    """Who teaches each scale, and where their pictures are kept.

    Args:
        paths: Weight files, ours or others': one for every scale of the run.
        recipe: The run's.
        color: What the pupil works on.
        device: Where teachers run.
        cache: Folder of their pictures; None is `teacher` in the user's cache.
        world: The processes of the run, which divide the work on each machine.

    Attributes:
        facts: Of every teacher.
        reads: The colours that HR pictures must be in to be taught.
        fingerprint: What decides the pictures that are made of given ones.

    Raises:
        SrcliError: If a file is no network, a scale has no teacher or several, or one
            cannot teach what the run learns.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        recipe: Recipe,
        color: Color,
        device: torch.device,
        *,
        cache: Path | None = None,
        world: World = ALONE,
    ) -> None:
        self._color, self._device, self._world = color, device, world
        self._cache = cache.expanduser() if cache else cache_folder() / "teacher"
        self._by_scale: dict[int, tuple[TeacherFacts, SRModel]] = {}
        for path in paths:
            self._add(path, recipe)
        if missing := [f"x{s}" for s in recipe.scales if s not in self._by_scale]:
            raise UsageError(
                f"no teacher for {', '.join(missing)}: --teacher FILE names one for "
                "each scale, or -x leaves the scale out"
            )
        teachers = self._by_scale.values()
        self.facts = tuple(dict.fromkeys(facts for facts, _ in teachers))
        colors = {network.color for _, network in teachers}
        self.reads: Color = "rgb" if "rgb" in colors else "y"
        hashes = {scale: facts.sha256 for scale, (facts, _) in self._by_scale.items()}
        self.fingerprint = json.dumps([_VERSION, sorted(hashes.items())])

    def _add(self, path: Path, recipe: Recipe) -> None:
        """Let a weight file teach those of the run's scales that it has."""
        network = read_file(path)
        scales = tuple(s for s in recipe.scales if s in network.config.scales)
        if not scales:
            log.warning("%s teaches nothing: the run has none of its scales", path)
            return
        purpose = read_degradation(path)
        if purpose not in (None, ORDINARY):
            raise UsageError(
                f"{path} is for degradation {purpose}: teachers enlarge what is only "
                "small"
            )
        if self._color == "rgb" and network.color == "y":
            raise UsageError(
                f"{path} enlarges luma alone: {recipe.model} needs a teacher on RGB"
            )
        facts = TeacherFacts(
            file=path.name,
            sha256=sha256_of(path),
            licence=read_licence(path) or recipe.teacher_licence,
            scales=scales,
        )
        for scale in scales:
            if scale in self._by_scale:
                other = self._by_scale[scale][0].file
                raise UsageError(
                    f"{other} and {path.name} both teach x{scale}: name one"
                )
            self._by_scale[scale] = facts, network

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
        facts, network = self._by_scale[scale]
        world = self._world
        with ThreadPoolExecutor() as pool:
            shrink = partial(_shrink, scale=scale, color=network.color)
            small = list(pool.map(shrink, pictures))
            place = partial(self._place, (_VERSION, facts.sha256, scale))
            paths = list(pool.map(place, small))
            own = range(world.local_rank, len(small), world.local_size)
            # What the others here make is on the disk then, unless it is another's.
            others = [number for number in range(len(small)) if number not in own]
            made: dict[int, NDArray[np.uint8]] = {}
            for numbers in (own, others):
                kept = pool.map(_load, [paths[number] for number in numbers])
                made |= {
                    n: p for n, p in zip(numbers, kept, strict=True) if p is not None
                }
                missing = {n: small[n] for n in numbers if n not in made}
                if missing:
                    for number, made[number] in self._make(scale, missing, progress):
                        # Two runs over the same pictures may write the same at once.
                        whole = write_whole(paths[number], run="teacher")
                        with whole as part, part.open("wb") as file:
                            np.save(file, made[number])
                world.barrier()
        luma = self._color == "y" and network.color == "rgb"
        ordered = [made[number] for number in range(len(small))]
        return [rgb_to_y_uint8(p)[:, :, None] if luma else p for p in ordered]

    def _place(self, said: tuple[object, ...], lr: NDArray[Any]) -> Path:
        """Where the enlargement of `lr` is kept."""
        kind = json.dumps([*said, str(lr.dtype), lr.shape])
        digest = hashlib.sha256(kind.encode())
        digest.update(np.ascontiguousarray(lr).data)
        name = digest.hexdigest()
        return self._cache / name[:2] / f"{name}.npy"

    def _make(
        self, scale: int, small: Mapping[int, NDArray[Any]], progress: Progress
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Enlarge LR pictures one after the other."""
        facts, network = self._by_scale[scale]
        # In half precision a picture is up to several levels off, and stays so.
        device = str(self._device)
        runner = Runner(network, scale, device=device, precision="fp32")
        sizes = {number: lr.shape[:2] for number, lr in small.items()}
        seconds = sum(runner.estimate_seconds(*size) for size in sizes.values())
        pixels = sum(height * width for height, width in sizes.values())
        count, duration = format_count(len(small), "picture"), format_duration(seconds)
        said = "%s enlarges %s, %.1f megapixels, by %d in about %s"
        log.info(said, facts.file, count, pixels / 1e6, scale, duration)
        progress.start(f"{facts.file} makes x{scale} pictures", len(small))
        for number, lr in small.items():
            yield number, _enlarge(runner, lr)
            # Large pictures count for more, so that the time left is right.
            height, width = sizes[number]
            progress.advance(len(small) * height * width / pixels)


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


def read_facts(said: Mapping[str, Any]) -> tuple[TeacherFacts, ...]:
    """The teachers that a weight file or checkpoint names; none is the originals.

    Raises:
        ValueError, TypeError, KeyError: If it cannot be read.
    """
    return tuple(
        TeacherFacts(**{**each, "scales": tuple(each["scales"])})
        for each in json.loads(said.get("teachers", "[]"))
    )


def describe_facts(facts: Sequence[TeacherFacts]) -> dict[str, str]:
    """What a weight file says of its teachers; nothing where it has none."""
    return {"teachers": json.dumps([asdict(each) for each in facts])} if facts else {}


def choose_detailed(
    pictures: Sequence[NDArray[np.uint8]], recipe: Recipe
) -> list[NDArray[np.uint8]]:
    """The parts of the pictures with the most detail, `teacher_megapixels` together.

    From as many pictures as there are: each gives its most detailed part first, and a
    second one only once all others have given theirs. Where the pictures have no more
    megapixels, they are returned whole; those too small for crops of every scale are
    left out while there are others. All are (H, W, C) uint8.
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
    """Parts of a picture, `side` long or a little more, each after its rank.

    That is its turn and, within the turn, how calm it is: the mean step between pixels
    that are next to each other, in grey levels, counts.
    """

    def split(whole: NDArray[np.uint8], axis: int) -> list[NDArray[np.uint8]]:
        length = whole.shape[axis]
        count = max(1, length // side)
        return np.split(whole, [length * n // count for n in range(1, count)], axis)

    def measure(part: NDArray[np.uint8]) -> float:
        grey = part.astype(np.float32).mean(axis=2)
        steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey)).mean()
        return -float(steps)

    parts = [part for rows in split(picture, 0) for part in split(rows, 1)]
    calm = sorted(((measure(part), part) for part in parts), key=lambda pair: pair[0])
    return [(turn, *pair) for turn, pair in enumerate(calm)]
