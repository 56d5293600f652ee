"""Benchmark data sets: the names people use, and where their HR pictures lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, unknown
from srcli.evaluation.originals import (
    find_originals,
    has_originals,
    is_called_lr,
    list_folder,
)
from srcli.imaging.files import read_picture
from srcli.pretrained.catalog import data_folders
from srcli.storage import show_path

# Our name: how many pictures the published set has, and what else people call it.
_SETS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "set5": (5, ()),
    "set14": (14, ()),
    "b100": (100, ("bsd100", "bsds100")),
    "urban100": (100, ()),
    "manga109": (109, ()),
    "div2k-valid": (100, ("div2k-valid-hr", "div2k100", "div2k-val")),
}
DATASET_NAMES = tuple(_SETS)

# A named set lies in the data folder or this many levels deeper, as in benchmark/Set5.
_SEARCH_DEPTH = 2

# What lies in a set's folder, and is not its name.
_PART_FOLDER = re.compile(r"hr|original|gt(?:mod12)?|(?:image_srf_|srf_|x)[2-8]")


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
        return _SETS[self.name][0] if self.name in _SETS else None


def find_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set of a name, or a folder of HR pictures.

    A named set is looked for in `data_dir`; without one in $SRCLI_DATA_DIR, then in
    the cache where `srcli download` puts it, then in the current folder.

    Args:
        name: A set's name in any case, with the aliases in use, or a folder's path.
        data_dir: Folder that holds the named sets.

    Raises:
        UsageError: If the name is neither a known set nor a folder.
        InputError: If the set or the folder does not exist.
    """
    canonical = canonical_name(name)
    if canonical is not None:
        return _find_named(canonical, data_dir)
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return Dataset(_name_folder(folder), folder)
    if folder.exists():
        raise InputError(f"data set {name} is a file: give the folder it lies in")
    if len(folder.parts) > 1 or name.startswith((".", "~")):
        raise InputError(f"data set folder {name} does not exist")
    raise unknown("data set", name, DATASET_NAMES)


def canonical_name(name: str) -> str | None:
    """Our name for a published set, or None if `name` is not one."""
    plain = name.lower().replace("_", "-")
    for canonical, (_, aliases) in _SETS.items():
        if plain == canonical or plain in aliases:
            return canonical
    return None


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


def _find_named(name: str, data_dir: Path | None) -> Dataset:
    """The published set `name` in the first of the search folders that has it."""
    searches = _search_folders(data_dir)
    for root, depth in searches:
        for folder in _walk_folders(root, depth):
            named = canonical_name(folder.absolute().name)
            if named == name and has_originals(folder):
                return Dataset(name, folder)
    looked = ", ".join(str(root) for root, _ in searches)
    fetch = f"run `srcli download {name}`"
    remedy = (
        f"correct --data-dir, or leave it out and {fetch}"
        if data_dir is not None
        else f"{fetch}, or say with --data-dir which folder holds it"
    )
    raise InputError(f"data set {name} not found in {looked}: {remedy}")


def _search_folders(data_dir: Path | None) -> list[tuple[Path, int]]:
    """Where named sets are looked for, in order, each with how many levels deep.

    Raises:
        InputError: If the folder the user named does not exist.
    """
    if data_dir is not None:
        root = data_dir.expanduser()
        if not root.is_dir():
            raise InputError(
                f"data folder {data_dir} does not exist: correct --data-dir"
            )
        return [(root, _SEARCH_DEPTH)]
    return [*((root, _SEARCH_DEPTH) for root in data_folders()), (Path.cwd(), 1)]


def _walk_folders(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders below it, level by level, sorted; no LR or hidden ones."""
    level = [root] if root.is_dir() else []
    for _ in range(depth + 1):
        yield from level
        children = [child for folder in level for child in list_folder(folder)]
        level = [
            child for child in children if child.is_dir() and not is_called_lr(child)
        ]


def _name_folder(folder: Path) -> str:
    """What a folder of pictures is called: its name, or for `Name/HR` the set's."""
    absolute = folder.resolve()
    places = (place.name.lower() for place in (absolute, *absolute.parents))
    name = next(place for place in places if not _PART_FOLDER.fullmatch(place))
    return canonical_name(name) or name or "pictures"
