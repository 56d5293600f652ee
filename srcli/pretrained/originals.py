"""The pictures below a folder, each once: its copies in other sizes are left out.

A copy is one by its name and its size: a folder or its name says that it was reduced,
blurred or enlarged, and the picture of the same name without such words is there, in
the same proportions. Where words do not settle it, both are looked at: a smaller one
that carries the other's name and shows the same is a copy (docs/training.md, "Data").
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.files import probe_picture, read_picture
from srcli.storage import show_path

log = logging.getLogger(__name__)

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".avif")
)
# What a name says of its picture, the best first; a tag is a factor or a size.
_KINDS = ("hr", "original", "gt", "cropped", "plain", "tagged", "copy", "lr", "result")
_HR, _GT, _CROPPED, _PLAIN, _TAGGED, _COPY, _LR, _RESULT = (
    _KINDS.index(kind)
    for kind in ("hr", "gt", "cropped", "plain", "tagged", "copy", "lr", "result")
)
_PLAIN_WORDS = (
    r"(?P<hr>h[rq]|high[-_ ]?(?:res(?:olution)?|quality))"
    r"|(?P<gt>gt)"
    r"|(?P<lr>(?:matlab|bd|bi)?(?:l[rq]|low[-_ ]?(?:res(?:olution)?|quality))"
    r"(?:bic?|bd|dn|blur)?(?:x?[2-8]|[2-8]x|[0-9]{3})?)"
)
_WORDS = (
    rf"{_PLAIN_WORDS}"
    r"|(?P<original>originals?|(?:ground[-_ ]?)?truth|targets?|references?|sharp|clean)"
    r"|(?P<cropped>gtmod\d+)"
    r"|(?P<copy>bic(?:ubic)?|b[id]x[2-8]|bilinear|nearest|small|thumb(?:nail)?s?"
    r"|inputs?[2-8]?|nois[ey][0-9]*|degraded|compressed"
    r"|blur(?:red|ry)?(?:_(?:gamma|comp|jpeg|bicubic))?)"
    r"|(?P<result>sr|results?|out(?:puts?)?|up(?:sampled|scaled)?|enlarged|restored)"
    r"|(?:image_)?(?:srf_|x)(?P<scale>[2-8]|16)|(?P<times>[2-8]|16)x"
)
_WORD = re.compile(rf"(?<![^-_. ])(?:{_WORDS})(?![^-_. ])")
_LAST_WORD = re.compile(rf"(?P<rest>.+?)[-_. ]+(?:{_WORDS})")
_FIRST_WORD = re.compile(rf"(?:{_PLAIN_WORDS})[-_. ]+(?P<rest>.+)")
_ONLY_WORD = re.compile(rf"(?P<rest>)(?:{_PLAIN_WORDS})")  # scene/lr.png
_GLUED_WORD = re.compile(rf"(?P<rest>.*\d)(?:{_PLAIN_WORDS})")  # 0001LR
# 0001x4, 0001x4w1, photo_mrnet_x2.5, photo_mrnet_1920x1080, photo-300x200
_TAG = re.compile(
    r"(?P<rest>.+?)[-_. ]*"
    r"(?:x(?P<factor>16|[1-8](?:\.\d+)?)(?:[md]|w\d)?|[-_. ](?P<size>\d+x\d+))"
)
_BESIDE_HR = re.compile(r"(?P<rest>.+)_srf_(?P<scale>[2-8])_(?!hr$|lr$).+")
_SEPARATORS = re.compile(r"[-_. ]+")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_NAMED = 3  # folders that a message names
_TOLERANCE = 0.1  # of proportions: sides are cropped to multiples of up to 12
_SMALLER = 0.75  # of the width: from here on a picture may be a reduced one
_MANY = 100  # pictures of one name, of which none is looked at
_BLOCKS = 8  # a side, by whose means two pictures are compared
_SAME = 0.3  # of the spread of these means: what two of the same may be apart,
_ROUNDED = 2.0  # and grey levels on top


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
        said: Whether a word, or a folder, calls it a copy that is no larger.
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
        width = _compare(size, whole)
        if width is None:
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
    alike = set(_find_alike(kept, sizes))
    copies += alike
    kept = [name for name in kept if name not in alike]
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
            scale = int(word["scale"] or word["times"] or scale)
        left.append(_WORD.sub("", part.lower()))
    stem, made_for, tagged = path.stem.lower(), 0, False
    patterns = (_BESIDE_HR, _LAST_WORD, _GLUED_WORD, _TAG, _FIRST_WORD, _ONLY_WORD)
    while found := next(filter(None, (p.fullmatch(stem) for p in patterns)), None):
        stem, parts = found["rest"], found.groupdict()
        number = parts.get("scale") or parts.get("times") or parts.get("factor")
        words = [kind for kind in _KINDS if parts.get(kind)]
        if found.re is _BESIDE_HR:
            words = ["copy"]
        said += words
        tagged = tagged or not words
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
        factor=factor or scale,
        said=bool(said) and kind != _RESULT,
    )


def _list_beginnings(stem: str) -> Iterator[str]:
    """What the picture was called that a result is named after, the longest first."""
    yield stem
    while "_" in stem:
        stem = stem.rpartition("_")[0]
        yield stem


def _find_alike(
    names: list[_Named], sizes: Callable[[Path], tuple[int, int] | None]
) -> list[_Named]:
    """Those that carry another's name and show the same, smaller or called a copy."""

    def is_suspect(name: _Named, other: _Named) -> bool:
        size, whole = sizes(name.path), sizes(other.path)
        if name is other or size is None or whole is None:
            return False
        width = _compare(size, whole)
        if width is None:
            return False
        if name.kind == _RESULT:
            return other.kind != _RESULT
        if other.kind >= _COPY:
            return False
        return width < (1 + _TOLERANCE if name.kind >= _COPY else _SMALLER)

    known: dict[str, list[_Named]] = {}
    for name in names:
        for stem in {name.stem, name.path.stem.lower()}:
            known.setdefault(stem, []).append(name)
    # What very many are called, as frames of clips are, does not say what they show.
    known = {stem: called for stem, called in known.items() if len(called) <= _MANY}
    return [
        name
        for name in names
        if any(
            is_suspect(name, other) and _show_the_same(name.path, other.path)
            for stem in _list_parts(name.path.stem.lower())
            for other in known.get(stem, ())
        )
    ]


