"""Pillow kept quiet and within bounds: every failure is one `InputError`."""

from __future__ import annotations

import ctypes
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, PngImagePlugin, UnidentifiedImageError, _imaging, features

from srcli.errors import InputError
from srcli.imaging.chunks import list_segments
from srcli.imaging.formats import FORMATS
from srcli.storage import Place, reached

MAX_PIXELS = 500_000_000  # an input of more is taken for a decompression bomb
MAX_WINDOWED_PIXELS = 100_000_000_000  # of what is never decoded as a whole
_TOO_LARGE = "{} claims more than {} million pixels: refused; cut it into parts"
_REMOTE_BLOCK = 1 << 18  # bytes that are fetched at a time from a remote file
_MOST_SAID = 200  # characters of a library's message that are passed on
_HEAD, _FOOTER = 1 << 20, 26  # bytes in which the kind of a file is looked for
_MAX_TEXT = 32 << 20  # bytes; so is a text of more in a PNG

# What decoders raise on damaged files, found by feeding them many.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, AssertionError, RuntimeError, EOFError, struct.error, zlib.error,
)  # fmt: skip

_LIBRARIES = ("PIL", "tifffile", "imagecodecs")

# A GIF of one frame is a palette picture like any other.
_READABLE = (*(entry.pillow for entry in FORMATS.values()), "GIF")


# Formats that people take for pictures, by what their files begin with.
_RAW = "a camera's raw file"
_SIGNATURES = (
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("JPEG XR", rb"II\xbc"),
    ("HEIC", rb"....ftyp(hei[cxms]|hev[cxms]|mi[fa][12f].*?heic)"),
    ("a Photoshop document (PSD)", rb"8BPS"),
    ("a GIMP picture (XCF)", rb"gimp xcf"),
    ("OpenEXR", rb"v/1\x01"),
    ("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),
    ("a PDF", rb"%PDF-"),
    ("PostScript", rb"%!PS"),
    (
        "SVG",
        rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,1000}?)?(<!--.{0,1000}?-->\s*)?"
        rb"(<!DOCTYPE svg|<svg)",
    ),
    ("an icon (ICO)", rb"\0\0\x01\0"),
    ("a film", rb"....ftyp(isom|mp4[12]|qt  )"),
    ("an icon (ICNS)", rb"icns"),
    ("a texture (DDS)", rb"DDS "),
    ("PNM", rb"P[1-7]\s"),
    ("QOI", rb"qoif"),
    ("FLIF", rb"FLIF"),
    ("BPG", rb"BPG\xfb"),
    ("MNG", rb"\x8a[MJ]NG\r\n\x1a\n"),
    ("PCX", rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]"),
    ("a FITS picture", rb"SIMPLE  ="),
    ("a DICOM picture", rb".{128}DICM"),
    (
        _RAW,
        rb"FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|....ftypcrx|II.{4}HEAPCCDR|\0MRM|FOVb",
    ),
)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG
_OTHERS = tuple((kind, re.compile(known, re.DOTALL)) for kind, known in _SIGNATURES)


