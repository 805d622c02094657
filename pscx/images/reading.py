"""Image files as RGB pixels ``(height, width, 3)``, uint8."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pscx.errors import ImageError
from pscx.images.conversion import MIN_SIDE, WHITE, background_colour, is_of_levels, rgb
from pscx.images.jpegs import ScanReader
from pscx.images.pngs import PNG, is_png, parsed
from pscx.runtime.memory import OutOfMemoryError, check_memory, out_of_memory
from pscx.runtime.notices import tell
from pscx.runtime.suffixes import IMAGE_KINDS as KINDS

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
BYTES_PER_PIXEL = 16  # peak memory of reading an image: Pillow has four bytes per pixel, in several copies
MAX_PIXELS = 2**28
_pillow_limit = threading.Lock()


def read_image(path: str | Path, *, background: str | None = None) -> NDArray[np.uint8]:
    """One PNG, JPEG, WebP, TIFF or BMP file as sRGB pixels ``(height, width, 3)``, uint8, EXIF orientation applied.

    Colours are converted to sRGB, as a colour-managed viewer shows them; see :mod:`pscx.images.colour`. Greyscale,
    palettes and CMYK become RGB. Of 16 bits the upper eight are kept. Transparent pixels are composited over
    ``background``, a colour of Pillow's ``ImageColor``; none is white, with a warning. Warnings go to the log ``pscx``.

    Raises :class:`ImageError` for a file that is missing, empty, damaged, of another format, animated, smaller than
    16 pixels on a side or larger than 2^28 pixels, :class:`PscxError` if memory does not suffice, ``ValueError`` for
    a background that is not a colour.
    """
    return decode_image(_read_bytes(Path(path)), path, background=background)


def decode_image(data: bytes, path: str | Path, *, background: str | None = None) -> NDArray[np.uint8]:
    """The image in the content of a file, as from :func:`read_image`; ``path`` names it in errors."""
    colour = background_colour(background or WHITE)
    try:
        with out_of_memory(f"reading '{path}'"):
            return _decoded(data, path, None if background is None else colour)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"'{path}' is not a {KINDS} image, or its first bytes are damaged") from error
    except Exception as error:  # decoders raise nearly anything on damaged data: SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
        raise ImageError(f"'{path}' is damaged or cut short and cannot be decoded: {reason}") from error


def image_sides(path: str | Path) -> tuple[int, int] | None:
    """Width and height in the header of a file, before EXIF orientation; none if it cannot be read."""
    try:
        with Path(path).open("rb") as file, _open(file) as image:
            width, height = image.size
            return width, height
    except Exception:  # read_image reports the error later
        return None


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"no such file: '{path}'") from error
    except IsADirectoryError as error:
        raise ImageError(f"'{path}' is a folder: expected one {KINDS} file") from error
    except OSError as error:
        raise ImageError(f"cannot read '{path}': {error.strerror or error}") from error
    if not data:
        raise ImageError(f"'{path}' is empty: expected a {KINDS} image")
    return data


def _open(file: IO[bytes] | io.RawIOBase) -> Image.Image:
    """Pillow's reading of the header, without its limit on pixels (a module global): :func:`_check_header` has ours."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)  # type: ignore[arg-type]
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_header(image: Image.Image, path: str | Path) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"'{path}' is {width}x{height} pixels: an image must be at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise ImageError(f"'{path}' is {width}x{height} pixels: an image must have at most 2^28 = {MAX_PIXELS} pixels")
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and frames > 1:
        raise ImageError(f"'{path}' holds {frames} pages: expected a single image; save the wanted page as one first")
    # A camera's MPO file is a JPEG with previews behind it, not an animation.
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "TIFF"):
        raise ImageError(f"'{path}' is animated: expected a single image; save the wanted frame as one first")
    if not is_of_levels(image.mode):
        raise ImageError(f"'{path}' holds values of no fixed range (mode {image.mode}): save it with 8 bits a channel")
    with _named(path):
        check_memory(BYTES_PER_PIXEL * width * height, f"reading {width}x{height} pixels")


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"'{path}': {error}") from None


def _decoded(data: bytes, path: str | Path, background: tuple[int, ...] | None) -> NDArray[np.uint8]:
    png = parsed(data) if is_png(data) else None
    scan = ScanReader(data) if data[:2] == b"\xff\xd8" else None
    with _open(scan or io.BytesIO(data if png is None else png.data)) as image:
        _check_header(image, path)
        info = {str(key): value for key, value in image.info.items()} | _colour_of(image, png)
        image.load()
        if scan is not None and scan.fault:
            tell(f"'{path}' is a damaged JPEG, {scan.fault}: what a viewer shows of it is used")
        if png is not None and png.faults:
            tell(f"'{path}' has a damaged {' and '.join(png.faults)}, which is ignored")
        return rgb(image if png is None else png.loaded(image), info, path, background)


def _colour_of(image: Image.Image, png: PNG | None) -> dict[str, Any]:
    """What a file says of its colours beside what Pillow tells."""
    if png is not None:
        return png.colour
    try:
        exif = image.getexif()
        adobe = exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03" and exif.get_ifd(ExifTags.IFD.Exif).get(0xA001) != 1
    except Exception:  # a damaged record is ignored
        return {}
    return {"adobe_rgb": adobe}
