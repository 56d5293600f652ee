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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError, _imaging, features

from srcli.errors import InputError
from srcli.imaging.chunks import (
    Chunk,
    carried,
    find_nclx,
    list_segments,
    one_pixel,
    read_ancillary,
    read_critical,
)
from srcli.imaging.exif import MALFORMED, read_orientation
from srcli.imaging.formats import FORMATS
from srcli.imaging.planes import Planes, split_alpha, widen
from srcli.imaging.profiles import convert_cmyk
from srcli.storage import Place, reached

log = logging.getLogger(__name__)

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


_HEADER = 1 << 16  # bytes in which a header is looked for

_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr")

# PNG: third edition, section 11.2.1; the signature, length and name of IHDR come first.
_PNG_HEADER, _PNG_DEPTH, _PNG_COLOUR = slice(12, 16), 24, 25
_PNG_GREY = (0, 4)  # colour types, without and with alpha
# Flags of an AVIF: AV1 in ISOBMFF, section 2.3.3.
_HIGH_BITDEPTH, _TWELVE_BIT, _MONOCHROME = 0x40, 0x20, 0x10


# Bits a channel of a PNG by what Pillow decodes it as, for those that may have a key.
_KEYED: Mapping[str, int] = MappingProxyType({"L;2": 2, "L;4": 4, "L": 8, "RGB": 8})


class PillowFile:
    """A file that Pillow reads, except that other libraries decode deep pixels.

    Attributes:
        format: The file format, a key of `FORMATS`.
        width: In pixels, turned upright.
        height: In pixels, turned upright.
        has_alpha: Whether it has transparency.
        depth: Bits a channel that its pixels come in: 8 or 16.
        channels: Of colour, 1 or 3.
        chunks: PNG chunks that say its colours and what it is about.
        is_windowed: Whether its pixels can be read by box: they cannot.
        info: What Pillow calls so: profile, EXIF, XMP, resolution, texts.
        exif: Its EXIF; empty where it cannot be read.
    """

    is_windowed = False

    def __init__(
        self, file: IO[bytes], image: Image.Image, name: str, frame: int
    ) -> None:
        """Read the header.

        Args:
            file: The file that `image` was opened from.
            image: It, standing at the frame.
            name: What messages call it.
            frame: Which frame, from 0.
        """
        self._file, self._image, self._name, self._frame = file, image, name, frame
        file.seek(0)
        head = file.read(_HEADER)
        names = {entry.pillow: name for name, entry in FORMATS.items()}
        kind = "JPEG" if image.format == "MPO" else image.format or ""
        self.format = names.get(kind, "png")
        self.chunks: tuple[Chunk, ...] = ()
        self._is_whole = True
        spoken = image  # that knows what is said beside the pixels
        if image.format == "PNG":
            chunks, self._is_whole = read_ancillary(file)
            self.chunks = carried(chunks)
            spoken = identify(io.BytesIO(one_pixel(chunks)))
        elif image.format == "AVIF":
            self.chunks = find_nclx(head)
        self.info: Mapping[Any, Any] = spoken.info
        try:
            self.exif = spoken.getexif()
        except MALFORMED:
            self.exif = Image.Exif()
        self._size = self.width, self.height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and self.orientation >= 5:
            self.width, self.height = self.height, self.width
        self.has_alpha = image.has_transparency_data
        self._bits = _stored_bits(image, head)
        # An animated PNG's frames are composed by Pillow, in 8 bits.
        self._is_deep = self._bits > 8 and not (image.format == "PNG" and frame)
        self.depth = 16 if self._is_deep else 8
        self.channels = 1 if _is_grey(image, head) else 3

    @property
    def orientation(self) -> int:
        """The EXIF orientation that `load` leaves to be applied, 1 to 8.

        It is 1 once a TIFF is loaded, which Pillow turns itself.
        """
        return read_orientation(self.exif)

    def load(self) -> Planes:
        """The pixels as stored.

        Raises:
            InputError: If they are of a kind that would lose what it holds.
            ValueError: If the file is damaged (others: what decoders raise).
        """
        planes = self._decode()
        if planes.pixels.shape[1::-1] != self._size:
            raise ValueError("its frames differ in size")
        if not self._is_whole:
            log.warning("%s: its metadata are damaged: some may be lost", self._name)
        if self.channels < planes.pixels.shape[2]:
            return planes._replace(pixels=planes.pixels[:, :, :1])  # all are the same
        return planes

    def _decode(self) -> Planes:
        if self._is_deep:
            return _decode_deep(self._file, self.format, self._bits, self._frame)
        if self._bits > 8:
            log.warning(
                "%s: its %d bits a channel are read as 8", self._name, self._bits
            )
        self._image.load()
        planes, own_colours = decode_planes(self._image, self._name)
        return split_alpha(planes)._replace(own_colours=own_colours)


