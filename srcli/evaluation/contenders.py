"""The models that are measured: at each scale bicubic, then the networks asked for."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from srcli.errors import UsageError, WeightsError, unknown
from srcli.evaluation.protocol import Protocol, choose_protocol
from srcli.evaluation.stages import Staged, list_staged, name_stages, weigh_stages
from srcli.imaging.degrade import BD_SCALE, check_degradation
from srcli.inference.device import choose_device, choose_precision
from srcli.inference.runner import Runner
from srcli.inference.tiling import Overlap, TileSize, check_tiling
from srcli.models import MODELS, variant
from srcli.models.base import SRModel
from srcli.models.counting import count_macs, count_parameters
from srcli.pretrained.catalog import (
    BICUBIC,
    ORDINARY,
    SCALES,
    find_nearest,
    model_names,
    name_task,
    served_scales,
)
from srcli.pretrained.community import CommunityNetwork
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import read_degradation

log = logging.getLogger(__name__)

ALL = "all"
DEFAULT_MODEL = "mrnet"
_WARM_UP = 8  # LR pixels a side; the first run pays for what later ones do not


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Settings that networks are run with; the fields are those of `Runner`."""

    device: str = "auto"
    precision: str = "auto"
    tile: TileSize = "auto"
    overlap: Overlap = "auto"
    ensemble: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A network at one scale, or bicubic, ready to run."""

    name: str
    scale: int
    protocol: Protocol
    runner: Runner | None = None  # None for bicubic
    ensemble: bool = False
    parameters: int | None = None  # None for bicubic
    macs: int | None = None  # for an output of 1280x720
    stages: tuple[str, ...] = ()  # what its runner returns, one after the other
    stage_weights: tuple[float, ...] = ()  # see `weigh_stages`


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The models, scales and degradation that were asked for.

    Attributes:
        models: Names, "bicubic" or "all" (every network whose weights are here); None
            is `DEFAULT_MODEL`, or the network of `weights` where that is one of ours.
        scales: None is every scale that `weights` serves, else all of them, and for
            other degradations than "bi" the papers' x3 where it can be had.
        degradation: One of `DEGRADATIONS`; see `choose_degradation`.
        protocol: "auto", "y" or "rgb".
        weights: Measure this file: instead of the catalogue's, or beside them where
            its network is none of ours.
    """

    models: tuple[str, ...] | None = None
    scales: tuple[int, ...] | None = None
    degradation: str = ORDINARY
    protocol: str = "auto"
    weights: Path | None = None


def choose_degradation(asked: str | None, weights: Path | None) -> str:
    """The degradation to measure.

    Args:
        asked: What a user named; None is what `weights` are for, else "bi".
        weights: The file that is measured. Another degradation than its own is a test
            like any other, but one that is pointed out.

    Raises:
        WeightsError: If the file cannot be read.
    """
    said = None if weights is None else read_degradation(weights)
    if asked is None:
        return said or ORDINARY
    if said is not None and find_nearest(said) != find_nearest(asked):
        log.warning("%s is for %s: it is measured on %s", weights, said, asked)
    return asked


def prepare_contenders(
    selection: Selection, engine: Engine, *, stages: bool = False
) -> tuple[Contender, ...]:
    """Everyone who is measured, by scale and, within a scale, bicubic first.

    With `stages`, networks return every prediction that they make.

    Raises:
        UsageError: For unknown or contradictory names, scales or settings, or if
            stages are asked for and no network has any.
        WeightsError: If weights are missing or damaged.
        DeviceError: If the device is absent.
    """
    asked = selection.protocol
    # Also where bicubic alone needs none of it.
    choose_precision(engine.precision, choose_device(engine.device))
    check_tiling(engine.tile, engine.overlap)
    scales, networks = _load_networks(selection)
    contenders = []
    for scale in scales:
        protocol = choose_protocol(asked, None, selection.degradation)
        contenders.append(Contender(name=BICUBIC, scale=scale, protocol=protocol))
        for name, at, network in networks:
            if at == scale:
                try:
                    kind = network.color, selection.degradation
                    protocol = choose_protocol(asked, *kind)
                except UsageError as error:
                    raise UsageError(f"{name}: {error}") from error
                ready = _make_ready(name, scale, network, protocol, engine, stages)
                contenders.append(ready)
    if stages:
        _check_stages(contenders)
    return tuple(contenders)


