"""Networks measured on data sets, beside bicubic and the papers' own numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, OutputError, UsageError
from srcli.evaluation import metrics
from srcli.evaluation.contenders import (
    Contender,
    Engine,
    Selection,
    prepare_contenders,
)
from srcli.evaluation.crops import Crop, Showcase
from srcli.evaluation.protocol import Protocol, Reconstruction, Task, reconstruct
from srcli.evaluation.published import PublishedResult, lookup
from srcli.imaging.degrade import Degradation, crop_to_multiple
from srcli.imaging.files import write_picture
from srcli.imaging.picture import Picture
from srcli.inference.runner import Runner
from srcli.pretrained.catalog import BICUBIC
from srcli.pretrained.datasets import Dataset, find_dataset, label_pictures, read_hr
from srcli.progress import SILENT, Progress
from srcli.storage import show_path
from srcli.writing import make_folder

log = logging.getLogger(__name__)

Metric = Literal["psnr", "ssim", "ifc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """What to measure, and how."""

    datasets: tuple[str, ...] = ("set5",)  # names, or folders of HR pictures
    selection: Selection = field(default_factory=Selection)
    engine: Engine = field(default_factory=Engine)
    data_dir: Path | None = None  # where named sets lie
    ifc: bool = False
    stages: bool = False  # also every prediction on the way to a network's last
    crops: bool = False  # also where a network gains most and least
    gray_as_rgb: bool = False  # convert grey pictures to studio range, as RGB ones
    seed: int = 0  # of the noise of "dn"; every picture draws its own
    save_images: Path | None = None
    overwrite: bool = False  # replace saved images


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """The figures after one stage of a network."""

    psnr: float  # dB
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureResult:
    """One picture's figures."""

    image: str
    psnr: float  # dB
    ssim: float
    ifc: float | None
    seconds: float
    stages: tuple[StageResult, ...] = ()  # the last one's are the picture's own


def measure_picture(
    name: str,
    hr: NDArray[np.uint8],
    task: Task,
    runner: Runner | None,
    *,
    ifc: bool = False,
) -> tuple[PictureResult, Reconstruction]:
    """One picture's figures, and the enlarged picture with its luma.

    Where the network returns several pictures they are stages, of which the last one
    is the result.

    Args:
        name: Of the picture.
        hr: (H, W) grey or (H, W, 3) RGB; cut to a multiple of the scale.
        task: Protocol, scale and degradation.
        runner: Of a network that fits the protocol; None is bicubic.
        ifc: Measure the information fidelity too.

    Raises:
        InputError: If the picture is too small to be measured.
    """
    border = task.scale
    made = reconstruct(crop_to_multiple(hr, task.scale), task, runner)
    stages = tuple(_measure_stage(each, border) for each in made)
    last = made[-1]
    result = PictureResult(
        image=name,
        psnr=stages[-1].psnr,
        ssim=stages[-1].ssim,
        ifc=metrics.ifc(last.luma, last.reference, border) if ifc else None,
        seconds=last.seconds,
        stages=stages if len(stages) > 1 else (),
    )
    return result, last


