"""Picture files in and out: whatever a file holds becomes a `Picture`, and back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from srcli.errors import InputError
from srcli.imaging import pillow
from srcli.imaging.box import Box
from srcli.imaging.encode import encode
from srcli.imaging.formats import format_of
from srcli.imaging.geometry import find_stored, turn_upright
from srcli.imaging.metadata import Metadata, read_metadata
from srcli.imaging.picture import (
    Picture,
    PictureInfo,
    find_stripped,
    strip_metadata,
)
from srcli.imaging.pillow import PillowFile, choose_frame, open_frame
from srcli.imaging.planes import Planes
from srcli.imaging.profiles import convert_to_srgb
from srcli.storage import Place, fetch, reached, show_path
from srcli.writing import write_whole

if TYPE_CHECKING:
    from srcli.imaging.tiff.layout import Page
    from srcli.imaging.tiff.read import PageReader

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_STEP = 2048  # px; side of the boxes in which a picture is gone through
_REMOTE_BLOCK = 1 << 18  # bytes that are fetched at a time from a remote file


class PictureFile:
    """A picture file whose pixels are read when they are asked for; not thread-safe.

    `open_picture` makes it.

    Attributes:
        info: What its header says.
    """

    def __init__(self, file: IO[bytes], opened: PillowFile | Page, name: str) -> None:
        self._file, self._opened, self._name = file, opened, name
        self.info = opened.info
        self._whole: Picture | None = None
        self._own = Metadata()
        self._icc: bytes | None = None  # that boxes are converted from
        self._turned = opened.orientation  # which Pillow forgets once it has turned it

    @property
    def metadata(self) -> Metadata:
        """What goes from the input file to the output file."""
        return self._own if self._whole is None else self._whole.metadata

    @cached_property
    def levels(self) -> tuple[float, float]:
        """`Picture.levels` of the whole; may be set by who knows them.

        Of floating point that is read by box, all of it is read once to find them.

        Raises:
            InputError: As `read`.
        """
        if self._whole is not None:
            return self._whole.levels
        if self.info.depth != 32:
            return 0, 2**self.info.depth - 1
        black, white = 0.0, 1.0
        height, width = self.info.height, self.info.width
        for top in range(0, height, _STEP):
            for left in range(0, width, _STEP):
                bottom, right = min(top + _STEP, height), min(left + _STEP, width)
                low, high = self._part(Box(top, left, bottom, right)).levels
                black, white = min(black, low), max(white, high)
        return black, white

    def read(self, box: Box | None = None) -> Picture:
        """The pixels in a box, `whole_levels` set; None is all of the picture.

        Raises:
            InputError: If the file is damaged, or holds values that are not finite.
        """
        if self._whole is None:
            part = self._part(box or Box(0, 0, self.info.height, self.info.width))
            return replace(part, whole_levels=self.levels)
        if box is None:
            return self._whole
        alpha = self._whole.alpha
        return replace(
            self._whole,
            pixels=self._whole.pixels[box.slices],
            alpha=None if alpha is None else alpha[box.slices],
            whole_levels=self.levels,
        )

    def _load(self, *, keep_metadata: bool) -> None:
        """Read all of the picture."""
        opened = self._opened
        with pillow.blame(self._name):
            if isinstance(opened, PillowFile):
                planes = opened.load()
            else:
                opened.check_size()
                planes = self._reader.read(Box(0, 0, *opened.stored))
            channels = planes.pixels.shape[2] if planes.own_colours else 0
            whole = self._upright(planes, self._describe(channels))
            self._whole = whole if keep_metadata else strip_metadata(whole, self._name)
        del self._opened, self._file  # Pillow holds the pixels once more

    def _prepare(self, *, keep_metadata: bool) -> None:
        """Have boxes read from the file."""
        opened = self._opened
        if isinstance(opened, PillowFile) or not self.info.is_windowed:
            raise InputError(
                f"{self._name} cannot be read by box: only TIFFs can, in tiles or "
                "strips of moderate size and with few channels"
            )
        with pillow.blame(self._name):
            channels = self.info.channels
            self._own = self._describe(channels if opened.has_own_colours else 0)
            if not keep_metadata:
                own = self._own, channels, self._name
                self._own, self._icc = find_stripped(*own)

    @cached_property
    def _reader(self) -> PageReader:
        from srcli.imaging.tiff.read import PageReader  # noqa: PLC0415 - few need tifffile

        assert not isinstance(self._opened, PillowFile)
        return PageReader(self._file, self._opened)

    def _describe(self, channels: int) -> Metadata:
        """The metadata of the file; see `read_metadata`."""
        said = self._opened.said, self._opened.exif, self._opened.chunks
        size = self.info.width, self.info.height
        return read_metadata(*said, self._name, channels, size, self._turned)

    def _part(self, box: Box) -> Picture:
        """The pixels in a box, without metadata."""
        height, width = self.info.height, self.info.width
        stored = find_stored(box, height, width, self._opened.orientation)
        with pillow.blame(self._name):
            part = self._upright(self._reader.read(stored), self._own)
        if self._icc is None:
            return part
        return replace(part, pixels=convert_to_srgb(part.pixels, self._icc))

    def _upright(self, planes: Planes, metadata: Metadata) -> Picture:
        turned, alpha = self._opened.orientation, planes.alpha
        alpha = alpha if alpha is None else turn_upright(alpha, turned)
        pixels = turn_upright(planes.pixels, turned)
        return Picture(pixels, alpha, metadata, self.info.format)


@contextmanager
def open_picture(
    source: Place | bytes,
    *,
    name: str | None = None,
    frame: int | None = None,
    keep_metadata: bool = True,
    by_box: bool = False,
) -> Iterator[PictureFile]:
    """A picture file opened to be read.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.
        frame: Which of several frames or pages, from 1; None is the only one.
        keep_metadata: Whether metadata are kept; else colours are converted to sRGB.
        by_box: Whether it is never decoded as a whole, as it may be larger than memory;
            only a picture whose `info.is_windowed` is can be read so.

    Raises:
        InputError: If the file cannot be read, is no picture or a damaged one, holds
            several pictures and none was chosen, is implausibly large, or is of a kind
            that would lose what it holds (32-bit integers). With `by_box` what is about
            the pixels is raised by `read`.
    """
    if by_box:
        with _opened(source, name, frame) as picture:
            picture._prepare(keep_metadata=keep_metadata)
            yield picture
        return
    if not isinstance(source, (Path, bytes)):
        name = name or str(source)
        source = fetch(source)  # in one piece: all of it is needed
    with _opened(source, name, frame) as picture:
        picture._load(keep_metadata=keep_metadata)
    yield picture


def probe_picture(
    source: Place | bytes, *, name: str | None = None, frame: int | None = None
) -> PictureInfo:
    """The format and size of a picture file, without decoding its pixels.

    Arguments and errors are those of `open_picture`, as far as the header tells.
    """
    with _opened(source, name, frame) as picture:
        return picture.info


def read_picture(
    source: Place | bytes, *, name: str | None = None, frame: int | None = None
) -> Picture:
    """The picture in a file, upright, in grey or RGB, with its metadata.

    Arguments and errors are those of `open_picture`.
    """
    with open_picture(source, name=name, frame=frame) as picture:
        return picture.read()


@contextmanager
def _opened(
    source: Place | bytes, name: str | None, frame: int | None
) -> Iterator[PictureFile]:
    """A picture file whose header has been read; see `open_picture`."""
    if name is None:
        name = "the picture" if isinstance(source, bytes) else show_path(source)
    with pillow.quiet(), _open_stream(source, name) as file:
        head = file.read(16)
        if not head:
            raise InputError(f"{name} is empty")
        if head[8:10] == b"CR" and head[:4] in _TIFF_MAGIC:
            raise InputError(f"{name} is a camera's raw file: develop it first")
        with pillow.blame(name, file):
            is_tiff = head[:4] in _TIFF_MAGIC
            opened = (_open_page if is_tiff else open_frame)(file, name, frame)
            info = opened.info
            most = pillow.MAX_WINDOWED_PIXELS if info.is_windowed else pillow.MAX_PIXELS
            pillow.check_size(info.width, info.height, name, most)
            picture = PictureFile(file, opened, name)
        yield picture


@contextmanager
def _open_stream(source: Place | bytes, name: str) -> Iterator[IO[bytes]]:
    """A file opened for reading."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if not isinstance(source, Path):
        with reached(name, InputError, "read"):
            file = source.fs.open(source.path, "rb", block_size=_REMOTE_BLOCK)
        with file:
            yield file
        return
    try:
        if source.is_dir():
            raise InputError(f"{name} is a folder, not a picture")
        if source.exists() and not source.is_file():
            # To open a named pipe could wait forever.
            raise InputError(f"{name} is no file but a device or pipe: use - for stdin")
        file = source.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} cannot be read: {reason}") from error
    with file:
        yield file


