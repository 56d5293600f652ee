"""The choice of networks: which one makes which pass over a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srcli.errors import UsageError, WeightsError, unknown
from srcli.inference.sizes import DEFAULT_SCALE, plan_steps
from srcli.models import variant_names
from srcli.models.base import SRModel
from srcli.pretrained.catalog import (
    BICUBIC,
    DEGRADATIONS,
    ORDINARY,
    SCALES,
    find_entry,
    find_nearest,
    is_weight_file,
    served_scales,
)
from srcli.pretrained.loading import load_model, read_file
from srcli.pretrained.weight_file import read_degradation


@dataclass(frozen=True, slots=True)
class Choice:
    """The networks that enlarge pictures; `choose` makes it.

    The first pass over a picture is by weights for its degradation. Then it is clean,
    and a second such pass would smear it: what is left to do is done by the ordinary
    weights of the same network.

    Attributes:
        model: A name of the catalogue in lower case, "bicubic", a weight file, or a
            network.
        degradation: What the pictures suffered: "bi", "bd" or "dn".
        family: The catalogue's name whose ordinary weights follow; None is none.
        scales: What the first pass can be; for names, whether installed or not.
        network: What makes the first pass, but for names.
    """

    model: str | Path | SRModel
    degradation: str
    family: str | None
    scales: tuple[int, ...]
    network: SRModel | None = None

    @property
    def name(self) -> str:
        """The model's name, or that of its file or network."""
        if isinstance(self.model, SRModel):
            return self.model.arch
        return self.model.stem if isinstance(self.model, Path) else self.model

    @property
    def default_scale(self) -> float:
        """The factor where none is given: 4, or else the most that one pass does."""
        is_possible = DEFAULT_SCALE in self._known_scales
        return DEFAULT_SCALE if is_possible else float(max(self.scales))

    @property
    def _known_scales(self) -> tuple[int, ...]:
        """What may be asked of the first pass: of a name, also what it lacks."""
        is_ordinary_name = self.network is None and self.degradation == ORDINARY
        return SCALES if is_ordinary_name else self.scales

    def first_scales(self, factor: float | None) -> tuple[int, ...]:
        """What the first pass can be with the weights that are there.

        A factor that was asked for and is a scale of the model is the only one: where
        its weights are missing, loading says what to do. None is any.
        """
        if self.network is not None:
            return self.scales
        if factor in self._known_scales:
            return (int(factor),)
        here = served_scales(self.name, self.degradation, installed=True)
        return here or self._known_scales

    def plan(self, factor: float, *, asked: bool) -> tuple[int, ...]:
        """The scales of the passes that enlarge by at least `factor`.

        Args:
            factor: From 1 to `MAX_FACTOR`.
            asked: Whether this factor was asked for, or follows from a size.

        Raises:
            UsageError: If no combination reaches `factor`.
        """
        if self.model == BICUBIC:
            return ()
        first = self.first_scales(factor if asked else None)
        if self.degradation == ORDINARY:
            return plan_steps(factor, first)
        later: tuple[int, ...] = ()
        if self.family is not None:
            later = served_scales(self.family, installed=True) or SCALES
        return plan_steps(factor, later, first)

    def serves(self, position: int) -> str:
        """The degradation that the pass at `position`, from 0, has weights for."""
        return ORDINARY if position else self.degradation

    def label(self, position: int) -> str:
        """What makes the pass at `position`: "rrrn dn", and from the second on "rrrn".

        A weight file is called after itself, whatever it is for.
        """
        if self.degradation == ORDINARY:
            return self.name
        if position:
            return self.family or self.name
        is_file = isinstance(self.model, Path)
        return self.name if is_file else f"{self.name} {self.degradation}"

    def load(self, scale: int, degradation: str) -> SRModel:
        """The network for a pass.

        Raises:
            WeightsError: If the weights are missing or damaged.
        """
        if degradation == self.degradation:
            if self.network is not None:
                return self.network
            return load_model(self.name, scale, degradation=degradation)
        family = self.family or self.name
        if not served_scales(family):
            most = max(self.scales)
            raise WeightsError(
                f"{self.label(0)} makes the first pass, x{most}; enlarging further "
                f"needs ordinary {family} weights, which are not here: "
                f"use -x {most} or less"
            )
        return load_model(family, scale)


def choose(
    model: str | Path | SRModel,
    weights: Path | None = None,
    degradation: str | None = None,
) -> Choice:
    """What enlarges, from what a user says of it.

    Args:
        model: A name of the catalogue, "bicubic", a weight file, or a network.
        weights: A weight file instead.
        degradation: What the pictures suffered; None is what the weight file is for,
            else "bi".

    Raises:
        UsageError: If a name is unknown, or the weight file is for another degradation.
        WeightsError: If the file cannot be read, or the model has no weights for the
            degradation.
    """
    degradation = degradation and degradation.lower()
    if degradation not in (None, *DEGRADATIONS):
        raise unknown("degradation", degradation, DEGRADATIONS)
    model = model if weights is None else weights
    if isinstance(model, str) and not is_weight_file(model):
        return _choose_name(model.lower(), degradation or ORDINARY)
    if isinstance(model, SRModel):
        network = model
    else:
        model = Path(model)
        network, said = read_file(model), read_degradation(model)
        made_for = said and find_nearest(said)
        if None not in (degradation, made_for) and made_for != degradation:
            raise UsageError(
                f"{model} is for degradation {made_for}, not {degradation}: leave "
                f"{degradation} out, or choose another file"
            )
        degradation = degradation or made_for
    family = network.arch if network.arch in variant_names() else None
    scales = network.config.scales
    return Choice(model, degradation or ORDINARY, family, scales, network)


def _choose_name(model: str, degradation: str) -> Choice:
    if model != BICUBIC:
        find_entry(model, None, degradation)  # or an error that says what to do
        return Choice(model, degradation, model, served_scales(model, degradation))
    if degradation != ORDINARY:
        raise UsageError(
            f"bicubic is the same for every degradation: leave {degradation} out, "
            "or choose a network"
        )
    return Choice(model, degradation, None, ())
