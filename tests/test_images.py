"""pscx.images and pscx.runtime.files: every kind of file that is taken, and the sentence for each that is not."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pscx.errors import ImageError, PscxError
from pscx.images import as_pixels, read_image, to_pixels, to_tensor, write_image
from pscx.runtime.files import check_output, write_whole

Pixels = NDArray[np.uint8]


def save(path: Path, image: Image.Image, *args: Any, **kwargs: Any) -> Path:
    image.save(path, *args, **kwargs)
    return path


def png(width: int, height: int, depth: int, color: int, rows: list[bytes], text: bytes = b"") -> bytes:
    """A PNG file written by hand from its rows of bytes: the reader's depth of 16 has a second opinion."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + comment + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# Reading


@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".webp", {"lossless": True})])
def test_lossless_formats_come_back_exactly(tmp_path: Path, cat: Pixels, suffix: str, options: dict[str, bool]) -> None:
    pixels = read_image(save(tmp_path / f"x{suffix}", Image.fromarray(cat), **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, cat)


def test_jpeg_is_close(tmp_path: Path, cat: Pixels) -> None:
    pixels = read_image(save(tmp_path / "x.jpg", Image.fromarray(cat), quality=95, subsampling=0))
    assert 0 < np.abs(pixels.astype(float) - cat).mean() < 3


def test_the_content_decides_not_the_suffix(tmp_path: Path, cat: Pixels) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.jpg", Image.fromarray(cat), "PNG")), cat)


def test_greyscale_becomes_three_equal_channels(tmp_path: Path, cat: Pixels) -> None:
    grey = cat[:, :, 1]
    pixels = read_image(save(tmp_path / "x.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = np.indices((16, 16)).sum(0) % 3 == 0
    pixels = read_image(save(tmp_path / "x.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(pixels, np.where(bits, 255, 0)[:, :, None].repeat(3, 2))


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    indices = np.indices((16, 16)).sum(0).astype(np.uint8) % 4
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", image)), colours[indices])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_laid_over_white(tmp_path: Path, cat: Pixels, suffix: str) -> None:
    alpha = np.full(cat.shape[:2], 255, np.uint8)
    alpha[:40], alpha[40:80] = 0, 128
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    image = Image.fromarray(np.dstack([cat, alpha]))
    pixels = read_image(save(tmp_path / f"x{suffix}", image, **options))
    weight = alpha[:, :, None] / 255
    expected = weight * cat + (1 - weight) * 255
    assert np.abs(pixels - expected).max() <= 1
    np.testing.assert_array_equal(pixels[80:], cat[80:])
    assert (pixels[:40] == 255).all()


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    indices = np.indices((16, 16)).sum(0).astype(np.uint8) % 2
    image = Image.fromarray(indices)
    image.putpalette([200, 0, 0, 0, 0, 200])
    pixels = read_image(save(tmp_path / "x.png", image, transparency=1))
    np.testing.assert_array_equal(pixels, np.where(indices[:, :, None], [255, 255, 255], [200, 0, 0]))


def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16 * 32).astype(">u2").reshape(16, 32)
    file = tmp_path / "x.png"
    file.write_bytes(png(32, 16, 16, 0, [row.tobytes() for row in values]))
    pixels = read_image(file)
    np.testing.assert_array_equal(pixels, (values // 256)[:, :, None].repeat(3, 2))


def test_16_bit_colour_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16 * 32 * 3).astype(">u2").reshape(16, 32, 3)
    file = tmp_path / "x.png"
    file.write_bytes(png(32, 16, 16, 2, [row.tobytes() for row in values]))
    np.testing.assert_array_equal(read_image(file), values // 256)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path, cat: Pixels) -> None:
    image = Image.fromarray(cat).convert("CMYK")
    pixels = read_image(save(tmp_path / "x.jpg", image, quality=95))
    assert np.abs(pixels.astype(float) - cat).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_exif_orientation_is_applied(
    tmp_path: Path, cat: Pixels, orientation: int, turned: Callable[[Pixels], Pixels]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / "x.png", Image.fromarray(cat), exif=exif)
    np.testing.assert_array_equal(read_image(file), turned(cat))


def test_a_damaged_exif_record_leaves_the_image_as_stored(tmp_path: Path, cat: Pixels) -> None:
    file = save(tmp_path / "x.png", Image.fromarray(cat), exif=b"no record at all")
    np.testing.assert_array_equal(read_image(file), cat)


def test_a_camera_jpeg_with_a_preview_is_no_animation(tmp_path: Path, cat: Pixels) -> None:
    image, preview = Image.fromarray(cat), Image.fromarray(cat[:32, :32])
    file = save(tmp_path / "x.jpg", image, "MPO", save_all=True, append_images=[preview])
    assert read_image(file).shape == cat.shape


def test_an_image_beyond_pillows_limit_is_read(tmp_path: Path, cat: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", Image.fromarray(cat))), cat)
    assert Image.MAX_IMAGE_PIXELS == 100


# Refusing to read


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no such file: '.*gone\.png'"):
        read_image(tmp_path / "gone.png")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder: expected one PNG, JPEG, WebP, TIFF or BMP file"):
        read_image(tmp_path)


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        read_image(tmp_path / ("x" * 5000))


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    with pytest.raises(ImageError, match=r"x\.png' is empty"):
        read_image(tmp_path / "x.png")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello" * 100)
    with pytest.raises(ImageError, match=r"x\.png' is not a PNG, JPEG, WebP, TIFF or BMP image"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO"])
def test_other_formats(tmp_path: Path, cat: Pixels, kind: str) -> None:
    with pytest.raises(ImageError, match="is not a PNG, JPEG, WebP, TIFF or BMP image"):
        read_image(save(tmp_path / "x.png", Image.fromarray(cat), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, cat: Pixels, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(cat).save(buffer, kind)
    data = buffer.getvalue()
    (tmp_path / "x").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match="x' is damaged or cut short"):
        read_image(tmp_path / "x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, astronaut: Pixels, kind: str) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(astronaut[:32, :32]).save(buffer, kind)
    refused = 0
    for _ in range(60):
        data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        data[rng.integers(8, len(data), 8)] = rng.integers(0, 256, 8)
        (tmp_path / "x").write_bytes(data.tobytes())
        try:
            read_image(tmp_path / "x")
        except ImageError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("size", [100, 2**26])
def test_a_comment_of_any_size_is_not_unpacked(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.png").write_bytes(png(16, 16, 8, 0, [bytes(16)] * 16, text=bytes(size)))
    assert not read_image(tmp_path / "x.png").any()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations(tmp_path: Path, cat: Pixels, kind: str) -> None:
    frames = [Image.fromarray(cat), Image.fromarray(255 - cat)]
    file = save(tmp_path / "x", frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="is animated: expected a single image"):
        read_image(file)


def test_small_images(tmp_path: Path, cat: Pixels) -> None:
    with pytest.raises(ImageError, match=r"is 160x15 pixels: an image must be at least 16x16"):
        read_image(save(tmp_path / "x.png", Image.fromarray(cat[:15])))
    assert read_image(save(tmp_path / "y.png", Image.fromarray(cat[:16, :16]))).shape == (16, 16, 3)


def test_a_header_of_huge_size_is_refused_before_decoding(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(2**15, 2**14, 8, 2, []))
    with pytest.raises(ImageError, match=r"is 32768x16384 pixels: an image must have at most 2\^28"):
        read_image(tmp_path / "x.png")


# Writing


@pytest.mark.parametrize("name", ["x.png", "x.webp", "X.PNG"])
def test_written_pixels_are_read_back_exactly(tmp_path: Path, rocket: Pixels, name: str) -> None:
    write_image(tmp_path / name, rocket)
    np.testing.assert_array_equal(read_image(tmp_path / name), rocket)


def test_written_files_are_what_their_suffix_says(tmp_path: Path, rocket: Pixels) -> None:
    for suffix, kind in ((".png", "PNG"), (".webp", "WEBP")):
        write_image(tmp_path / f"x{suffix}", rocket)
        with Image.open(tmp_path / f"x{suffix}") as image:
            assert image.format == kind


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.jpg", "JPEG would change"), ("x.JPEG", "JPEG would change"), ("x.bmp", "got '.bmp'"), ("x", "got ''")],
)
def test_other_suffixes_are_not_written(tmp_path: Path, rocket: Pixels, name: str, message: str) -> None:
    with pytest.raises(PscxError, match=message):
        write_image(tmp_path / name, rocket)
    assert not list(tmp_path.iterdir())


def test_webp_that_is_too_wide(tmp_path: Path) -> None:
    with pytest.raises(PscxError, match=r"at most 16383 pixels a side, got 16384x16; use \.png"):
        write_image(tmp_path / "x.webp", np.zeros((16, 16384, 3), np.uint8))


@pytest.mark.parametrize(("shape", "dtype"), [((16, 16), np.uint8), ((16, 16, 3), float), ((16, 16, 4), np.uint8)])
def test_only_rgb_pixels_are_written(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    pixels: NDArray[Any] = np.zeros(shape, dtype)
    with pytest.raises(ValueError, match="pixels must"):
        write_image(tmp_path / "x.png", pixels)


def test_a_file_is_overwritten_by_force_only(tmp_path: Path, rocket: Pixels) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"before")
    with pytest.raises(PscxError, match=r"x\.png' exists already: give --force"):
        write_image(file, rocket)
    assert file.read_bytes() == b"before"
    write_image(file, rocket, force=True)
    np.testing.assert_array_equal(read_image(file), rocket)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "x.bin", b"data")
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"data"


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_whole(tmp_path / "x.bin", b"data")
    assert stat.S_IMODE((tmp_path / "x.bin").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "x.bin").write_bytes(b"before")

    def fail(fd: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    expected = PscxError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_whole(tmp_path / "x.bin", b"after", force=True)
    if expected is PscxError:
        assert str(caught.value) == f"cannot write '{tmp_path / 'x.bin'}': No space left on device"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.bin", b"before")]


def test_outputs_that_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(PscxError, match="is a folder: the output must name a file"):
        check_output(tmp_path, force=True)
    if Path("/dev/null").exists():
        with pytest.raises(PscxError, match="'/dev/null' is not a regular file"):
            check_output("/dev/null", force=True)
    (tmp_path / "file").touch()
    with pytest.raises(PscxError, match="cannot write"):
        write_whole(tmp_path / "file" / "x.bin", b"data")
    with pytest.raises(PscxError, match="cannot write"):
        write_whole(tmp_path / ("x" * 5000), b"data")


# In memory


def test_tensors_round_trip_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    tensor = to_tensor(levels)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min().item(), tensor.max().item()) == (-1, 1)
    for dtype in (torch.float32, torch.float64):
        np.testing.assert_array_equal(to_pixels(tensor.to(dtype)), levels)


def test_tensors_keep_rows_columns_and_channels_apart(cat: Pixels) -> None:
    tensor = to_tensor(cat)
    assert tensor[0, 1, 5, 70].item() == pytest.approx(cat[5, 70, 1] / 127.5 - 1)
    np.testing.assert_array_equal(to_pixels(tensor), cat)


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-3.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.0, 7.0])
    pixels = to_pixels(values.expand(1, 3, 1, 6))
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [(torch.zeros(3, 4, 4), r"\(1, 3, height, width\)"), (torch.full((1, 3, 4, 4), torch.nan), "NaN")],
)
def test_pixels_of_no_image(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels(tensor)


def test_every_kind_of_image_gives_the_same_pixels(cat: Pixels) -> None:
    kinds: list[Image.Image | Pixels | torch.Tensor] = [
        Image.fromarray(cat),
        Image.fromarray(cat).convert("RGBA"),
        cat,
        to_tensor(cat),
        to_tensor(cat)[0],
        to_tensor(cat).double().requires_grad_(),
        torch.from_numpy(cat).permute(2, 0, 1),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(as_pixels(kind), cat)


def test_greyscale_arrays_become_rgb(cat: Pixels) -> None:
    np.testing.assert_array_equal(as_pixels(cat[:, :, 0]), cat[:, :, :1].repeat(3, 2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32, 3)), "pixels must be uint8, got float64"),
        (np.zeros((32, 32, 4), np.uint8), r"\(height, width, 3\), got \(32, 32, 4\)"),
        (np.zeros((3, 32, 32), np.uint8), r"\(height, width, 3\), got \(3, 32, 32\)"),
        (torch.zeros(32, 32, 3), r"\(3, height, width\) or \(1, 3, height, width\), got \(32, 32, 3\)"),
        (torch.zeros(2, 3, 32, 32), r"got \(2, 3, 32, 32\)"),
        (torch.zeros(32, 32), r"got \(32, 32\)"),
        (torch.full((3, 32, 32), 1.01), r"\[-1, 1\], got values in \[1.01, 1.01\]"),
        (torch.full((3, 32, 32), torch.nan), r"\[-1, 1\], got values in \[nan, nan\]"),
        (torch.zeros(3, 32, 32, dtype=torch.int64), r"floating-point in \[-1, 1\] or uint8, got torch.int64"),
        (Image.new("F", (32, 32)), "image mode 'F' has no fixed range"),
    ],
)
def test_images_in_memory_that_are_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_pixels(image)


@pytest.mark.parametrize(
    ("image", "size"),
    [(np.zeros((15, 32, 3), np.uint8), "32x15"), (torch.zeros(3, 8, 32), "32x8"), (Image.new("L", (8, 8)), "8x8")],
)
def test_images_in_memory_that_are_too_small(image: Any, size: int) -> None:
    with pytest.raises(ImageError, match=f"at least 16x16 pixels, got {size}"):
        as_pixels(image)


def test_no_image_at_all() -> None:
    with pytest.raises(TypeError, match="Pillow image, a numpy array or a torch tensor, got str"):
        as_pixels("photo.png")  # type: ignore[arg-type]  # wrong on purpose
