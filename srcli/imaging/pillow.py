"""Pictures that Pillow reads, which is kept quiet and within bounds."""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

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
from srcli.imaging.picture import PictureInfo
from srcli.imaging.planes import Planes, split_alpha, widen
from srcli.imaging.profiles import convert_cmyk, find_cmyk

log = logging.getLogger(__name__)

MAX_PIXELS = 500_000_000  # an input of more is taken for a decompression bomb
MAX_WINDOWED_PIXELS = 100_000_000_000  # of what is never decoded as a whole
_TOO_LARGE = (
    "{} claims more than {} million pixels: refused; save it as a tiled TIFF in grey "
    "or RGB, or cut it into parts"
)
_MOST_SAID = 200  # characters of a library's message that are passed on
_HEAD = 1 << 16  # bytes in which a header is looked for
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
_OTHERS = {
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "HEIC": rb"....ftyp(hei[cxms]|hev[cxms]|mi[fa][12f].*?heic)",
    "a Photoshop document (PSD)": rb"8BPS",
    "a GIMP picture (XCF)": rb"gimp xcf",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?(RADIANCE|RGBE)",
    "a PDF": rb"%PDF-",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,1000}?)?(<!--.{0,1000}?-->\s*)?"
    rb"(<!DOCTYPE svg|<svg)",
    "an icon (ICO)": rb"\0\0\x01\0",
    "a film": rb"....ftyp(isom|mp4[12]|qt  )",
    "PNM": rb"P[1-7]\s",
    "a DICOM picture": rb".{128}DICM",
    _RAW: rb"FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|....ftypcrx|II.{4}HEAPCCDR|\0MRM|FOVb",
}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG

