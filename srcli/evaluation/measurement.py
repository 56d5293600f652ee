"""Networks measured on data sets, beside bicubic and the papers' own numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
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
from srcli.evaluation.crops import Crop, CropRanking
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
from srcli.units import format_count
from srcli.writing import check_name, make_folder

log = logging.getLogger(__name__)

Metric = Literal["psnr", "ssim", "ifc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """A request: the models and data sets to measure, and the settings for it."""

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
        stages = []
        for each in zip(*(picture.stages for picture in self.pictures), strict=True):
            psnr, ssim = fmean(s.psnr for s in each), fmean(s.ssim for s in each)
            stages.append(StageResult(psnr=psnr, ssim=ssim))
        return tuple(stages)

    @property
    def seconds(self) -> float:
        """Mean time of the enlargement alone, transfers to the device included."""
        return fmean(picture.seconds for picture in self.pictures)

    def difference(self, metric: Metric) -> float | None:
        """Ours less the paper's, or None where one of them is missing."""
        ours, theirs = getattr(self, metric), getattr(self.paper, metric, None)
        return None if ours is None or theirs is None else ours - theirs


@dataclass(frozen=True, slots=True)
class _RowPlan:
    """One row to measure: who, and on what."""

    dataset: Dataset
    contender: Contender
    pictures: dict[str, Path]  # by their labels
    folder: Path  # where enlarged pictures are saved, if at all

    def place(self, label: str) -> Path:
        """Where an enlarged picture is saved."""
        return self.folder / f"{label}.png"


def run_benchmark(
    request: BenchmarkRequest,
    progress: Progress = SILENT,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Every row of the table; bicubic comes first for each data set and scale.

    Everything that can be checked (names, folders, weights, the device, pictures that
    would be replaced) is checked before the first picture is enlarged.

    Rows are also given to `on_row`, each as soon as it is complete.

    Raises:
        UsageError: For unknown or contradictory names, scales or settings.
        InputError: If a data set or picture is missing, unreadable or too small.
        OutputError: If a picture to save exists or cannot be written.
        WeightsError: If weights are missing or damaged.
        DeviceError: If the device is absent.
    """
    plans = _plan(request)
    rows = []
    for plan in plans:
        rows.append(_measure(request, plan, progress))
        if on_row is not None:
            on_row(rows[-1])
    return rows


def _plan(request: BenchmarkRequest) -> list[_RowPlan]:
    """All the work, checked."""
    found = [find_dataset(name, request.data_dir) for name in request.datasets]
    chosen = request.selection
    contenders = prepare_contenders(chosen, request.engine, stages=request.stages)
    kind = "" if chosen.degradation == "bi" else f"_{chosen.degradation}"
    folders: dict[str, Path] = {}
    plans = []
    for dataset in dict.fromkeys(found):
        name, folder = dataset.name, dataset.folder
        if folders.setdefault(name, folder) != folder:
            raise UsageError(
                f"{folders[name]} and {folder} would both be called {name}:"
                " rename one, or measure one at a time"
            )
        for scale, together in groupby(contenders, lambda each: each.scale):
            paths = dataset.pictures(scale)
            pictures = dict(zip(label_pictures(paths, folder), paths, strict=True))
            for contender in together:
                save = (request.save_images or Path()) / name / f"x{scale}{kind}"
                plans.append(
                    _RowPlan(dataset, contender, pictures, save / contender.name)
                )
        if dataset.published_count not in (None, len(paths)):
            log.warning(
                "%s in %s has %s, the published set %d",
                name, folder, format_count(len(paths), "picture"),
                dataset.published_count,
            )  # fmt: skip
    for plan in plans if request.save_images else ():
        for place in map(plan.place, plan.pictures):
            check_name(place)
            if os.path.exists(place) and not request.overwrite:  # noqa: PTH110
                raise OutputError(
                    f"{show_path(place)} exists: use --overwrite or save to another "
                    "folder"
                )
    return plans


def _measure(request: BenchmarkRequest, plan: _RowPlan, progress: Progress) -> Row:
    """One contender on every picture of a data set."""
    contender, dataset = plan.contender, show_path(plan.dataset.name)
    degradation = cast(Degradation, request.selection.degradation)
    progress.start(f"{dataset} x{contender.scale} {contender.name}", len(plan.pictures))
    results, ranking = [], CropRanking()
    for index, (label, path) in enumerate(plan.pictures.items()):
        hr = read_hr(path)
        if request.gray_as_rgb and hr.ndim == 2:
            hr = np.repeat(hr[:, :, None], 3, axis=2)
        seed = request.seed + index
        task = Task(contender.protocol, contender.scale, degradation, seed)
        try:
            result, made = _measure_picture(
                show_path(label), hr, task, contender.runner, request.ifc
            )
        except InputError as error:
            raise InputError(f"{show_path(path)}: {error}") from error
        if request.crops and contender.runner is not None:
            ranking.offer(result.image, hr, task, made)
        if request.save_images is not None:
            make_folder(plan.place(label).parent)
            write_picture(Picture(np.atleast_3d(made.picture)), plan.place(label))
        results.append(result)
        progress.advance()
        progress.note(f"{result.psnr:.2f} dB")
    stats = contender.runner.stats if contender.runner else None
    most, least = ranking.draw()
    printed: str = degradation
    if contender.name == BICUBIC and degradation == "bd-bicubic":
        printed = "bd"  # the paper's bicubic row is of this kind, see imaging.degrade
    return Row(
        dataset=dataset,
        scale=contender.scale,
        degradation=degradation,
        protocol=contender.protocol,
        model=show_path(contender.name),
        ensemble=contender.ensemble,
        device=stats.device if stats else None,
        precision=stats.precision if stats else None,
        parameters=contender.parameters,
        macs_720p=contender.macs,
        paper=lookup(contender.name, plan.dataset.name, contender.scale, printed),
        stage_names=contender.stages,
        stage_weights=contender.stage_weights,
        pictures=tuple(results),
        most=most,
        least=least,
    )


def _measure_picture(
    name: str, hr: NDArray[np.uint8], task: Task, runner: Runner | None, ifc: bool
) -> tuple[PictureResult, Reconstruction]:
    """One picture's figures, and what was made of it.

    Where the network returns several pictures they are its stages.
    """
    border = task.scale
    made = reconstruct(crop_to_multiple(hr, task.scale), task, runner)
    stages = tuple(
        StageResult(
            psnr=metrics.psnr(each.luma, each.reference, border),
            ssim=metrics.ssim(each.luma, each.reference, border),
        )
        for each in made
    )
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
