"""Benchmark data sets: the names people use, and where their HR pictures lie."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, unknown
from srcli.imaging.files import read_picture
from srcli.pretrained.catalog import data_folders

log = logging.getLogger(__name__)


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

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".avif")
)
# A named set lies in the data folder or this many levels deeper, as in benchmark/Set5.
_SEARCH_DEPTH = 2

# Folder and file names as the public archives have them.
# HR folders, the best first: whole pictures rather than cropped ones.
_HR_FOLDERS = ("hr", "original", "gt", "gtmod12")
_LR_FOLDER = re.compile(r"(.*[-_])?lr([-_].*)?|lr(bi|bd|dn).*|lrx?[2-8]", re.IGNORECASE)
_SCALE_FOLDER = re.compile(r"(?:image_srf_|srf_|x)([2-8])", re.IGNORECASE)
_SCALE_FILE = re.compile(r".*_srf_([2-8])_(.+)", re.IGNORECASE)
_LR_FILE = re.compile(r".*[-_]lr([-_.]?x?[2-8])?", re.IGNORECASE)


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

        Below the folder, LR pictures are left out; an HR folder, where there is one,
        is taken alone; of pictures kept once per scale those of `scale` are taken, or
        else those of the smallest scale, which were cropped least.

        Raises:
            InputError: If there is none.
        """
        candidates = walk_pictures(self.folder)
        chosen = _choose_pictures(candidates, self.folder, scale)
        if not chosen:
            raise InputError(
                f"data set {self.name}: no HR picture in {self.folder};"
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
    pixels = read_picture(path).pixels
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
            if canonical_name(folder.absolute().name) == name and any(
                walk_pictures(folder)
            ):
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
        children = [child for folder in level for child in _list_folder(folder)]
        level = [
            child
            for child in children
            if child.is_dir() and not _LR_FOLDER.fullmatch(child.name)
        ]


def walk_pictures(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every picture file below `folder` that is not an LR one.

    `seen` are the folders above, so that a link back up does not lead in circles.
    """
    seen |= {folder.resolve()}
    for entry in _list_folder(folder):
        if entry.is_dir():
            if entry.resolve() not in seen and not _LR_FOLDER.fullmatch(entry.name):
                yield from walk_pictures(entry, seen)
        elif entry.suffix.lower() in _SUFFIXES and not _LR_FILE.fullmatch(entry.stem):
            yield entry


def _list_folder(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, no hidden ones; none if it cannot be read."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        log.debug("folder %s left out: %s", folder, error)
        return []
    return [entry for entry in entries if not entry.name.startswith(".")]


def _choose_pictures(paths: Iterable[Path], folder: Path, scale: int) -> list[Path]:
    """Every picture of the set once: from its HR folder, and of one scale."""
    groups: dict[tuple[str, int], list[Path]] = {}
    for path in paths:
        marked = _SCALE_FILE.fullmatch(path.stem)
        if marked and marked[2].lower() != "hr":
            continue  # the results of others, kept beside the HR pictures
        key = (_name_hr_folder(path, folder), _mark_scale(path, folder))
        groups.setdefault(key, []).append(path)
    ranked = sorted(groups, key=lambda group: _rank_group(group, scale))
    if not ranked:
        return []
    kind, made_for = ranked[0]
    if made_for not in (0, scale):
        log.warning(
            "%s has no HR pictures for x%d: those for x%d are cropped further",
            folder, scale, made_for,
        )  # fmt: skip
    return groups[kind, made_for]


def _rank_group(group: tuple[str, int], scale: int) -> tuple[int, int]:
    """Sort key, the best first: the HR folder, then whole pictures, then `scale`."""
    kind, made_for = group
    place = _HR_FOLDERS.index(kind) if kind else len(_HR_FOLDERS)
    return place, 1 if made_for == scale else made_for


def _name_hr_folder(path: Path, folder: Path) -> str:
    """The HR folder a picture of the set lies in, in lower case, or an empty text."""
    parts = (part.lower() for part in path.relative_to(folder).parts[:-1])
    return next((part for part in parts if part in _HR_FOLDERS), "")


def _mark_scale(path: Path, folder: Path) -> int:
    """The scale that a picture was cropped for, from its folder or name; 0 for none."""
    marked = _SCALE_FILE.fullmatch(path.stem)
    if marked:
        return int(marked[1])
    for part in path.relative_to(folder).parts[:-1]:
        marked = _SCALE_FOLDER.fullmatch(part)
        if marked:
            return int(marked[1])
    return 0


def _name_folder(folder: Path) -> str:
    """What a folder of pictures is called: its name, or for `Name/HR` the set's."""
    absolute = folder.resolve()
    name = absolute.name.lower()
    if name in _HR_FOLDERS or _SCALE_FOLDER.fullmatch(name):
        name = absolute.parent.name.lower()
    return canonical_name(name) or name or "pictures"