def _open_page(file: IO[bytes], name: str, frame: int | None) -> PillowFile | Page:
    """A page of a TIFF."""
    from srcli.imaging.tiff import layout  # noqa: PLC0415 - few pictures need tifffile

    pages = layout.list_pages(file, name)
    chosen = pages[choose_frame(name, frame, len(pages), "page")]
    if chosen.compression not in layout.ONLY_LIBTIFF:
        return layout.Page(file, chosen, name, len(pages))
    image = pillow.identify(file)
    image.seek(chosen.index)
    return PillowFile(file, image, name, chosen.index, len(pages))


def encode_picture(picture: Picture, format: str, quality: int = 95) -> bytes:
    """The bytes of a picture file.

    Args:
        picture: The picture.
        format: A key of `FORMATS`.
        quality: 1 to 100, for JPEG, WebP (100 is lossless) and AVIF.

    Raises:
        OutputError: If the format cannot hold the picture, or Pillow cannot write it.
    """
    buffer = io.BytesIO()
    encode(picture, buffer, format, quality, "the picture")
    return buffer.getvalue()


def write_picture(
    picture: Picture,
    path: Place,
    *,
    format: str | None = None,
    quality: int = 95,
    replace: bool = True,
    run: str | None = None,
) -> int:
    """Write a picture file, which appears whole or not at all; return its bytes.

    Args:
        picture: The picture.
        path: Where, here or remote. A hidden file is beside it meanwhile.
        format: A key of `FORMATS`; None takes it from the suffix of `path`, or where
            that names none, from `picture.format`.
        quality: As `encode_picture`.
        replace: Whether a file of this name may be there.
        run: As `srcli.writing.write_whole`.

    Raises:
        OutputError: If the format cannot hold the picture, or the file cannot be
            written.
    """
    format = format or format_of(path) or picture.format
    with write_whole(path, replace=replace, run=run) as part:
        with part.open("w+b") as file:
            encode(picture, file, format, quality, str(path))
        return part.stat().st_size