def _measure_stage(made: Reconstruction, border: int) -> StageResult:
    pair = (made.luma, made.reference)
    return StageResult(
        psnr=metrics.psnr(*pair, border=border), ssim=metrics.ssim(*pair, border=border)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on one data set at one scale: the means over its pictures."""

    dataset: str
    scale: int
    degradation: Degradation
    protocol: Protocol
    model: str
    ensemble: bool = False
    device: str | None = None  # where the last picture was enlarged; None for bicubic
    precision: str | None = None
    parameters: int | None = None  # None for bicubic
    macs_720p: int | None = None  # multiply-accumulates for an output of 1280x720
    paper: PublishedResult | None = None
    stage_names: tuple[str, ...] = ()  # of `stages`
    stage_weights: tuple[float, ...] = ()  # of `stages`, their sum last; may be none
    pictures: tuple[PictureResult, ...]
    most: tuple[Crop, ...] = ()  # where it gains most over bicubic
    least: tuple[Crop, ...] = ()  # and where least

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return fmean(picture.psnr for picture in self.pictures)

    @property
    def ssim(self) -> float:
        """Mean SSIM."""
        return fmean(picture.ssim for picture in self.pictures)

    @property
    def ifc(self) -> float | None:
        """Mean IFC, or None if it was not asked for."""
        values = [picture.ifc for picture in self.pictures if picture.ifc is not None]
        return fmean(values) if values else None

    @property
    def stages(self) -> tuple[StageResult, ...]:
        """Means after each stage of the network; none if not asked for or not there."""
        every = zip(*(picture.stages for picture in self.pictures), strict=True)
        return tuple(
            StageResult(
                psnr=fmean(stage.psnr for stage in stages),
                ssim=fmean(stage.ssim for stage in stages),
            )
            for stages in every
        )

    @property
    def seconds(self) -> float:
        """Mean time of the enlargement alone, transfers to the device included."""
        return fmean(picture.seconds for picture in self.pictures)

    def difference(self, metric: Metric) -> float | None:
        """Ours less the paper's, or None where one of them is missing."""
        ours, theirs = getattr(self, metric), getattr(self.paper, metric, None)
        return None if ours is None or theirs is None else ours - theirs


@dataclass(frozen=True, slots=True)
class _Group:
    """A data set at one scale, and who is measured on it."""

    dataset: Dataset
    scale: int
    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    contenders: tuple[Contender, ...]


def run_benchmark(
    request: BenchmarkRequest,
    progress: Progress = SILENT,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Every row of the table; bicubic comes first for each data set and scale.

    Everything that can be checked (names, folders, weights, the device, pictures that
    would be replaced) is checked before the first picture is enlarged.

    Args:
        request: What to measure.
        progress: Told of every picture.
        on_row: Called with every row as soon as it is complete.

    Raises:
        UsageError: For unknown or contradictory names, scales or settings.
        InputError: If a data set or picture is missing, unreadable or too small.
        OutputError: If a picture to save exists or cannot be written.
        WeightsError: If weights are missing or damaged.
        DeviceError: If the device is absent.
    """
    groups = _plan(request)
    rows = []
    for group in groups:
        for contender in group.contenders:
            row = _measure(request, group, contender, progress)
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return rows


def _plan(request: BenchmarkRequest) -> list[_Group]:
    """All the work, checked."""
    found = [find_dataset(name, request.data_dir) for name in request.datasets]
    contenders = prepare_contenders(
        request.selection, request.engine, stages=request.stages
    )
    scales = tuple(dict.fromkeys(contender.scale for contender in contenders))
    groups = []
    for dataset in dict.fromkeys(found):
        for scale in scales:
            paths = dataset.pictures(scale)
            labels = label_pictures(paths, dataset.folder)
            here = tuple(c for c in contenders if c.scale == scale)
            groups.append(_Group(dataset, scale, paths, labels, here))
        if dataset.published_count not in (None, len(paths)):
            log.warning(
                "%s in %s has %d pictures, the published set %d",
                dataset.name, dataset.folder, len(paths), dataset.published_count,
            )  # fmt: skip
    _check_outputs(request, groups)
    return groups


def _check_outputs(request: BenchmarkRequest, groups: list[_Group]) -> None:
    """Refuse two models under one name, and pictures that exist already.

    Raises:
        UsageError: If two data sets would be shown, and saved, under one name.
        OutputError: If a picture exists and may not be replaced.
    """
    folders: dict[str, Path] = {}
    for group in groups:
        name, folder = group.dataset.name, group.dataset.folder
        if folders.setdefault(name, folder) != folder:
            raise UsageError(
                f"{folders[name]} and {folder} would both be called {name}:"
                " rename one, or measure one at a time"
            )
    if request.save_images is None:
        return
    for group in groups:
        for contender in group.contenders:
            for label in group.labels:
                path = _place(request, request.save_images, group, contender, label)
                try:
                    exists = path.exists()
                except OSError as error:  # a name that is too long, for one
                    raise OutputError(
                        f"cannot write {show_path(path)}: {error.strerror}"
                    ) from error
                if exists and not request.overwrite:
                    raise OutputError(
                        f"{show_path(path)} exists: use --overwrite or save to "
                        "another folder"
                    )


def _place(
    request: BenchmarkRequest,
    folder: Path,
    group: _Group,
    contender: Contender,
    label: str,
) -> Path:
    """Where an enlarged picture is saved."""
    degradation = request.selection.degradation
    suffix = "" if degradation == "bi" else f"_{degradation}"
    size = f"x{group.scale}{suffix}"
    return folder / group.dataset.name / size / contender.name / f"{label}.png"


def _measure(
    request: BenchmarkRequest, group: _Group, contender: Contender, progress: Progress
) -> Row:
    """One contender on every picture of a group."""
    title = f"{show_path(group.dataset.name)} x{group.scale} {contender.name}"
    progress.start(title, len(group.paths))
    results = []
    showcase = Showcase()
    for index, (path, label) in enumerate(zip(group.paths, group.labels, strict=True)):
        result, picture = _measure_picture(
            request, contender, path, label, index, showcase
        )
        if request.save_images is not None:
            _save(
                picture, _place(request, request.save_images, group, contender, label)
            )
        results.append(result)
        progress.advance()
        progress.note(f"{result.psnr:.2f} dB")
    degradation = cast(Degradation, request.selection.degradation)
    stats = contender.runner.stats if contender.runner else None
    most, least = showcase.draw()
    return Row(
        dataset=show_path(group.dataset.name),
        scale=group.scale,
        degradation=degradation,
        protocol=contender.protocol,
        model=show_path(contender.name),
        ensemble=contender.ensemble,
        device=stats.device if stats else None,
        precision=stats.precision if stats else None,
        parameters=contender.parameters,
        macs_720p=contender.macs,
        paper=_find_published(contender, group, degradation),
        stage_names=contender.stages,
        stage_weights=contender.stage_weights,
        pictures=tuple(results),
        most=most,
        least=least,
    )


def _measure_picture(
    request: BenchmarkRequest,
    contender: Contender,
    path: Path,
    label: str,
    index: int,
    showcase: Showcase,
) -> tuple[PictureResult, NDArray[np.uint8]]:
    """One picture's figures, and the enlarged picture; networks show their crops."""
    hr = read_hr(path)
    if request.gray_as_rgb and hr.ndim == 2:
        hr = np.repeat(hr[:, :, None], 3, axis=2)
    task = Task(
        contender.protocol,
        contender.scale,
        cast(Degradation, request.selection.degradation),
        request.seed + index,
    )
    try:
        result, made = measure_picture(
            show_path(label), hr, task, contender.runner, ifc=request.ifc
        )
    except InputError as error:
        raise InputError(f"{show_path(path)}: {error}") from error
    if request.crops and contender.runner is not None:
        showcase.offer(show_path(label), hr, task, made)
    return result, made.picture


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an enlarged picture, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    make_folder(path.parent)
    shaped = pixels[:, :, None] if pixels.ndim == 2 else pixels
    write_picture(Picture(shaped), path)


def _find_published(
    contender: Contender, group: _Group, degradation: Degradation
) -> PublishedResult | None:
    """What the papers print for a contender on a group."""
    printed: str = degradation
    if contender.name == BICUBIC and degradation == "bd-bicubic":
        printed = "bd"  # the paper's bicubic row is of this kind, see imaging.degrade
    return lookup(contender.name, group.dataset.name, group.scale, printed)
