"""The public data sets: where they lie, what they must be, how they are installed."""

from __future__ import annotations

import json
import logging
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from srcli.errors import InputError, OutputError
from srcli.pretrained import catalog, download
from srcli.pretrained.archive import unpack
from srcli.pretrained.transfer import Source
from srcli.progress import SILENT, Progress
from srcli.units import join_words
from srcli.writing import write_whole

log = logging.getLogger(__name__)

RECORD = "srcli-checksums.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one name."""

    name: str
    status: str  # "bundled", "installed" before, "downloaded", or only "unpacked"
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """How `install` works."""

    data_folder: Path
    keep_archive: bool = False
    progress: Progress = SILENT


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Folders of a public archive, under a name that users type."""

    name: str
    source: Source | None  # None: its owners must be asked
    ask: str = ""
    part_of: str = ""  # the set that is the whole archive, where this is not
    contents: tuple[str, ...] = ()  # all folders that are taken from the archive
    inside: tuple[str, ...] = ()  # where they lie in it, if under other names
    folders: tuple[str, ...] = ()  # those that this name stands for
    training: bool = False  # to train on: none of its pictures is measured on
    terms: str = ""
    size: int | None = None  # bytes of the archive, perhaps only roughly

    kind = "data"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is downloaded from."""
        return (self.source.url,) if self.source else ()

    @property
    def is_rough(self) -> bool:
        """Whether `size` is only roughly known."""
        return self.source is None or self.source.size is None

    def find(self, data_folder: Path) -> tuple[Path, ...]:
        """Where it is installed; empty if it is not, or not all of it."""
        found = tuple(data_folder / name for name in self.folders)
        return found if all(_has_content(folder) for folder in found) else ()

    def install(self, options: Options) -> Outcome:
        """Download and unpack the archive, unless that was done before.

        Raises:
            InputError: If it cannot be had, or is not what it should be.
            OutputError: If it cannot be written.
        """
        folder = options.data_folder
        if found := self.find(folder):
            return Outcome(self.name, "installed", found)
        if self.source is None:
            raise InputError(
                f"{self.name} is given out by its owners only: ask at {self.ask}, then "
                f"unpack it into {folder / self.folders[0]}"
            )
        if self.part_of:
            log.info(
                "%s comes in %s, together with %s",
                self.name,
                self.source.file,
                ", ".join(name for name in self.contents if name not in self.folders),
            )
        source = _add_recorded(self.source, folder)
        fetched = download.fetch(source, folder, progress=options.progress)
        try:
            self._unpack(fetched.path, options)
        except InputError:
            if fetched.fresh:  # no use, and the next call would take it for good
                fetched.path.unlink(missing_ok=True)
            raise
        _record(self.source, fetched, folder)
        if not options.keep_archive:
            fetched.path.unlink(missing_ok=True)
        status = "downloaded" if fetched.fresh else "unpacked"
        return Outcome(self.name, status, self.find(folder))

    def _unpack(self, archive: Path, options: Options) -> None:
        """Unpack beside, then move every folder that is not there yet into place."""
        folder = options.data_folder
        try:
            with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as name:
                unpack(archive, Path(name), options.progress)
                origins = [Path(name) / each for each in self.inside or self.contents]
                for origin in origins:
                    if not _has_content(origin):
                        raise InputError(
                            f"{archive} holds no {origin.relative_to(name)}: it is not "
                            f"the archive that {self.name} should be"
                        )
                for origin, each in zip(origins, self.contents, strict=True):
                    _move(origin, folder / each)
        except OSError as error:
            raise OutputError(
                f"cannot unpack {archive} into {folder}: {error.strerror or error}"
            ) from error


@lru_cache(maxsize=1)
def data_sets() -> tuple[DataSet, ...]:
    """Every public data set that srcli knows (datasets.toml)."""
    text = (resources.files("srcli.pretrained") / "datasets.toml").read_text("utf-8")
    return tuple(
        data_set
        for name, table in tomllib.loads(text).items()
        for data_set in _read_table(name, table)
    )


def find_data_folder(chosen: Path | None = None) -> Path:
    """Where data sets go: `chosen`, else $SRCLI_DATA_DIR, else the user's cache."""
    return catalog.data_folders()[0] if chosen is None else chosen.expanduser()


def format_size(size: int | None) -> str:
    """Bytes with their unit, to about two digits; a question mark for None."""
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            value = size / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return f"{size} B"


def describe_sizes(sets: Sequence[DataSet]) -> str:
    """The sets' names with their sizes, and the size of all where there are several."""

    def say(size: int | None, rough: bool) -> str:
        return f"about {format_size(size)}" if rough else format_size(size)

    text = join_words(
        [f"{each.name} ({say(each.size, each.is_rough)})" for each in sets]
    )
    if len(sets) > 1:
        # Parts of one archive come in one download.
        archives = {data_set.urls: data_set for data_set in sets}.values()
        total = sum(archive.size or 0 for archive in archives)
        text += f", {say(total, any(each.is_rough for each in archives))} in all,"
    return text


def _read_table(name: str, table: dict[str, Any]) -> list[DataSet]:
    """The data sets of one table: the whole archive, then its parts."""
    source = None
    if url := table.get("url"):
        source = Source(
            url,
            url.rpartition("/")[2],
            size=table.get("bytes"),
            sha256=table.get("sha256"),
            md5=table.get("md5"),
        )
    folders = tuple(table["folders"])
    whole = DataSet(
        name=name,
        source=source,
        ask=table.get("ask", ""),
        contents=folders,
        inside=tuple(table.get("inside", ())),
        folders=folders,
        training=table.get("training", False),
        terms=table["terms"],
        size=table.get("bytes") or table.get("about"),
    )
    parts = zip(table.get("parts", ()), folders, strict=False)
    return [
        whole,
        *(
            replace(whole, name=part, part_of=name, folders=(folder,))
            for part, folder in parts
        ),
    ]


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _move(origin: Path, goal: Path) -> None:
    if _has_content(goal):
        log.info("%s was there before and is left as it is", goal)
        return
    goal.parent.mkdir(parents=True, exist_ok=True)
    if goal.is_dir():
        goal.rmdir()
    origin.rename(goal)


def _read_records(folder: Path) -> dict[str, dict[str, str]]:
    """The checksums kept so far: archive name to "url" and "sha256"."""
    try:
        records = json.loads((folder / RECORD).read_text("utf-8"))
        return {file: dict(record) for file, record in records.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / RECORD} cannot be read ({error}): mend it, or delete it to "
            "trust the next download"
        ) from error


def _add_recorded(source: Source, folder: Path) -> Source:
    """The source with the SHA-256 of its first download, where none is published."""
    recorded = _read_records(folder).get(source.file, {})
    if source.sha256 is None and recorded.get("url") == source.url:
        return replace(
            source, sha256=recorded.get("sha256"), voucher=str(folder / RECORD)
        )
    return source


def _record(source: Source, fetched: download.Fetched, folder: Path) -> None:
    """Keep the SHA-256 of an archive whose publisher states none."""
    records = _read_records(folder)
    known = records.get(source.file, {}).get("url") == source.url
    if source.sha256 is not None or known:
        return
    records[source.file] = {"url": source.url, "sha256": fetched.sha256}
    with write_whole(folder / RECORD) as part:
        part.write_text(json.dumps(records, indent=2) + "\n", "utf-8")
    log.info(
        "no SHA-256 of %s is published: that of this download is kept in %s, and later "
        "ones must match it",
        source.file,
        folder / RECORD,
    )