class _Settings:
    """Pillow's global settings as we need them while any thread is inside.

    Its warnings are kept from the user, and its own limit of pixels gives way to
    `MAX_PIXELS`, so that it refuses more before it sets aside memory for them. Neither
    may be set and set back by two threads in turns, so the first one in sets them and
    the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = ExitStack()

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(warnings.catch_warnings())
                for library in _LIBRARIES:
                    warnings.filterwarnings("ignore", module=rf"{library}\b")
                most = Image.MAX_IMAGE_PIXELS
                self._saved.callback(setattr, Image, "MAX_IMAGE_PIXELS", most)
                Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # it refuses twice as many
                # A profile or a text may be larger than Pillow's cautious megabyte.
                for limit in ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY"):
                    kept = getattr(PngImagePlugin, limit)
                    self._saved.callback(setattr, PngImagePlugin, limit, kept)
                    setattr(PngImagePlugin, limit, _MAX_TEXT)
                # Nor may their logs reach stderr where nobody has asked for them.
                handler = logging.NullHandler()
                for library in _LIBRARIES:
                    logger = logging.getLogger(library)
                    logger.addHandler(handler)
                    self._saved.callback(logger.removeHandler, handler)
                self._saved.enter_context(_silent_libtiff())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._saved.close()


quiet = _Settings().hold


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """libtiff, which Pillow decodes with, printing nothing on stderr by itself.

    Pillow offers no way to say so. Where its libtiff cannot be reached, it prints.
    """
    try:
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        yield
        return
    set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
    handler = set_handler(None)
    try:
        yield
    finally:
        set_handler(handler)


@contextmanager
def blame(name: str, file: IO[bytes] | None = None) -> Iterator[None]:
    """Whatever a decoder raises inside the `with` block becomes an `InputError`.

    Args:
        name: What messages call the file.
        file: It, where nothing is known of it yet.

    Raises:
        InputError: If the block raises what a decoder raises.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        raise InputError(f"{name} {_explain_unknown(file)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(_TOO_LARGE.format(name, MAX_PIXELS // 10**6)) from error
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory") from error
    except DECODE_ERRORS as error:
        detail = explain(error)
        fault = "is damaged or cut off"
        if "unsupported" in detail.lower():
            fault = "is of a kind that is not supported"
        raise InputError(f"{name} {fault}: {detail}") from error


def explain(error: Exception) -> str:
    """What a library says of a failure, in one line that a terminal can be given."""
    said = str(getattr(error, "strerror", None) or error)
    said = " ".join(said.split()) or type(error).__name__
    plain = "".join(letter if letter.isprintable() else "?" for letter in said)
    return plain if len(plain) <= _MOST_SAID else f"{plain[:_MOST_SAID]}..."


def identify(file: IO[bytes]) -> Image.Image:
    """The picture in a file, its header read, its pixels not.

    Raises:
        UnidentifiedImageError: If it is of no known kind (others: what Pillow raises).
    """
    file.seek(0)
    return Image.open(file, formats=_READABLE)


def check_size(width: int, height: int, name: str, most: int = MAX_PIXELS) -> None:
    """Refuse what would not be opened for fear of a decompression bomb.

    Raises:
        InputError: If it has more than `most` pixels.
        ValueError: If it has none.
    """
    if width < 1 or height < 1:
        raise ValueError("it has no pixels")
    if width * height > most:
        raise InputError(_TOO_LARGE.format(name, most // 10**6))


@contextmanager
def open_stream(source: Place | bytes, name: str) -> Iterator[IO[bytes]]:
    """A file opened for reading.

    Raises:
        InputError: If it cannot be opened.
    """
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


def _explain_unknown(file: IO[bytes] | None) -> str:
    """Why Pillow did not know a file."""
    head = tail = b""
    if file is not None:
        file.seek(max(0, file.seek(0, 2) - _FOOTER))
        tail = file.read()
        file.seek(0)
        head = file.read(_HEAD)
    if head[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        return "is AVIF, which this Pillow cannot read: install pillow 11.3 or later"
    kind = next((kind for kind, known in _OTHERS if known.match(head)), None)
    for marker, start in list_segments(head):
        if marker == 0xF7:
            kind = "JPEG-LS"
        elif marker in _FRAMES and head[start + 4] != 8:  # ITU-T T.81, section B.2.2
            kind = f"a JPEG of {head[start + 4]} bits"
    if tail.endswith(b"TRUEVISION-XFILE.\0"):
        kind = "TGA"
    if kind == _RAW:
        return f"is {kind}: develop it first"
    if kind is not None:
        return f"is {kind}, which is not supported: save it as PNG, JPEG or TIFF"
    known = ", ".join(entry.title for entry in FORMATS.values())
    return f"is not a picture that can be read ({known} or GIF), or it is damaged"