def open_frame(file: IO[bytes], name: str, frame: int | None) -> tuple[PillowFile, int]:
    """A file that Pillow reads, not yet decoded, and how many frames it has.

    Args:
        file: The file.
        name: What messages call it.
        frame: Which of several frames, from 1; None is the only one.

    Raises:
        InputError: If it has several frames and none was chosen, has no such frame, or
            more than `MAX_PIXELS` (others: what Pillow raises).
    """
    image = identify(file)
    check_size(*image.size, name)  # before anything is decoded, as to count frames
    image = mend(image)
    frames = getattr(image, "n_frames", 1)
    if frame is None and image.format == "MPO":
        frame = 1  # a JPEG that carries more pictures, such as a depth map
    index = choose_frame(name, frame, frames, "frame")
    for number in range(frames > 1 and index + 1):
        image.seek(number)
        check_size(*image.size, name)  # frames of a GIF may outgrow it
    return PillowFile(file, image, name, index), frames


def mend(image: Image.Image) -> Image.Image:
    """An opened picture whose transparency Pillow tells otherwise than it is meant.

    It gives the transparent colour of a PNG in the file's own depth (PNG, third
    edition, section 11.3.2.1: of more bits than that the lowest count), but pixels of 8
    bits. A BMP whose alpha is zero everywhere has none: older programs leave the byte
    empty, and Windows shows the picture.
    """
    key, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = tiles[0].args if tiles else ""
    if image.format == "PNG" and key is not None and rawmode in _KEYED:
        peak = 2 ** _KEYED[rawmode] - 1
        levels = key if isinstance(key, tuple) else (key,)
        scaled = tuple((level & peak) * (255 // peak) for level in levels)
        scaled_key = scaled if isinstance(key, tuple) else scaled[0]
        image.info = {**image.info, "transparency": scaled_key}
    is_faint = image.format == "BMP" and image.mode == "RGBA"
    if is_faint and image.getchannel("A").getextrema() == (0, 0):
        opaque = image.convert("RGB")
        opaque.format = image.format
        return opaque
    return image


def _stored_bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel in the file, whatever Pillow makes of them.

    Args:
        image: What Pillow opened.
        head: The first bytes of the file.

    Raises:
        ValueError: If they do not begin as they have to.
    """
    if image.format == "PNG":
        if head[_PNG_HEADER] != b"IHDR":
            raise ValueError("its header does not come first")
        return head[_PNG_DEPTH]
    if image.format == "AVIF":
        flags = _avif_flags(head)
        return 8 if not flags & _HIGH_BITDEPTH else 12 if flags & _TWELVE_BIT else 10
    return 8


def _is_grey(image: Image.Image, head: bytes) -> bool:
    """Whether the file has no colours, whatever Pillow makes of it.

    Args:
        image: What Pillow opened.
        head: The first bytes of the file.
    """
    if image.format == "PNG":
        return head[_PNG_COLOUR] in _PNG_GREY
    if image.format == "AVIF":
        return bool(_avif_flags(head) & _MONOCHROME)
    return image.mode in _GREY_MODES


def _avif_flags(head: bytes) -> int:
    """What the first bytes of an AVIF say of the depth and colours that it has."""
    box = head.find(b"av1C")
    return 0 if box < 0 else int.from_bytes(head[box + 6 : box + 7], "big")


def decode_planes(image: Image.Image, name: str) -> tuple[NDArray[np.uint8], bool]:
    """What Pillow loaded.

    Args:
        image: The loaded picture, of 8 bits a channel at most.
        name: What messages call it.

    Returns:
        (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha; and whether they
        are still in the file's own colours.

    Raises:
        InputError: If the pixels are of a kind that would lose what they hold.
    """
    if image.mode == "CMYK":
        icc = image.info.get("icc_profile") or None
        return convert_cmyk(np.asarray(image), icc, name), False
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise InputError(
            f"{name} holds {image.mode} pixels, which are not supported: "
            "save it with 8 or 16 bits a channel"
        )
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    mode += "A" if image.has_transparency_data else ""
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True


def _decode_deep(file: IO[bytes], format: str, bits: int, frame: int) -> Planes:
    """The pixels of a PNG or AVIF of more than 8 bits a channel.

    Args:
        file: The file.
        format: "png" or "avif".
        bits: Bits a channel.
        frame: Which frame, from 0.

    Returns:
        uint16 in the full range.

    Raises:
        ValueError: If the file is damaged (RuntimeError: if the decoder says so).
    """
    if format == "png":
        levels = imagecodecs.png_decode(read_critical(file))
    else:
        file.seek(0)
        levels = imagecodecs.avif_decode(file.read(), index=frame)
    levels = levels if levels.ndim == 3 else levels[:, :, None]
    return split_alpha(widen(levels, bits))


def choose_frame(name: str, frame: int | None, frames: int, kind: str) -> int:
    """Which frame is read, from 0.

    Raises:
        InputError: If none was chosen of several, or one that is not there.
    """
    if frame is None and frames > 1:
        raise InputError(
            f"{name} has {frames} {kind}s: choose one with --frame 1 to {frames}"
        )
    if frame is not None and not 1 <= frame <= frames:
        has = f"{frames} {kind}s" if frames > 1 else f"one {kind} only"
        raise InputError(f"{name} has {has}: there is no {kind} {frame}")
    return (frame or 1) - 1