_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr")
# Flags of an AVIF: AV1 in ISOBMFF, section 2.3.3.
_HIGH_BITDEPTH, _TWELVE_BIT, _MONOCHROME = 0x40, 0x20, 0x10
# Bits a channel of a PNG by what Pillow decodes it as, for those that may have a key.
_KEYED = {"L;2": 2, "L;4": 4, "L": 8, "RGB": 8}


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

    def _set(self, where: Any, name: str, value: int) -> None:  # noqa: ANN401
        self._saved.callback(setattr, where, name, getattr(where, name))
        setattr(where, name, value)

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._saved.enter_context(warnings.catch_warnings())
                handler = logging.NullHandler()  # or their logs would reach stderr
                for library in _LIBRARIES:
                    warnings.filterwarnings("ignore", module=rf"{library}\b")
                    logger = logging.getLogger(library)
                    logger.addHandler(handler)
                    self._saved.callback(logger.removeHandler, handler)
                # It refuses twice as many.
                self._set(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2)
                # A profile or a text may be larger than Pillow's cautious megabyte.
                self._set(PngImagePlugin, "MAX_TEXT_CHUNK", _MAX_TEXT)
                self._set(PngImagePlugin, "MAX_TEXT_MEMORY", _MAX_TEXT)
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
def blame(name: str, file: IO[bytes] | None = None) -> Iterator[None]:
    """A block of which whatever a decoder raises becomes an `InputError`.

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


def _explain_unknown(file: IO[bytes] | None) -> str:
    """Why Pillow did not know a file."""
    head = b""
    if file is not None:
        file.seek(0)
        head = file.read(_HEAD)
    if head[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        return "is AVIF, which this Pillow cannot read: install pillow 11.3 or later"
    known = (kind for kind, said in _OTHERS.items() if re.match(said, head, re.DOTALL))
    kind = next(known, None)
    for marker, start in list_segments(head):
        if marker in _FRAMES and head[start + 4] != 8:  # ITU-T T.81, section B.2.2
            kind = f"a JPEG of {head[start + 4]} bits"
    if kind == _RAW:
        return f"is {kind}: develop it first"
    if kind is not None:
        return f"is {kind}, which is not supported: save it as PNG, JPEG or TIFF"
    read = ", ".join(entry.title for entry in FORMATS.values())
    return f"is not a picture that can be read ({read} or GIF), or it is damaged"


class PillowFile:
    """A file that Pillow reads, except that other libraries decode deep pixels.

    Attributes:
        info: What its header says.
        chunks: PNG chunks that say its colours and what it is about.
        said: What Pillow calls info: profile, EXIF, XMP, resolution, texts.
        exif: Its EXIF; empty where it cannot be read.
    """

    def __init__(
        self, file: IO[bytes], image: Image.Image, name: str, frame: int, frames: int
    ) -> None:
        """Read the header of a file; `image`, opened from it, stands at the frame."""
        self._file, self._image, self._name, self._frame = file, image, name, frame
        file.seek(0)
        head = file.read(_HEAD)
        self.chunks: tuple[Chunk, ...] = ()
        self._is_whole = True
        spoken = image  # that knows what is said beside the pixels
        if image.format == "PNG":
            chunks, self._is_whole = read_ancillary(file)
            self.chunks = carried(chunks)
            spoken = identify(io.BytesIO(one_pixel(chunks)))
        elif image.format == "AVIF":
            self.chunks = find_nclx(head)
        self.said = spoken.info
        try:
            self.exif = spoken.getexif()
        except MALFORMED:
            self.exif = Image.Exif()
        self._size = width, height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and self.orientation >= 5:
            width, height = height, width
        self._bits, is_grey = _read_depth(image, head)
        # An animated PNG's frames are composed by Pillow, in 8 bits.
        self._is_deep = self._bits > 8 and not (image.format == "PNG" and frame)
        formats = {entry.pillow: key for key, entry in FORMATS.items()} | {"MPO": "jpg"}
        self.info = PictureInfo(
            formats.get(image.format or "", "png"),
            width,
            height,
            alpha=image.has_transparency_data,
            depth=16 if self._is_deep else 8,
            channels=1 if is_grey else 3,
            frames=frames,
        )

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
        if self._is_deep:
            planes = self._decode_deep()
        else:
            if self._bits > 8:
                said = "%s: its %d bits a channel are read as 8"
                log.warning(said, self._name, self._bits)
            self._image.load()
            planes = split_alpha(*decode_planes(self._image, self._name))
        if planes.pixels.shape[1::-1] != self._size:
            raise ValueError("its frames differ in size")
        if not self._is_whole:
            log.warning("%s: its metadata are damaged: some may be lost", self._name)
        if self.info.channels < planes.pixels.shape[2]:
            return planes._replace(pixels=planes.pixels[:, :, :1])  # all are the same
        return planes

    def _decode_deep(self) -> Planes:
        """The pixels of a PNG or AVIF of more than 8 bits, in the full 16-bit range."""
        if self.info.format == "png":
            levels = imagecodecs.png_decode(read_critical(self._file))
        else:
            self._file.seek(0)
            levels = imagecodecs.avif_decode(self._file.read(), index=self._frame)
        levels = levels if levels.ndim == 3 else levels[:, :, None]
        return split_alpha(widen(levels, self._bits))


def open_frame(file: IO[bytes], name: str, frame: int | None) -> PillowFile:
    """A file that Pillow reads, not yet decoded; see `files.open_picture`.

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
    return PillowFile(file, image, name, index, frames)


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
        levels = np.atleast_1d(key) & peak
        scaled = tuple((levels * (255 // peak)).tolist())
        scaled_key = scaled if isinstance(key, tuple) else scaled[0]
        image.info = {**image.info, "transparency": scaled_key}
    is_faint = image.format == "BMP" and image.mode == "RGBA"
    if is_faint and image.getchannel("A").getextrema() == (0, 0):
        opaque = image.convert("RGB")
        opaque.format = image.format
        return opaque
    return image


def _read_depth(image: Image.Image, head: bytes) -> tuple[int, bool]:
    """Bits a channel in a file, and whether it is grey, whatever Pillow makes of it.

    Raises:
        ValueError: If its first bytes, `head`, are not what they have to be.
    """
    if image.format == "PNG":  # third edition, section 11.2.1
        if head[12:16] != b"IHDR":
            raise ValueError("its header does not come first")
        return head[24], head[25] in (0, 4)
    box = head.find(b"av1C") if image.format == "AVIF" else -1
    if box >= 0:
        (flags,) = head[box + 6 : box + 7] or b"\0"
        bits = 8 if not flags & _HIGH_BITDEPTH else 12 if flags & _TWELVE_BIT else 10
        return bits, bool(flags & _MONOCHROME)
    return 8, image.format != "AVIF" and image.mode in _GREY_MODES


def decode_planes(image: Image.Image, name: str) -> tuple[NDArray[np.uint8], bool]:
    """What Pillow loaded, of 8 bits a channel at most.

    Returns:
        (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha; and whether they
        are still in the file's own colours.

    Raises:
        InputError: If the pixels are of a kind that would lose what they hold.
    """
    if image.mode == "CMYK":
        icc = find_cmyk(image.info.get("icc_profile"), name)
        return convert_cmyk(np.asarray(image), icc), False
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise InputError(
            f"{name} holds {image.mode} pixels, which are not supported: "
            "save it with 8 or 16 bits a channel"
        )
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    mode += "A" if image.has_transparency_data else ""
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True
