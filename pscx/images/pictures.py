"""Image files, images in memory and tensors: everything becomes RGB pixels ``(height, width, 3)``, uint8, and back."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from pscx.errors import ImageError, PscxError
from pscx.images.colour import in_srgb, srgb_profile
from pscx.images.jpegs import ScanReader
from pscx.images.pngs import PNG, is_png, parsed, upper_bits
from pscx.runtime.files import write_whole
from pscx.runtime.memory import OutOfMemoryError, check_memory, out_of_memory
from pscx.runtime.notices import tell

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
KINDS = "PNG, JPEG, WebP, TIFF or BMP"
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
WHITE = "white"
BYTES_PER_PIXEL = 16  # that reading an image holds at once, at most: Pillow has four for a pixel, in several copies
MIN_SIDE = 16
MAX_PIXELS = 2**28
WEBP_MAX_SIDE = 16383

_pillow_limit = threading.Lock()


def read_image(path: str | Path, *, background: str | None = None) -> NDArray[np.uint8]:
    """One PNG, JPEG, WebP, TIFF or BMP file as sRGB pixels ``(height, width, 3)``, uint8, EXIF orientation applied.

    Colours are converted to sRGB, as a colour-managed viewer shows them; see :mod:`pscx.images.colour`. Greyscale,
    palettes and CMYK become RGB. Of 16 bits the upper eight are kept. Transparent pixels are laid over ``background``,
    a colour as Pillow's ``ImageColor`` takes it; none is white, with a warning. Warnings go to the log ``pscx``.

    Raises :class:`ImageError` for a file that is missing, empty, damaged, of another format, animated, smaller than
    16 pixels on a side or larger than 2^28 pixels, :class:`PscxError` where memory does not suffice, ``ValueError`` for
    a background that is no colour.
    """
    return decode_image(_read_bytes(Path(path)), path, background=background)


def decode_image(data: bytes, path: str | Path, *, background: str | None = None) -> NDArray[np.uint8]:
    """What an image file of that content holds, as :func:`read_image` has it; errors call it ``path``."""
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


def background_colour(name: str) -> tuple[int, ...]:
    """Red, green and blue of a colour such as ``white`` or ``#8040ff``. Raises ``ValueError`` where it is none."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ValueError(f"background must be a colour such as white or #8040ff, got '{name}'") from None


def image_sides(path: str | Path) -> tuple[int, int] | None:
    """Width and height as the header of a file tells them, before EXIF orientation; none where it tells nothing."""
    try:
        with Path(path).open("rb") as file, _open(file) as image:
            width, height = image.size
            return width, height
    except Exception:  # whatever is wrong, read_image says it when the image is asked for
        return None


def write_image(path: str | Path, pixels: NDArray[np.uint8], *, force: bool = False) -> None:
    """Write RGB pixels ``(height, width, 3)``, uint8, without loss as ``.png`` or ``.webp``, whole or not at all.

    The file is tagged as sRGB.

    Raises :class:`PscxError` for another suffix, where the file exists and ``force`` is off, or where it cannot be
    written; ``ValueError`` for pixels of another shape or type.
    """
    write_whole(path, encode_image(pixels, path), force=force)


def encode_image(pixels: NDArray[np.uint8], path: str | Path) -> bytes:
    """The content of a file of the name ``path``; takes and raises what :func:`write_image` does."""
    check_image_suffix(path)
    _check_pixels(pixels)
    lossless_webp = Path(path).suffix.lower() == ".webp"
    if lossless_webp and max(pixels.shape[:2]) > WEBP_MAX_SIDE:
        raise PscxError(f"'{path}': WebP holds at most {WEBP_MAX_SIDE} pixels a side, got {_size(pixels)}; use .png")
    buffer = io.BytesIO()
    if lossless_webp:
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, icc_profile=srgb_profile())
    else:
        tag = PngImagePlugin.PngInfo()
        tag.add(b"sRGB", b"\0")
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=tag)
    return buffer.getvalue()


def check_image_suffix(path: str | Path) -> None:
    """Raise :class:`PscxError` unless :func:`write_image` can write a file of that name."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise PscxError(f"'{path}': JPEG would change the decoded pixels; the output must end in .png or .webp")
    if suffix not in (".png", ".webp"):
        raise PscxError(f"'{path}': the output image must end in .png or .webp, got '{suffix}'")


def as_pixels(image: Image.Image | NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
    """An image in memory as RGB pixels ``(height, width, 3)``, uint8; at least 16x16.

    Takes a Pillow image of any mode that :func:`read_image` meets (treated likewise), an array ``(height, width, 3)``
    or ``(height, width)`` of uint8, or a tensor ``(3, height, width)`` or ``(1, 3, height, width)``, either
    floating-point in [-1, 1] or uint8.

    Raises :class:`ImageError` for a side under 16 pixels, ``ValueError`` for another shape, dtype, mode or range,
    ``TypeError`` for another kind of object.
    """
    if isinstance(image, Image.Image):
        told: dict[str, Any] = {str(key): value for key, value in image.info.items()}
        pixels = _rgb(image, told, getattr(image, "filename", "") or "the image", None)
    elif isinstance(image, np.ndarray):
        pixels = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    elif isinstance(image, Tensor):
        pixels = _tensor_pixels(image.detach())
    else:
        raise TypeError(f"image must be a Pillow image, a numpy array or a torch tensor, got {type(image).__name__}")
    _check_pixels(pixels)
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ImageError(f"an image must be at least {MIN_SIDE}x{MIN_SIDE} pixels, got {_size(pixels)}")
    return pixels


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels ``(height, width, 3)``, uint8, as a tensor ``(1, 3, height, width)``, float32 in [-1, 1]."""
    image = torch.from_numpy(np.array(pixels))
    return rearrange(image, "h w c -> 1 c h w").float().contiguous() / 127.5 - 1


