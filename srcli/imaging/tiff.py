"""TIFF pages that Pillow would damage or cannot read, and those read by window.

tifffile reads them; what they say beside their pixels is parsed by Pillow, as for all
other files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import InputError
from srcli.imaging import pillow
from srcli.imaging.alpha import peak_level
from srcli.imaging.chunks import Chunk
from srcli.imaging.planes import Planes, in_bands, unmultiply, widen
from srcli.imaging.profiles import convert_cmyk, convert_to_srgb, profile_fits
from srcli.imaging.tiff_pages import (
    COLOURS,
    PREMULTIPLIED,
    STRAIGHT,
    Directory,
    Photometric,
    SampleFormat,
    Tag,
)

log = logging.getLogger(__name__)

_KINDS: Mapping[int, str] = {
    Photometric.PALETTE: "palette",
    Photometric.YCBCR: "YCbCr",
    Photometric.CIELAB: "Lab",
    Photometric.ICCLAB: "Lab",
    Photometric.ITULAB: "Lab",
}
# Bytes that the largest picture has a pixel: RGB and alpha in single precision; and
# that a tile may have beyond those of four pictures.
_MOST_BYTES, _SPARE_BYTES = 16, 1 << 28


class TiffPage:
    """A page of a TIFF file, its pixels not decoded yet; an `Opened`."""

    format = "tiff"
    chunks: tuple[Chunk, ...] = ()

    def __init__(self, file: IO[bytes], page: Directory, name: str) -> None:
        """Read the tags.

        Raises:
            InputError: If the page is of a kind that would lose what it holds.
            ValueError: If the tags make no sense.
        """
        self._file, self._page, self._name = file, page, name
        self._photometric = page.number(Tag.PHOTOMETRIC, Photometric.BLACK_IS_ZERO)
        if page.is_ycbcr_jpeg:
            self._photometric = Photometric.RGB  # which the decoder makes of it
        self._bits = page.number(Tag.BITS, 1)
        self._kind = page.number(Tag.SAMPLE_FORMAT, SampleFormat.UINT)
        self._samples = page.samples
        self._check_kind()
        self._colours = COLOURS[self._photometric]
        if self._samples < self._colours:
            raise ValueError("it has too few samples a pixel")
        self.orientation = page.orientation
        size = page.number(Tag.WIDTH, 0), page.number(Tag.LENGTH, 0)
        self.width, self.height = size if self.orientation < 5 else size[::-1]
        is_float = self._kind == SampleFormat.FLOAT
        self.depth = 32 if is_float else 16 if self._bits > 8 else 8
        self.channels = 1 if self._colours == 1 else 3
        # Which sample is the opacity; others beside the colours are left out.
        opaque = [kind in (PREMULTIPLIED, STRAIGHT) for kind in page.extra]
        self._opacity = self._colours + opaque.index(True) if any(opaque) else None
        self.has_alpha = self._opacity is not None
        self.is_windowed = False  # which whoever opens it may know better
        self._said: set[str] = set()

    @property
    def exif(self) -> Image.Exif:
        """The page's tags, and the directories below them, as Pillow has them."""
        exif = Image.Exif()
        exif.endian = ">" if self._page.tags.prefix == b"MM" else "<"
        exif.bigtiff = self._page.is_big
        exif.load_from_fp(self._file, self._page.offset)
        return exif

    @property
    def has_own_colours(self) -> bool:
        """Whether the pixels are still in the file's own colours."""
        return self._photometric != Photometric.CMYK

    @property
    def info(self) -> Mapping[Any, Any]:
        """What Pillow's `info` would hold: profile, XMP, IPTC, resolution."""
        return {
            "icc_profile": self._page.blob(Tag.ICC),
            "xmp": self._page.blob(Tag.XMP),
            "photoshop": self._page.blob(Tag.PHOTOSHOP),
            "dpi": self._page.dpi,
        }

    def load(self) -> Planes:
        """The pixels, not turned; see `Opened.load`.

        Raises:
            InputError: If they are too many, or floating point that is not finite.
            ValueError: If the file is damaged.
        """
        if self.width * self.height > pillow.MAX_PIXELS:
            raise InputError(
                f"{self._name} has more than {pillow.MAX_PIXELS // 10**6} million "
                "pixels: too many to be read at once; srcli upscale takes it where "
                "the result is a TIFF"
            )
        return self.convert(self._decode())

    def convert(self, samples: NDArray[Any]) -> Planes:
        """The pixels that decoded samples stand for; each by itself.

        Args:
            samples: All samples of some of the pixels as they are stored, (h, w,
                samples): whole numbers of the bits that the page has, or floating
                point.

        Raises:
            InputError: If floating-point samples are not finite.
            ValueError: If they are not of the kind that the tags say.
        """
        # Of a damaged tag, tifffile and Pillow make different things.
        is_float = self._kind == SampleFormat.FLOAT
        kinds = "f" if is_float else "ub"
        if samples.shape[2] != self._samples or samples.dtype.kind not in kinds:
            raise ValueError("its tags contradict each other")
        left = self._samples - self._colours - self.has_alpha
        if left:
            one = "1 further channel is left out"
            self._warn(one if left == 1 else f"{left} further channels are left out")
        planes = self._as_float(samples) if is_float else widen(samples, self._bits)
        return self._colour(planes)

    def _colour(self, planes: NDArray[Any]) -> Planes:
        """Colours and opacity of (h, w, samples) as uint8, uint16 or float32."""
        colours = planes[:, :, : self._colours]
        if self._photometric == Photometric.WHITE_IS_ZERO:
            colours = peak_level(planes.dtype) - colours
        opacity = None
        if self._opacity is not None:
            opacity = planes[:, :, self._opacity]
            if planes.dtype == np.float32:
                opacity = opacity.clip(0, 1)
            if self._page.extra[self._opacity - self._colours] == PREMULTIPLIED:
                colours = unmultiply(colours, opacity)
        if self.has_own_colours:
            return Planes(colours, opacity)
        icc = self._cmyk_profile
        return Planes(convert_cmyk(colours, icc, self._name), opacity, False)

    @cached_property
    def _cmyk_profile(self) -> bytes | None:
        """The page's profile if it can be used for CMYK."""
        icc = self._page.blob(Tag.ICC)
        if icc is None or not profile_fits(icc, self._colours):
            return None
        try:
            convert_to_srgb(np.zeros((1, 1, self._colours), np.uint8), icc)
        except ValueError:
            self._warn("its CMYK profile cannot be used: converted plainly")
            return None
        return icc

    def _warn(self, text: str) -> None:
        """Log something, but of all windows of a page only once."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s: %s", self._name, text)

    def _check_kind(self) -> None:
        """Refuse what `load` cannot keep whole.

        Raises:
            InputError: If the page is of such a kind.
        """
        kind, remedy = None, "with 8 or 16 bits a channel, or in floating point"
        if self._photometric not in COLOURS:
            title = _KINDS.get(self._photometric, "unknown")
            kind, remedy = f"{title} pixels of {self._bits} bits a channel", "as RGB"
        elif self._kind not in tuple(SampleFormat):
            kind = "pixels of an unknown kind"
        elif self._kind != SampleFormat.FLOAT and self._bits > 16:
            kind = f"whole numbers of {self._bits} bits"
        elif self._kind == SampleFormat.INT:
            kind = "signed whole numbers"
        elif (self._kind, self._photometric) == (SampleFormat.FLOAT, Photometric.CMYK):
            kind, remedy = "CMYK in floating point", "as RGB"
        if kind is not None:
            raise InputError(
                f"{self._name} holds {kind}, which are not supported: save it {remedy}"
            )

    def _decode(self) -> NDArray[Any]:
        """All samples as they are stored, (H, W, samples).

        Raises:
            ValueError: If the file is damaged.
        """
        import tifffile  # noqa: PLC0415 - few pictures need it

        self._file.seek(0)
        with tifffile.TiffFile(self._file) as tiff:
            page = tiff.pages[self._page.index]
            assert isinstance(page, tifffile.TiffPage)
            _check_size(page)
            pixels = page.asarray()
            axes = page.axes
        if axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        planes = pixels.reshape(*pixels.shape[:2], -1)
        if axes.strip("YXS"):
            raise ValueError("its tags contradict each other")
        return planes

    def _as_float(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        """Floating point of 16 to 64 bits as 32 bits.

        Raises:
            InputError: If a value is not finite.
        """

        def shorten(band: NDArray[Any]) -> NDArray[Any]:
            with np.errstate(over="ignore"):
                return band.astype(np.float32)

        single = planes
        if planes.dtype != np.float32:
            channels = planes.shape[2]
            single = in_bands(shorten, planes, channels=channels, dtype=np.float32)
        if not np.isfinite(single).all():
            raise InputError(f"{self._name} holds values that are not finite numbers")
        if planes.dtype.itemsize > 4 and (single != planes).any():
            self._warn("its 64-bit values are read with 32 bits")
        return single


def _check_size(page: Any) -> None:  # noqa: ANN401 - tifffile's
    """Refuse a page that claims too much.

    Raises:
        ValueError: If it is one.
    """
    size = page.samplesperpixel * page.dtype.itemsize if page.dtype else 0
    picture = page.imagewidth * page.imagelength * size
    tile = page.tilewidth * page.tilelength * size
    if not 0 < picture <= _MOST_BYTES * pillow.MAX_PIXELS or page.imagedepth > 1:
        raise ValueError("its tags make no sense")
    if tile > 4 * picture + _SPARE_BYTES:
        raise ValueError("its tiles are larger than the picture")