def _load_networks(
    selection: Selection,
) -> tuple[tuple[int, ...], list[tuple[str, int, SRModel]]]:
    """The scales to measure at; name, scale and network of everyone but bicubic."""
    if selection.weights is None:
        scales = _resolve_scales(selection, SCALES)
        return scales, _load_trained(selection, scales)
    network = load_model(selection.weights)
    scales = _resolve_scales(selection, network.config.scales)
    ours: list[tuple[str, int, SRModel]] = []
    if network.arch in MODELS:
        name = _name_network(network, selection)
    else:
        # By the file's whole name, which no network of ours or of a paper has.
        name = selection.weights.name
        if selection.models is not None or selection.degradation == ORDINARY:
            ours = _load_trained(selection, scales)
    measured = [(name, network.resolve_scale(scale), network) for scale in scales]
    return scales, ours + measured


def _resolve_scales(selection: Selection, served: tuple[int, ...]) -> tuple[int, ...]:
    """The scales to measure at, each once."""
    scales = selection.scales
    if scales is None:
        usual = SCALES if selection.degradation == ORDINARY else (BD_SCALE,)
        scales = tuple(scale for scale in usual if scale in served) or served
    for scale in scales:
        if scale not in SCALES:
            raise UsageError(f"benchmarks are run at x2, x3 and x4, not x{scale}")
        check_degradation(selection.degradation, scale)
    return tuple(dict.fromkeys(scales))


def _load_trained(
    selection: Selection, scales: tuple[int, ...]
) -> list[tuple[str, int, SRModel]]:
    """Name, scale and network of everyone in the catalogue that was asked for."""
    wanted: dict[tuple[str, int], None] = {}
    for name in map(str.lower, selection.models or (DEFAULT_MODEL,)):
        if name == ALL:
            wanted |= dict.fromkeys(_list_installed(scales, selection.degradation))
        elif name in model_names():
            wanted |= dict.fromkeys((name, scale) for scale in scales)
        elif name != BICUBIC:
            listed = f"{', '.join(MODELS)}, {BICUBIC}, {ALL} (`srcli models --all`)"
            raise unknown("model", name, (*model_names(), BICUBIC, ALL), listed)
    return [
        (name, scale, load_model(name, scale, degradation=selection.degradation))
        for name, scale in wanted
    ]


def _list_installed(scales: tuple[int, ...], degradation: str) -> list[tuple[str, int]]:
    """Every model and scale, of `scales`, whose weights are here."""
    found = []
    for name in model_names():
        here = served_scales(name, degradation, installed=True)
        found += [(name, scale) for scale in scales if scale in here]
        missing = [f"x{scale}" for scale in scales if scale not in here]
        if here and missing:
            log.info("%s is left out at %s: no weights", name, ", ".join(missing))
    if not found:
        raise WeightsError(
            f"no model has weights here for {name_task(scales, degradation)}:"
            " `srcli download --list` shows what can be fetched"
        )
    return found


def _name_network(network: SRModel, selection: Selection) -> str:
    """What the network of a weight file is called."""
    named = [n for n in map(str.lower, selection.models or ()) if n != BICUBIC]
    if len(named) > 1 or ALL in named:
        raise UsageError(
            f"{selection.weights} is one network: name one model,"
            f" not {', '.join(named)}"
        )
    if named:
        if variant(named[0])[0].arch != network.arch:
            raise UsageError(
                f"{selection.weights} holds a {network.arch} network, not {named[0]}:"
                f" use -m {network.arch} or leave it out"
            )
        return named[0]
    own, variants = network.config, type(network).variants
    alike = [
        n for n, each in variants.items() if replace(each, scales=own.scales) == own
    ]
    exact = [name for name in alike if variants[name] == own]
    return (*exact, *alike, network.arch)[0]


def _make_ready(
    name: str,
    scale: int,
    network: SRModel,
    protocol: Protocol,
    engine: Engine,
    stages: bool,
) -> Contender:
    """The network on its device, run once."""
    names = name_stages(network, scale) if stages else ()
    runner = Runner(Staged(network) if names else network, scale, **asdict(engine))
    runner.enlarge(torch.zeros(network.channels, _WARM_UP, _WARM_UP))
    return Contender(
        name=name,
        scale=scale,
        protocol=protocol,
        runner=runner,
        ensemble=engine.ensemble,
        parameters=count_parameters(network),
        macs=network.count_macs()
        if isinstance(network, CommunityNetwork)
        else count_macs(network, scale),
        stages=names,
        stage_weights=weigh_stages(network) if names else (),
    )


def _check_stages(contenders: list[Contender]) -> None:
    """Refuse to show stages where nobody has any."""
    without = {c.name: None for c in contenders if c.runner and not c.stages}
    if not any(contender.stages for contender in contenders):
        others = [name for name in list_staged() if name not in without]
        choice = f"choose {' or '.join(others)} or " if others else ""
        raise UsageError(
            f"{', '.join(without) or BICUBIC}: no stages to show, "
            f"{choice}leave out --stages"
        )
    for name in without:
        log.info("%s makes a single prediction: it is shown without stages", name)
