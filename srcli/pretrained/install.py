"""What `srcli download` installs by name: the weights of a model, or a data set."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import InputError, OutputError, WeightsError, unknown
from srcli.pretrained import catalog
from srcli.pretrained.archive import unpack
from srcli.pretrained.catalog import WeightEntry
from srcli.pretrained.datasets import PublicSet, has_content, public_sets
from srcli.pretrained.transfer import fetch
from srcli.pretrained.weight_file import sha256_of
from srcli.progress import SILENT, Progress
from srcli.writing import write_whole

log = logging.getLogger(__name__)

RECORD = "srcli-checksums.json"


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The weight files of one model."""

    name: str
    entries: tuple[WeightEntry, ...]

    kind = "weights"
    ask = part_of = ""

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

    def find(self, data_folder: Path) -> tuple[Path, ...]:  # noqa: ARG002 - as a set
        """Where they are installed; empty if they are not, or not all of them."""
        found = [catalog.locate(entry) for entry in self.entries]
        return tuple(path for path in found if path) if all(found) else ()


Item = PublicSet | ModelWeights


def list_items() -> tuple[Item, ...]:
    """Everything that has weights or is a data set."""
    models = dict.fromkeys(entry.model for entry in catalog.manifest())
    return (*map(_weights_of, models), *public_sets())


def select_items(names: Iterable[str]) -> tuple[Item, ...]:
    """The items of the names, each once.

    Raises:
        UsageError: If a name is neither a model nor a data set.
    """
    sets = {each.name: each for each in public_sets()}
    models = catalog.model_names()
    chosen: dict[str, Item] = {}
    for typed in names:
        name = typed.lower()
        hyphened = name.replace("_", "-")
        if hyphened in sets:
            chosen[hyphened] = sets[hyphened]
        elif name in models:
            chosen[name] = _weights_of(name)
        else:
            raise unknown("model or data set", typed, [*models, *sets])
    return tuple(chosen.values())


def install(
    item: Item,
    data_folder: Path,
    *,
    keep_archive: bool = False,
    progress: Progress = SILENT,
) -> str:
    """Download what is not there yet, and check it.

    Args:
        item: Weights or a data set.
        data_folder: Where data sets go.
        keep_archive: Leave a data set's archive there, too.
        progress: Receives megabytes.

    Returns:
        "bundled", "installed" before, "downloaded", or only "unpacked".

    Raises:
        InputError: If a data set cannot be had, or is not what it should be.
        WeightsError: If weights cannot be had or are damaged.
        OutputError: If something cannot be written.
    """
    if isinstance(item, PublicSet):
        return _install_set(item, data_folder, keep_archive, progress)
    if not item.entries:
        catalog.find_entry(item.name)  # which says that there are none
    done = {_install_weights(entry, progress) for entry in item.entries}
    return next(s for s in ("downloaded", "installed", "bundled") if s in done)


def _weights_of(model: str) -> ModelWeights:
    own = (entry for entry in catalog.manifest() if entry.model == model)
    return ModelWeights(model, tuple(own))


def _install_weights(entry: WeightEntry, progress: Progress) -> str:
    """Make sure that one weight file is there and right; says how that came about."""
    path = catalog.locate(entry)
    bundled = catalog.is_bundled(entry)
    if path is not None and sha256_of(path) == entry.sha256:
        return "bundled" if bundled else "installed"
    if bundled:
        raise WeightsError(f"{path} is damaged (wrong SHA-256): install srcli again")
    if entry.url is None:
        raise WeightsError(
            f"{entry.file} is neither bundled nor published: "
            f"`srcli train -m {entry.model}` makes your own"
        )
    fetch(
        entry.url,
        catalog.cache_folder() / "weights" / entry.file,
        size=entry.bytes,
        sha256=entry.sha256,
        progress=progress,
        failure=WeightsError,
    )
    return "downloaded"


def _install_set(
    wanted: PublicSet, folder: Path, keep_archive: bool, progress: Progress
) -> str:
    """Download and unpack the archive, unless that was done before."""
    if wanted.find(folder):
        return "installed"
    if not wanted.url:
        raise InputError(
            f"{wanted.name} is given out by its owners only: ask at {wanted.ask}, then "
            f"unpack it into {folder / wanted.folders[0]}"
        )
    if wanted.part_of:
        others = [name for name in wanted.contents if name not in wanted.folders]
        together = wanted.name, wanted.archive, ", ".join(others)
        log.info("%s comes in %s, together with %s", *together)
    records = _read_records(folder / RECORD)
    recorded = records.get(wanted.archive, {})
    if recorded.get("url") != wanted.url:
        recorded = {}
    elif not wanted.sha256:
        held = wanted.archive, folder / RECORD
        log.info("%s has to match the SHA-256 of its first download in %s", *held)
    archive = folder / wanted.archive
    sha256, fresh = fetch(
        wanted.url,
        archive,
        size=wanted.bytes,
        sha256=wanted.sha256 or recorded.get("sha256"),
        md5=wanted.md5,
        progress=progress,
    )
    try:
        _unpack(wanted, archive, folder, progress)
    except InputError:
        if fresh:  # no use, and the next call would take it for good
            archive.unlink(missing_ok=True)
        raise
    if not wanted.sha256 and not recorded:
        records[wanted.archive] = {"url": wanted.url, "sha256": sha256}
        with write_whole(folder / RECORD) as part:
            part.write_text(json.dumps(records, indent=2) + "\n", "utf-8")
        log.info(
            "no SHA-256 of %s is published: that of this download is kept in %s, and "
            "later ones must match it",
            wanted.archive,
            folder / RECORD,
        )
    if not keep_archive:
        archive.unlink(missing_ok=True)
    return "downloaded" if fresh else "unpacked"


def _unpack(wanted: PublicSet, archive: Path, folder: Path, progress: Progress) -> None:
    """Unpack beside, then move every folder that is not there yet into place."""
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as name:
            unpack(archive, Path(name), progress)
            inside = wanted.inside or wanted.contents
            for each in inside:
                if not has_content(Path(name, each)):
                    raise InputError(
                        f"{archive} holds no {each}: it is not the archive that "
                        f"{wanted.name} should be"
                    )
            for origin, goal in zip(inside, wanted.contents, strict=True):
                _move(Path(name, origin), folder / goal)
    except OSError as error:
        raise OutputError(
            f"cannot unpack {archive} into {folder}: {error.strerror or error}"
        ) from error


def _move(origin: Path, goal: Path) -> None:
    if has_content(goal):
        log.info("%s was there before and is left as it is", goal)
        return
    goal.parent.mkdir(parents=True, exist_ok=True)
    if goal.is_dir():
        goal.rmdir()
    origin.rename(goal)


def _read_records(path: Path) -> dict[str, dict[str, str]]:
    """The checksums kept so far: archive name to "url" and "sha256"."""
    try:
        records = json.loads(path.read_text("utf-8"))
        return {file: dict(record) for file, record in records.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): mend it, or delete it to trust the next "
            "download"
        ) from error
