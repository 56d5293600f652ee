"""The pictures below a folder, each once: its copies in other sizes are left out.

A copy is one by its name and its size: a folder or its name says that it was reduced,
blurred or enlarged, and the picture of the same name without such words is there, in
the same proportions. Of others, both are looked at: one that carries another's name and
shows the same, smaller or enlarged, is a copy (docs/training.md, "Data").
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
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
    r"(?:x(?P<factor>16|[1-8](?:\.\d+)?)(?:[md]|w\d)?|[-_. ]\d+x\d+)"
)
_BESIDE_HR = re.compile(r"(?P<rest>.+)_srf_(?P<scale>[2-8])_(?!hr$|lr$).+")
_SEPARATORS = re.compile(r"[-_. ]+")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_TOLERANCE = 0.1  # of proportions: sides are cropped to multiples of up to 12
_SMALLER = 0.75  # of the width: from here on a picture may be a reduced one
_MANY = 100  # pictures of one name, of which none is looked at
_BLOCKS = 8  # a side, by whose means two pictures are compared
_SAME = 0.3  # of the spread of these means: what two of the same may be apart,
_ROUNDED = 2.0  # and grey levels on top


@dataclass(eq=False)
class _Named:
    """A picture and what its name says."""

    path: Path
    key: tuple[str, ...]  # the words left of its folders and name, in lower case
    stem: str  # its name as far as it is left
    kind: int  # index in `_KINDS`
    scale: int  # what it was made for, by its folder or as an HR picture; 0 for any
    said: bool  # whether a word, or a folder, calls it a copy that is no larger

    def rank(self, scale: int) -> tuple[int, int, int]:
        """Sort key, the best first: whole pictures, then `scale`; copies behind."""
        made_for = 1 if self.scale == scale else self.scale
        return max(self.kind, _PLAIN), made_for, self.kind

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """Width and height; None where they cannot be read."""
        try:
            info = probe_picture(self.path)
        except InputError:
            return None
        return info.width, info.height

    def compare(self, other: _Named) -> float | None:
        """How wide it is beside another; None where the proportions differ."""
        if self.size is None or other.size is None:
            return None
        width, height = (a / b for a, b in zip(self.size, other.size, strict=True))
        return width if abs(width / height - 1) <= _TOLERANCE else None


def find_originals(folder: Path, scale: int = 0) -> list[Path]:
    """Every picture below a folder but copies of others; a line says what is left out.

    Where pictures are called HR or GT, all those called LR or LQ are left out.

    Args:
        folder: What lies below it is looked at; its own name says nothing.
        scale: Of pictures that are kept once for each scale, which one to take; where
            it is missing, or 0, that of the smallest, which was cropped least.
    """
    names = [_read_name(path, folder) for path in _walk(folder)]
    called: dict[object, list[_Named]] = defaultdict(list)
    for name in names:
        for words in {name.key, name.stem, name.path.stem.lower()}:
            called[words].append(name)
    copies = {name for name in names if _is_copy(name, called, scale)}
    kept = [name for name in names if name not in copies]
    if any(name.kind in (_HR, _GT, _CROPPED) for name in kept):
        copies |= {name for name in kept if name.kind == _LR}
        kept = [name for name in kept if name not in copies]
    told = [name.path for name in copies if name.kind >= _CROPPED]
    if told:
        firsts = {path.parent: path for path in sorted(told, reverse=True)}
        shown = [show_path(path.relative_to(folder)) for path in firsts.values()]
        _tell_once(
            f"{show_path(folder)}: {len(told)} of {len(names)} pictures left out as "
            f"copies of others, by name and size, such as {', '.join(shown[-3:])}"
        )
    if scale and (others_made := {name.scale for name in kept} - {0, scale}):
        log.warning(
            "%s has no HR pictures for x%d: those for x%d are cropped further",
            show_path(folder), scale, min(others_made),
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


def _walk(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every picture file below `folder`; no link back up leads in circles."""
    above |= {folder.resolve()}
    for entry in list_folder(folder):
        if entry.is_dir():
            if entry.resolve() not in above:
                yield from _walk(entry, above)
        elif entry.suffix.lower() in _SUFFIXES:
            yield entry


def _read_name(path: Path, folder: Path) -> _Named:
    said, scale, left = [], 0, []
    for part in path.relative_to(folder).parts[:-1]:
        for word in _WORD.finditer(part.lower()):
            said.append(word.lastgroup)
            scale = int(word["scale"] or word["times"] or scale)
        left.append(_WORD.sub("", part.lower()))
    stem, made_for, tagged = path.stem.lower(), 0, bool(said)
    patterns = (_BESIDE_HR, _LAST_WORD, _GLUED_WORD, _TAG, _FIRST_WORD, _ONLY_WORD)
    while found := next(filter(None, (p.fullmatch(stem) for p in patterns)), None):
        stem, parts, tagged = found["rest"], found.groupdict(), True
        number = parts.get("scale") or parts.get("times") or parts.get("factor")
        made_for = int(float(number)) if number else made_for
        said += [kind for kind in _KINDS if parts.get(kind)]
        if found.re is _BESIDE_HR:
            said.append("copy")
    kinds = [_KINDS.index(word) for word in said if word in _KINDS]
    kind = max(kinds) if kinds else _TAGGED if tagged else _PLAIN
    return _Named(
        path=path,
        key=tuple(filter(None, _SEPARATORS.split("_".join([*left, stem])))),
        stem=stem,
        kind=kind,
        scale=scale or (made_for if kind <= _CROPPED else 0),
        said=bool(said) and kind != _RESULT,
    )


def _is_copy(name: _Named, called: dict[object, list[_Named]], scale: int) -> bool:
    """Whether one of the others, by what they are called, is its original."""
    if any(_is_said_copy(name, other, scale) for other in called[name.key]):
        return True
    stem = name.path.stem.lower()
    gaps = list(_BETWEEN_WORDS.finditer(stem))
    ends = {part for gap in gaps for part in (stem[: gap.start()], stem[gap.end() :])}
    return any(
        _may_be_alike(name, other) and _show_the_same(name.path, other.path)
        for part in {stem, name.stem} | ends
        # What very many are called, as frames of clips are, says nothing of them.
        if len(called.get(part, ())) <= _MANY
        for other in called.get(part, ())
    )


def _is_said_copy(name: _Named, other: _Named, scale: int) -> bool:
    """Whether words say so, and its size does not speak against it."""
    if other.rank(scale) >= name.rank(scale):
        return False
    if not name.said and other.kind > _CROPPED:
        return False
    width = name.compare(other)
    # What cannot be read is no loss.
    return name.size is None if width is None else width < 1 + _TOLERANCE


def _may_be_alike(name: _Named, other: _Named) -> bool:
    """Whether it is a copy if both show the same."""
    width = None if name is other else name.compare(other)
    if width is None or other.kind == _RESULT:
        return False
    if name.kind == _RESULT or (name.kind in (_TAGGED, _COPY) and other.kind < _TAGGED):
        return True  # which may be enlarged
    if other.kind >= _COPY or name.kind < other.kind == _TAGGED:
        return False
    return width < (1 + _TOLERANCE if name.kind == _LR else _SMALLER)


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


@cache
def _tell_once(message: str) -> None:
    """A folder is looked through for every scale."""
    log.info("%s", message)
