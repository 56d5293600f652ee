"""Data sets: the names people use, where they lie, and the pictures in them."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, unknown
from srcli.imaging.files import read_picture
from srcli.pretrained.catalog import cache_folder
from srcli.pretrained.originals import (
    find_originals,
    has_originals,
    is_called_lr,
    list_folder,
)
from srcli.storage import show_path

# Sets to measure on: how many pictures each has, and what else people call it.
_MEASURED: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "set5": (5, ()),
    "set14": (14, ()),
    "b100": (100, ("bsd100", "bsds100")),
    "urban100": (100, ()),
    "manga109": (109, ()),
    "div2k-valid": (100, ("div2k-valid-hr", "div2k100", "div2k-val")),
}
DATASET_NAMES = tuple(_MEASURED)

# A named set lies in the data folder or this many levels deeper, as in benchmark/Set5.
_SEARCH_DEPTH = 2

# What lies in a set's folder, and is not its name.
_PART_FOLDER = re.compile(r"hr|original|gt(?:mod12)?|(?:image_srf_|srf_|x)[2-8]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """Folders of a public archive, under a name that users type (datasets.toml)."""

    name: str
    folders: tuple[str, ...]  # those that this name stands for
    terms: str
    url: str = ""  # of the archive; empty where its owners must be asked
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None  # of the archive
    about: int | None = None  # the same, where it is only known roughly
    ask: str = ""
    part_of: str = ""  # the set that is the whole archive, where this is not
    contents: tuple[str, ...] = ()  # all folders that are taken from the archive
    inside: tuple[str, ...] = ()  # where they lie in it, if under other names
    training: bool = False  # to train on: none of its pictures is measured on

    kind = "data"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is downloaded from."""
        return (self.url,) if self.url else ()

    @property
    def size(self) -> int | None:
        """Bytes of the archive, perhaps only roughly."""
        return self.bytes or self.about

    @property
    def archive(self) -> str:
        """The archive's name."""
        return self.url.rpartition("/")[2]

    def find(self, data_folder: Path) -> tuple[Path, ...]:
        """Where it is installed; empty if it is not, or not all of it."""
        found = tuple(data_folder / name for name in self.folders)
        return found if all(map(has_content, found)) else ()


@lru_cache(maxsize=1)
def public_sets() -> tuple[PublicSet, ...]:
    """Every public data set that srcli knows."""
    text = (resources.files("srcli.pretrained") / "datasets.toml").read_text("utf-8")
    found = []
    for name, table in tomllib.loads(text).items():
        parts, folders = table.pop("parts", ()), tuple(table.pop("folders"))
        table["inside"] = tuple(table.get("inside", ()))
        whole = PublicSet(name=name, folders=folders, contents=folders, **table)
        found.append(whole)
        for part, folder in zip(parts, folders, strict=False):
            own = replace(whole, name=part, part_of=name, folders=(folder,))
            found.append(own)
    return tuple(found)