def _compare(size: tuple[int, int], whole: tuple[int, int]) -> float | None:
    """How wide the one is beside the other; None where the proportions differ."""
    width, height = (a / b for a, b in zip(size, whole, strict=True))
    return width if abs(width / height - 1) <= _TOLERANCE else None


def _list_parts(stem: str) -> Iterator[str]:
    """The name, and what is left of it without its first or last words."""
    yield stem
    for gap in _BETWEEN_WORDS.finditer(stem):
        yield from (stem[: gap.start()], stem[gap.end() :])


def _show_the_same(one: Path, other: Path) -> bool:
    """Whether two pictures do not differ but in size and sharpness."""
    mean, whole = (_average(path, path.stat().st_mtime_ns) for path in (one, other))
    if mean is None or whole is None:
        return False
    return bool(np.abs(mean - whole).mean() < _SAME * whole.std() + _ROUNDED)


@cache
def _average(path: Path, _changed: int) -> NDArray[np.float32] | None:
    """Mean grey levels of 8 x 8 parts of a picture; None where it cannot be read.

    A folder is looked through for every scale: what was read is kept.
    """
    try:
        pixels = read_picture(path).pixels
    except InputError:
        return None
    levels = pixels[:, :, :3].mean(axis=2, dtype=np.float32)
    if pixels.dtype != np.uint8:
        levels /= 257
    grey = Image.fromarray(levels)
    return np.asarray(grey.resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX))


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
