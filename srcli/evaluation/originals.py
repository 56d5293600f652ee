"""The pictures below a folder, each once: its copies in other sizes are left out.

A copy is one by its name and by its size: a folder or the end of its name says that it
was reduced, blurred or enlarged, and the picture of the same name without such words is
there, in the same proportions (docs/training.md, "Data").
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from srcli.errors import InputError
from srcli.imaging.files import probe_picture
from srcli.storage import show_path

log = logging.getLogger(__name__)

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".avif")
)
# What a name says of its picture, the best first; a tag is a factor or a size.
_KINDS = ("hr", "original", "gt", "cropped", "plain", "tagged", "copy", "lr")
_HR, _GT, _CROPPED, _PLAIN, _TAGGED, _LR = (
    _KINDS.index(kind) for kind in ("hr", "gt", "cropped", "plain", "tagged", "lr")
)
_WORDS = (
    r"(?P<hr>hr|high[-_ ]?res(?:olution)?)"
    r"|(?P<original>originals?|ground[-_ ]?truth|targets?|sharp)"
    r"|(?P<gt>gt)"
    r"|(?P<cropped>gtmod\d+)"
    r"|(?P<copy>bic(?:ubic)?|bilinear|nearest|small|thumb(?:nail)?s?|inputs?"
    r"|blur(?:red|ry)?(?:_gamma|_comp)?)"
    r"|(?P<lr>(?:lr|lq|low[-_ ]?res(?:olution)?)(?:bi|bd|dn|bic)?(?:x?[2-8])?)"
    r"|(?:image_)?(?:srf_|x)(?P<scale>[2-8])"
)
_WORD = re.compile(rf"(?<![^-_. ])(?:{_WORDS})(?![^-_. ])")
_LAST_WORD = re.compile(rf"(?P<rest>.+?)[-_. ]+(?:{_WORDS})")
# 0001x4, 0001x4w1, photo_mrnet_x2.5, photo_mrnet_1920x1080, photo-300x200
_TAG = re.compile(
    r"(?P<rest>.+?)[-_. ]*"
    r"(?:x(?P<factor>[1-8](?:\.\d+)?)(?:[md]|w\d)?|[-_. ](?P<size>\d+x\d+))"
)
_BESIDE_HR = re.compile(r"(?P<rest>.+)_srf_(?P<scale>[2-8])_(?!hr$|lr$).+")
_SEPARATORS = re.compile(r"[-_. ]+")
_NAMED = 3  # folders that a message names
_TOLERANCE = 0.1  # of proportions: sides are cropped to multiples of up to 12


@dataclass(frozen=True, slots=True)
class _Named:
    """A picture and what its name says.

    Attributes:
        path: The file.
        key: The words of its folders and name that are left, in lower case.
        stem: Its name as far as it is left.
        kind: Index in `_KINDS`.
        scale: What it was made for, by its folder or as an HR picture; 0 for any.
        factor: How much smaller or larger than the original its name says it is.
        said: Whether a word, or a folder, calls it a copy.
    """

    path: Path
    key: tuple[str, ...]
    stem: str
    kind: int
    scale: int
    factor: float
    said: bool

    def rank(self, scale: int) -> tuple[int, int, int]:
        """Sort key, the best first: whole pictures, then `scale`; copies behind."""
        made_for = 1 if self.scale == scale else self.scale
        return max(self.kind, _PLAIN), made_for, self.kind


def find_originals(folder: Path, scale: int = 0) -> list[Path]:
    """Every picture below a folder but copies of others; a line says what is left out.

    Where pictures are called HR or GT, all those called LR or LQ are left out.

    Args:
        folder: What lies below it is looked at; its own name says nothing.
        scale: Of pictures that are kept once for each scale, which one to take; where
            it is missing, or 0, that of the smallest, which was cropped least.
    """
    names = [_read_name(path, folder) for path in _walk(folder)]
    names.sort(key=lambda name: name.rank(scale))
    sizes = cache(_read_size)

    def is_copy(name: _Named, other: _Named, said: bool) -> bool:
        if other.rank(scale) >= name.rank(scale):
            return False
        size, whole = sizes(name.path), sizes(other.path)
        if size is None or whole is None:
            return size is None  # what cannot be read is no loss
        width, height = (a / b for a, b in zip(size, whole, strict=True))
        if abs(width / height - 1) > _TOLERANCE:
            return False
        factors = (name.factor, 1 / name.factor) if name.factor else ()
        return (
            (said and width < 1 + _TOLERANCE)
            or any(abs(width / factor - 1) < _TOLERANCE for factor in factors)
            or name.path.stem.endswith("{}x{}".format(*size))
        )

    seen: dict[object, list[_Named]] = {}
    kept: list[_Named] = []
    copies: list[_Named] = []
    for name in names:
        found = any(
            is_copy(name, other, name.said or other.kind <= _CROPPED)
            for other in seen.get(name.key, ())
        )
        if not found and name.kind >= _TAGGED:
            found = any(
                is_copy(name, other, said=False)
                for stem in _list_beginnings(name.stem)
                for other in seen.get(stem, ())
            )
        (copies if found else kept).append(name)
        seen.setdefault(name.key, []).append(name)
        seen.setdefault(name.stem, []).append(name)
    if any(name.kind in (_HR, _GT, _CROPPED) for name in kept):
        copies += [name for name in kept if name.kind == _LR]
        kept = [name for name in kept if name.kind != _LR]
    told = [name.path for name in copies if name.kind >= _CROPPED]
    _tell_copies(told, len(names), folder)
    if scale and (others := {name.scale for name in kept} - {0, scale}):
        log.warning(
            "%s has no HR pictures for x%d: those for x%d are cropped further",
            show_path(folder), scale, min(others),
        )  # fmt: skip
    return [name.path for name in kept]


def has_originals(folder: Path) -> bool:
    """Whether there is a picture below a folder that is not called LR."""
    return any(_read_name(path, folder).kind != _LR for path in _walk(folder))


def is_called_lr(folder: Path) -> bool:
    """Whether a folder's own name says that LR pictures are in it."""
    return any(word["lr"] for word in _WORD.finditer(folder.name.lower()))