def to_pixels(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor ``(1, 3, height, width)``, nominally in [-1, 1], as pixels ``(height, width, 3)``, uint8.

    Values are clipped, then rounded to the nearest level. Raises ``ValueError`` for another shape or for NaN.
    """
    if tensor.ndim != 4 or tensor.shape[:2] != (1, 3):
        raise ValueError(f"tensor must have the shape (1, 3, height, width), got {tuple(tensor.shape)}")
    if tensor.isnan().any():
        raise ValueError("tensor must hold numbers only, got NaN")
    levels = tensor.detach().cpu().double().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = rearrange(levels, "1 c h w -> h w c").contiguous().numpy()
    return pixels


def pattern_pixels(row: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A row of a transform ``(channels, height, width)`` as pixels: grey is 0, the largest magnitude black or white.

    Three channels are shown in the colours that they are; of others the first is shown.
    """
    row = row if len(row) == 3 else row[:1].repeat(3, 0)
    scaled = 0.5 + 0.5 * row / max(float(np.abs(row).max()), 1e-12)
    pixels: NDArray[np.uint8] = (scaled.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    return pixels


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
        raise ImageError(f"'{path}' is {width}x{height} pixels: an image must have at most 2^28 = {MAX_PIXELS}")
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and frames > 1:
        raise ImageError(f"'{path}' holds {frames} pages: expected a single image; save the wanted page as one first")
    # A camera's MPO file is a JPEG with previews behind it, not an animation.
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "TIFF"):
        raise ImageError(f"'{path}' is animated: expected a single image; save the wanted frame as one first")
    if not _is_of_levels(image.mode):
        raise ImageError(f"'{path}' holds numbers of no fixed range (mode {image.mode}): save it with 8 bits a channel")
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
        return _rgb(image if png is None else png.loaded(image), info, path, background)


def _colour_of(image: Image.Image, png: PNG | None) -> dict[str, Any]:
    """What a file says of its colours beside what Pillow tells."""
    if png is not None:
        return png.colour
    try:
        exif = image.getexif()
        adobe = exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03" and exif.get_ifd(ExifTags.IFD.Exif).get(0xA001) != 1
    except Exception:  # a damaged record tells nothing
        return {}
    return {"adobe_rgb": adobe}


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the orientation is a hint: where its record is damaged the pixels still count, as stored
        return image


def _rgb(
    image: Image.Image, info: Mapping[str, Any], name: str | Path, background: tuple[int, ...] | None
) -> NDArray[np.uint8]:
    """A loaded image, of which a file says ``info``, as sRGB pixels; without a background over white."""
    if not _is_of_levels(image.mode):
        raise ValueError(f"image mode '{image.mode}' has no fixed range of values; convert it to 'L' or 'RGB' first")
    image = _plain(_upright(image))
    if image.mode not in ("LA", "RGBA"):
        return np.array(in_srgb(image, info, str(name)))
    alpha = image.getchannel("A")
    colour = in_srgb(image.convert(image.mode[:-1]), info, str(name))
    if alpha.getextrema()[0] == 255:
        return np.array(colour)
    if background is None:
        tell(f"'{name}' has transparent pixels: they are laid over white (compress --background COLOR)", "transparent")
    colour.putalpha(alpha)
    below = Image.new("RGBA", colour.size, (*(background or (255, 255, 255)), 255))
    return np.array(Image.alpha_composite(below, colour).convert("RGB"))


def _is_of_levels(mode: str) -> bool:
    return mode in MODES or mode.startswith("I;16")


def _plain(image: Image.Image) -> Image.Image:
    """An image as L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith("I;16"):
        return upper_bits(image)
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    if image.mode == "CMYK":
        return image
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _tensor_pixels(image: Tensor) -> NDArray[np.uint8]:
    shape = tuple(image.shape)
    if len(shape) < 3 or shape[-3] != 3 or shape[:-3] not in ((), (1,)):
        raise ValueError(f"tensor must have the shape (3, height, width) or (1, 3, height, width), got {shape}")
    image = image.reshape(1, *shape[-3:])
    if image.dtype == torch.uint8:
        pixels: NDArray[np.uint8] = rearrange(image.cpu(), "1 c h w -> h w c").contiguous().numpy()
        return pixels
    if not image.is_floating_point():
        raise ValueError(f"tensor must be floating-point in [-1, 1] or uint8, got {image.dtype}")
    if image.numel() and not (image.min() >= -1 and image.max() <= 1):
        raise ValueError(f"tensor must lie in [-1, 1], got values in [{image.min():g}, {image.max():g}]")
    return to_pixels(image)


def _check_pixels(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must have the shape (height, width, 3), got {pixels.shape}")


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
