"""What can be downloaded by name: the weights of a model, or a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import WeightsError, unknown
from srcli.pretrained import catalog, download
from srcli.pretrained.public_sets import DataSet, Options, Outcome, data_sets
from srcli.pretrained.transfer import Source
from srcli.progress import Progress


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of one model."""

    name: str
    entries: tuple[catalog.WeightEntry, ...]

    kind = "weights"
    ask = ""
    part_of = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the files that are not bundled are downloaded from."""
        return tuple(entry.url for entry in self.entries if entry.url)

    @property
    def terms(self) -> str:
        """The licences of what they were trained on."""
        return ", ".join(sorted({entry.data_licence for entry in self.entries}))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.entries)

    def find(self, data_folder: Path) -> tuple[Path, ...]:  # noqa: ARG002 - as DataSet
        """Where they are installed; empty if they are not, or not all of them."""
        found = [catalog.locate(entry) for entry in self.entries]
        return tuple(path for path in found if path) if all(found) else ()

    def install(self, options: Options) -> Outcome:
        """Download the files that are not there yet, and check the others.

        Raises:
            WeightsError: If they cannot be had or are damaged.
            OutputError: If they cannot be written.
        """
        if not self.entries:
            raise WeightsError(
                f"there are no weights of {self.name} yet: "
                f"`srcli train -m {self.name}` makes your own"
            )
        statuses = {_install_entry(entry, options.progress) for entry in self.entries}
        status = next(
            s for s in ("downloaded", "installed", "bundled") if s in statuses
        )
        return Outcome(self.name, status, self.find(options.data_folder))


Item = DataSet | Weights


def list_items() -> tuple[Item, ...]:
    """Everything that has weights or is a data set."""
    models = dict.fromkeys(entry.model for entry in catalog.manifest())
    return (*(_find_weights(model) for model in models), *data_sets())


def select_items(names: Iterable[str]) -> tuple[Item, ...]:
    """The items of the names, each once.

    Raises:
        UsageError: If a name is neither a model nor a data set.
    """
    sets = {data_set.name: data_set for data_set in data_sets()}
    models = catalog.model_names()
    chosen: dict[str, Item] = {}
    for typed in names:
        name = typed.lower()
        hyphened = name.replace("_", "-")
        if hyphened in sets:
            chosen[hyphened] = sets[hyphened]
        elif name in models:
            chosen[name] = _find_weights(name)
        else:
            raise unknown("model or data set", typed, [*models, *sets])
    return tuple(chosen.values())


def _find_weights(model: str) -> Weights:
    own = (entry for entry in catalog.manifest() if entry.model == model)
    return Weights(model, tuple(own))


def _install_entry(entry: catalog.WeightEntry, progress: Progress) -> str:
    """Make sure that one weight file is there and right; says how that came about."""
    path = catalog.locate(entry)
    bundled = catalog.is_bundled(entry)
    if path is not None and catalog.sha256_of(path) == entry.sha256:
        return "bundled" if bundled else "installed"
    if bundled:
        raise WeightsError(f"{path} is damaged (wrong SHA-256): install srcli again")
    if entry.url is None:
        raise WeightsError(
            f"{entry.file} is neither bundled nor published: "
            f"`srcli train -m {entry.model}` makes your own"
        )
    source = Source(entry.url, entry.file, size=entry.bytes, sha256=entry.sha256)
    folder = catalog.cache_folder() / "weights"
    download.fetch(source, folder, progress=progress, failure=WeightsError)
    return "downloaded"