def list_folder(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, no hidden ones; none if it cannot be read."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        log.debug("folder %s left out: %s", folder, error)
        return []
    return [entry for entry in entries if not entry.name.startswith(".")]


def _walk(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every picture file below `folder`.

    `seen` are the folders above, so that a link back up does not lead in circles.
    """
    seen |= {folder.resolve()}
    for entry in list_folder(folder):
        if entry.is_dir():
            if entry.resolve() not in seen:
                yield from _walk(entry, seen)
        elif entry.suffix.lower() in _SUFFIXES:
            yield entry


def _read_name(path: Path, folder: Path) -> _Named:
    said, scale, factor, left = [], 0, 0.0, []
    for part in path.relative_to(folder).parts[:-1]:
        for word in _WORD.finditer(part.lower()):
            said.append(word.lastgroup)
            scale = int(word["scale"] or scale)
        left.append(_WORD.sub("", part.lower()))
    stem, made_for, tagged = path.stem.lower(), 0, False
    while found := (
        _BESIDE_HR.fullmatch(stem) or _LAST_WORD.fullmatch(stem) or _TAG.fullmatch(stem)
    ):
        stem, parts = found["rest"], found.groupdict()
        number = parts.get("scale") or parts.get("factor")
        if found.re is _BESIDE_HR:
            said.append("copy")
        elif found.lastgroup in _KINDS:
            said.append(found.lastgroup)
        else:
            tagged = True
        if number:
            factor = float(number)
            made_for = int(factor)
    kinds = [_KINDS.index(word) for word in said if word in _KINDS]
    kind = max(kinds) if kinds else _TAGGED if tagged else _PLAIN
    return _Named(
        path=path,
        key=tuple(filter(None, _SEPARATORS.split("_".join([*left, stem])))),
        stem=stem,
        kind=kind,
        scale=scale or (made_for if kind <= _CROPPED else 0),
        factor=factor,
        said=bool(said),
    )


def _list_beginnings(stem: str) -> Iterator[str]:
    """What the picture was called that a result is named after, the longest first."""
    yield stem
    while "_" in stem:
        stem = stem.rpartition("_")[0]
        yield stem


def _read_size(path: Path) -> tuple[int, int] | None:
    """Width and height; None where they cannot be read."""
    try:
        info = probe_picture(path)
    except InputError:
        return None
    return info.width, info.height


def _tell_copies(paths: list[Path], count: int, folder: Path) -> None:
    """Say what is left out, in one line: for each folder the first and how many."""
    if not paths:
        return
    named = []
    for _, group in groupby(sorted(paths), key=lambda path: path.parent):
        first, *more = (show_path(path.relative_to(folder)) for path in group)
        named.append(f"{first} and {len(more)} more" if more else first)
    if len(named) > _NAMED:
        named[_NAMED:] = [f"and those of {len(named) - _NAMED} more folders"]
    _tell_once(
        f"{show_path(folder)}: {len(paths)} of {count} pictures left out as copies of "
        f"others, by name and size: {', '.join(named)}"
    )


@cache
def _tell_once(message: str) -> None:
    """A folder is looked through for every scale."""
    log.info("%s", message)
