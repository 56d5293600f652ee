"""Where weights come from: the run, its recipe, and what is said of its pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from srcli.errors import InputError, UsageError, WeightsError
from srcli.imaging.degrade import check_degradation
from srcli.models import variant
from srcli.models.base import SRModel
from srcli.models.counting import count_parameters
from srcli.pretrained.catalog import read_weights
from srcli.pretrained.metadata import read_degradation, read_metadata
from srcli.pretrained.purpose import ORDINARY
from srcli.training.recipe import NAMES, UNSTATED, Recipe, load_recipe
from srcli.training.teacher import TeacherFacts, describe_facts, read_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a person says of what was learned from; None leaves it to the run."""

    data: str | None = None
    data_licence: str | None = None
    teacher_licence: str | None = None

    @classmethod
    def from_overrides(cls, overrides: Mapping[str, Any]) -> Self:
        """The words among the fields that `--set` gives.

        Raises:
            UsageError: If there are other fields, or a word is no text.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name, value in overrides.items():
            if name not in known or not isinstance(value, str):
                raise UsageError(
                    "an export trains nothing: of --set it takes data='...', "
                    "data_licence='...' and teacher_licence='...'"
                )
        return cls(**overrides)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """A weight file of `srcli train`, and what it says of its training."""

    path: Path
    network: SRModel
    metadata: dict[str, str]  # all of it
    model: str  # the variant that was trained
    degradation: str
    recipe: dict[str, Any]
    recipe_hash: str
    steps: int
    teachers: tuple[TeacherFacts, ...]

    @property
    def file_name(self) -> str:
        """What the file is called beside the code."""
        return name_file(self.model, self.network.config.scales, self.degradation)


def name_file(model: str, scales: Sequence[int], degradation: str) -> str:
    """What a weight file is called beside the code: model[_xS][_degradation]."""
    parts = [model]
    if len(scales) == 1:
        parts.append(f"x{scales[0]}")
    if degradation != ORDINARY:
        parts.append(degradation)
    return f"{'_'.join(parts)}.safetensors"


def describe_network(network: SRModel) -> dict[str, Any]:
    """The fields of a manifest entry that the network decides."""
    return {
        "arch": network.arch,
        "scales": network.config.scales,
        "config": json.loads(json.dumps(network.config.as_dict())),  # no tuples
        "parameters": count_parameters(network),
    }


def has_weights(folder: Path) -> bool:
    """Whether a run has left weights in its folder.

    Raises:
        InputError: If the folder cannot be looked into.
    """
    return any(_list_weights(folder))


def find_weights(folder: Path) -> Path:
    """The weight file that stands for a run: the best, or without validation the last.

    Raises:
        InputError: If the folder holds none.
    """
    for path in _list_weights(folder):
        return path
    raise InputError(
        f"no weights in {folder}: --out names the folder of a run that has some"
    )


def _list_weights(folder: Path) -> list[Path]:
    names = ("best.safetensors", "last.safetensors")
    try:
        return [folder / name for name in names if (folder / name).is_file()]
    except OSError as error:
        raise InputError(f"cannot look into {folder}: {error.strerror}") from error


def read_trained(path: Path) -> TrainedWeights:
    """A weight file of `srcli train` with what it says of its training.

    Raises:
        WeightsError: If it is missing, damaged, or says too little.
    """
    network, metadata = read_weights(path), read_metadata(path)
    try:
        recipe = json.loads(metadata["recipe"])
        model, degradation = recipe["model"], read_degradation(metadata) or ORDINARY
        if variant(model)[0].arch != network.arch:
            raise UsageError(f"a recipe of {model} for a network of {network.arch}")
        for scale in network.config.scales:
            check_degradation(degradation, scale)
        return TrainedWeights(
            path=path,
            network=network,
            metadata=metadata,
            model=model.lower(),
            degradation=degradation,
            recipe=recipe,
            recipe_hash=metadata["recipe_hash"],
            steps=int(metadata["steps"]),
            teachers=read_facts(metadata),
        )
    except (KeyError, ValueError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(
            f"{path} does not say how it was trained ({error}): "
            "`srcli train` writes files that do"
        ) from error


def describe_pictures(
    trained: TrainedWeights, provenance: Provenance, *, of_recipe: bool
) -> tuple[str, str]:
    """What the manifest says of the training pictures: which they are, and their terms.

    First comes what the weight file knows for certain, how many there were and their
    fingerprint; then the words of `provenance`, else the recipe's. What a recipe that
    comes with srcli says holds for the data sets that it names only, not for folders
    of the user's.

    Args:
        trained: The weights.
        provenance: A person's words.
        of_recipe: Whether the pictures were the data sets that the recipe names.
    """
    words = {
        name: getattr(provenance, name)
        or _recall_word(trained, name, of_recipe=of_recipe)
        for name in ("data", "data_licence")
    }
    counted = trained.metadata.get("data")
    data = ": ".join(word for word in (counted, words["data"]) if word)
    return data or UNSTATED, words["data_licence"] or UNSTATED


def state_terms(trained: TrainedWeights, provenance: Provenance) -> TrainedWeights:
    """The weights with the terms of `provenance` where a teacher's were not stated."""
    said = provenance.teacher_licence or UNSTATED
    teachers = tuple(
        dataclasses.replace(each, licence=said) if each.licence == UNSTATED else each
        for each in trained.teachers
    )
    metadata = {**trained.metadata, **describe_facts(teachers)}
    return dataclasses.replace(trained, teachers=teachers, metadata=metadata)


def _recall_word(trained: TrainedWeights, name: str, *, of_recipe: bool) -> str | None:
    """A field of the recipe, if it speaks of the pictures that were trained on."""
    word = trained.recipe.get(name)
    if not isinstance(word, str):
        return None
    # Text that the user gave with --set or in a recipe of his own holds in any case.
    shipped = {getattr(load_recipe(trained.model, each), name) for each in NAMES}
    empty = getattr(Recipe(model=trained.model), name)
    return word if word != empty and (of_recipe or word not in shipped) else None
