"""Who is measured: at each scale bicubic, then the networks that were asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
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
    """How networks are run; the fields are those of `Runner`."""

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
    """What was asked for.

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

    Args:
        selection: Models, scales, degradation and protocol.
        engine: How networks are run.
        stages: Have networks return every prediction that they make.

    Raises:
        UsageError: For unknown or contradictory names, scales or settings, or if
            stages are asked for and no network has any.
        WeightsError: If weights are missing or damaged.
        DeviceError: If the device is absent.
    """
    asked, degradation = selection.protocol, selection.degradation
    # Also where bicubic alone needs none of it.
    choose_precision(engine.precision, choose_device(engine.device))
    check_tiling(engine.tile, engine.overlap)
    scales, networks = _load_networks(selection)
    staged = _name_all_stages(networks) if stages else {}
    contenders = []
    for scale in scales:
        protocol = choose_protocol(asked, None, degradation)
        contenders.append(Contender(name=BICUBIC, scale=scale, protocol=protocol))
        for name, at, network in networks:
            if at == scale:
                try:
                    protocol = choose_protocol(asked, network.color, degradation)
                except UsageError as error:
                    raise UsageError(f"{name}: {error}") from error
                names = staged.get((name, scale), ())
                ready = _make_ready(name, scale, network, protocol, engine, names)
                contenders.append(ready)
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
    return scales, [
        *ours,
        *((name, network.resolve_scale(scale), network) for scale in scales),
    ]


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
    for name in (name.lower() for name in selection.models or (DEFAULT_MODEL,)):
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
        at = ", ".join(f"x{scale}" for scale in scales)
        raise WeightsError(
            f"no model has weights here for {at}, degradation {degradation}:"
            " `srcli download --list` shows what can be fetched"
        )
    return found


def _name_network(network: SRModel, selection: Selection) -> str:
    """What the network of a weight file is called."""
    named = [name.lower() for name in selection.models or ()]
    named = [name for name in named if name != BICUBIC]
    if len(named) > 1 or ALL in named:
        raise UsageError(
            f"{selection.weights} is one network: name one model,"
            f" not {', '.join(named)}"
        )
    for name in named:
        if variant(name)[0].arch != network.arch:
            raise UsageError(
                f"{selection.weights} holds a {network.arch} network, not {name}:"
                f" use -m {network.arch} or leave it out"
            )
        return name
    own, variants = network.config, type(network).variants.items()
    exact = [name for name, config in variants if config == own]
    elsewhere = [n for n, each in variants if replace(each, scales=own.scales) == own]
    return next(iter((*exact, *elsewhere, network.arch)))


def _name_all_stages(
    networks: list[tuple[str, int, SRModel]],
) -> dict[tuple[str, int], tuple[str, ...]]:
    """What the stages of every network, by name and scale, are called."""
    found = {
        (name, scale): name_stages(network, scale) for name, scale, network in networks
    }
    without = list(dict.fromkeys(n for (n, _), names in found.items() if not names))
    if not any(found.values()):
        raise UsageError(
            f"{', '.join(without) or BICUBIC}: no stages to show,"
            f" choose {' or '.join(list_staged())} or leave out --stages"
        )
    for name in without:
        log.info("%s makes a single prediction: it is shown without stages", name)
    return found


def _make_ready(
    name: str,
    scale: int,
    network: SRModel,
    protocol: Protocol,
    engine: Engine,
    stages: tuple[str, ...],
) -> Contender:
    """The network on its device, run once."""
    runner = Runner(
        Staged(network) if stages else network,
        scale,
        device=engine.device,
        precision=engine.precision,
        tile=engine.tile,
        overlap=engine.overlap,
        ensemble=engine.ensemble,
    )
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
        stages=stages,
        stage_weights=weigh_stages(network) if stages else (),
    )