def has_content(folder: Path) -> bool:
    """Whether there is such a folder, and anything in it."""
    return folder.is_dir() and any(folder.iterdir())


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder with HR pictures.

    Attributes:
        name: Lower case; one of `DATASET_NAMES`, or the folder's name.
        folder: Everything of the set lies below it.
    """

    name: str
    folder: Path

    def pictures(self, scale: int) -> tuple[Path, ...]:
        """The HR pictures for `scale`, sorted without regard to case.

        Each once (`find_originals`), of those kept once per scale that of `scale`.

        Raises:
            InputError: If there is none.
        """
        chosen = find_originals(self.folder, scale)
        if not chosen:
            raise InputError(
                f"data set {self.name}: no HR picture in {show_path(self.folder)};"
                " put PNG, JPEG, TIFF, BMP, WebP or AVIF files there"
            )
        return tuple(sorted(chosen, key=lambda path: (str(path).lower(), str(path))))

    @property
    def published_count(self) -> int | None:
        """Pictures in the published set of this name; None for any other folder."""
        return _MEASURED[self.name][0] if self.name in _MEASURED else None


def canonical_name(name: str) -> str | None:
    """Our name for a set to measure on, or None if `name` is not one."""
    plain = name.lower().replace("_", "-")
    for canonical, (_, aliases) in _MEASURED.items():
        if plain == canonical or plain in aliases:
            return canonical
    return None


def data_folders(data_dir: Path | None = None) -> list[Path]:
    """Where named sets may lie: in `data_dir`, else in $SRCLI_DATA_DIR and the cache.

    `srcli download` puts them into the first.
    """
    if data_dir is not None:
        return [data_dir.expanduser()]
    named = os.environ.get("SRCLI_DATA_DIR")
    own = [Path(named).expanduser()] if named else []
    return [*own, cache_folder() / "datasets"]


def search_folders(data_dir: Path | None) -> list[Path]:
    """Where named sets are looked for: `data_folders`, then the current folder."""
    return data_folders(data_dir) + ([] if data_dir else [Path.cwd()])


def find_folder(name: str, data_dir: Path | None) -> Path | None:
    """The folder of a named set with pictures in it, in any of `search_folders`.

    Args:
        name: One of `DATASET_NAMES`, or of a public set that is one folder.
        data_dir: Folder that holds the named sets.
    """
    called = {f.lower() for s in public_sets() if s.name == name for f in s.folders}
    for root in search_folders(data_dir):
        for folder in _walk_folders(root):
            its = folder.absolute().name
            if (canonical_name(its) == name or its.lower() in called) and (
                has_originals(folder)
            ):
                return folder
    return None


def find_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set of a name, or a folder of HR pictures.

    Args:
        name: A set's name in any case, with the aliases in use, or a folder's path.
        data_dir: Folder that holds the named sets; None is $SRCLI_DATA_DIR, then the
            cache where `srcli download` puts them, then the current folder.

    Raises:
        UsageError: If the name is neither a known set nor a folder.
        InputError: If the set or the folder does not exist.
    """
    if canonical := canonical_name(name):
        return _find_named(canonical, data_dir)
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return Dataset(_name_folder(folder), folder)
    if folder.exists():
        raise InputError(f"data set {name} is a file: give the folder it lies in")
    if len(folder.parts) > 1 or name.startswith((".", "~")):
        raise InputError(f"data set folder {name} does not exist")
    raise unknown("data set", name, DATASET_NAMES)


def _find_named(name: str, data_dir: Path | None) -> Dataset:
    if data_dir is not None and not data_dir.expanduser().is_dir():
        raise InputError(f"data folder {data_dir} does not exist: correct --data-dir")
    if folder := find_folder(name, data_dir):
        return Dataset(name, folder)
    looked = ", ".join(map(str, search_folders(data_dir)))
    fetch = f"run `srcli download {name}`"
    remedy = (
        f"correct --data-dir, or leave it out and {fetch}"
        if data_dir is not None
        else f"{fetch}, or say with --data-dir which folder holds it"
    )
    raise InputError(f"data set {name} not found in {looked}: {remedy}")


def _walk_folders(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, level by level, sorted; no LR or hidden ones."""
    level = [root] if root.is_dir() else []
    for _ in range(_SEARCH_DEPTH + 1):
        yield from level
        below = [child for folder in level for child in list_folder(folder)]
        level = [each for each in below if each.is_dir() and not is_called_lr(each)]


def _name_folder(folder: Path) -> str:
    """What a folder of pictures is called: its name, or for `Name/HR` the set's.

    Of a relative `hr` alone, the folder it lies in may be anything but a set's.
    """
    absolute = folder.resolve()
    places = (place.name.lower() for place in (absolute, *absolute.parents))
    name = next(place for place in places if not _PART_FOLDER.fullmatch(place))
    typed = [part.lower() for part in folder.parts if part != ".."]
    if typed and all(map(_PART_FOLDER.fullmatch, typed)):
        return canonical_name(name) or typed[-1]
    return canonical_name(name) or name or "pictures"


def read_hr(path: Path) -> NDArray[np.uint8]:
    """An HR picture as it is measured: (H, W) grey or (H, W, 3) RGB, uint8.

    16-bit pictures are rounded to 8 bits; transparency is left out.

    Raises:
        InputError: If the file cannot be read.
    """
    pixels = read_picture(path, name=show_path(path)).pixels
    if pixels.dtype != np.uint8:
        pixels = np.floor(pixels / 257.0 + 0.5)
    narrow = pixels.astype(np.uint8)
    return narrow[:, :, 0] if narrow.shape[2] == 1 else narrow


def label_pictures(paths: tuple[Path, ...], folder: Path) -> tuple[str, ...]:
    """A name for every picture: its stem, or where two share one its path and suffix.

    Args:
        paths: Pictures below `folder`.
        folder: The set's folder.

    Returns:
        Names without separators, all different even without regard to case.
    """
    stems = [path.stem for path in paths]
    if len({stem.lower() for stem in stems}) == len(stems):
        return tuple(stems)
    return tuple("_".join(path.relative_to(folder).parts) for path in paths)
