"""Work of the demo without the page: checks uploads, compresses photographs, decodes streams frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image

from pscx.api import Codec, Decompressor
from pscx.codecs import Segment, SignalCodec
from pscx.codecs.pixels import shown
from pscx.compression.restoring import Choice
from pscx.demo.feed import told
from pscx.errors import ImageError, PscxError, StreamError
from pscx.images import MIN_SIDE, image_sides, read_image
from pscx.rate_control import Target
from pscx.rate_control.trials import Pixels


@dataclass(frozen=True)
class Bounds:
    """Limits of uploads.

    Args:
        bytes: largest file, in bytes, at least 1.
        pixels: largest photograph or decoded image, in pixels, at least 256 (16x16).
        scaled: largest photograph that is scaled down to ``pixels``, in pixels; it is decoded in full first.
    """

    bytes: int = 20_000_000
    pixels: int = 1 << 20
    scaled: int = 1 << 26

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise PscxError(f"the largest upload must be at least 1 byte, got {self.bytes}")
        if self.pixels < MIN_SIDE**2:
            raise PscxError(f"the largest image must be at least {MIN_SIDE**2} pixels, got {self.pixels}")


@dataclass(frozen=True)
class Coding:
    """``done`` of ``total`` iterations of the encoder are finished."""

    done: int
    total: int


@dataclass(frozen=True)
class Frame:
    """The mean of a decoder's samples after ``segments`` of ``total``, ``(height, width, 3)`` uint8."""

    segments: int
    total: int
    pixels: Pixels


@dataclass(frozen=True)
class Compressed:
    """A photograph's stream, not decoded yet."""

    data: bytes


@dataclass(frozen=True)
class Restored:
    """The image of a stream, ``(height, width, 3)`` uint8, from ``segments`` of ``total``; ``cut`` says why not all."""

    segments: int
    total: int
    pixels: Pixels
    cut: str = ""


Event = Coding | Compressed | Frame | Restored


def photograph(path: str | Path, bounds: Bounds, *, shrink: bool = False) -> Pixels:
    """The pixels of an upload. One with too many is scaled down with ``shrink``, else refused.

    Raises :class:`ImageError` for a file that is too large, or that :func:`pscx.read_image` refuses; its header is
    checked before anything is decoded.
    """
    _check_bytes(path, bounds)
    sides = image_sides(path)
    limit = max(bounds.scaled, bounds.pixels) if shrink else bounds.pixels
    if sides is not None and sides[0] * sides[1] > limit:
        way_out = "scale it down beforehand" if shrink else "have it scaled down"
        raise ImageError(
            f"the photograph has {sides[0]}x{sides[1]} = {sides[0] * sides[1]} pixels; at most {limit} are "
            f"accepted: {way_out}, or start pscx demo with a larger --max-pixels"
        )
    pixels = read_image(path)
    return scaled_down(pixels, bounds.pixels) if shrink else pixels


def scaled_down(pixels: Pixels, limit: int) -> Pixels:
    """An image with at most ``limit`` pixels, in its proportions as far as no side falls below 16; else as it is."""
    height, width = pixels.shape[:2]
    if height * width <= limit:
        return pixels
    factor = (limit / (height * width)) ** 0.5
    short = max(int(min(height, width) * factor), MIN_SIDE)
    long = min(int(max(height, width) * factor), limit // short)
    size = (long, short) if width >= height else (short, long)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def stream(path: str | Path, bounds: Bounds) -> bytes:
    """The bytes of an uploaded stream. Raises ``StreamError`` if it is not a stream, or too large by size or header."""
    _check_bytes(path, bounds)
    data = Path(path).read_bytes()
    if not data:
        raise StreamError("the file is empty: expected a .pscx stream")
    facts = Decompressor.info(data)
    if facts["height"] * facts["width"] > bounds.pixels:
        raise StreamError(
            f"the stream holds {facts['width']}x{facts['height']} = {facts['height'] * facts['width']} pixels; at "
            f"most {bounds.pixels} are decoded here: start pscx demo with a larger --max-pixels"
        )
    return data


def compressing(
    codec: Codec, pixels: Pixels, target: Target | None = None, perception: float | None = None
) -> Iterator[Event | None]:
    """Compress a photograph, then decode its stream: :class:`Coding`, :class:`Compressed`, and as :func:`decoding`."""
    Choice(perception=perception).of_codec(codec.signal_codec)  # raises before any work

    def work(tell: Callable[[Event], None]) -> None:
        data = codec.encode(pixels, target=target, progress=lambda done, total: tell(Coding(done, total))).data
        tell(Compressed(data))
        _decode(codec, data, perception, tell)

    return told(work)


def decoding(decompressor: Decompressor, data: bytes, perception: float | None = None) -> Iterator[Event | None]:
    """Decode a stream: a :class:`Frame` after each segment, and :class:`Restored` in the end.

    None where nothing happens for a while; see :func:`pscx.demo.feed.told`. ``perception`` chooses the
    restoration for a stream of a recipe; none: the stream's own.
    """
    return told(lambda tell: _decode(decompressor, data, perception, tell))


def _decode(decompressor: Decompressor, data: bytes, perception: float | None, tell: Callable[[Event], None]) -> None:
    facts = decompressor.info(data)

    def watch(codec: SignalCodec, segment: Segment) -> None:
        if segment.estimate is not None and segment.segment > 0:  # drawn from what the segments before it tell
            picture = shown(codec, segment.estimate, facts["height"], facts["width"])
            tell(Frame(segment.segment, codec.segments, picture))

    done = decompressor.decode(data, watch=watch, perception=perception)
    tell(Restored(done.segments, done.iterations, done.images[0], done.cut))


def _check_bytes(path: str | Path, bounds: Bounds) -> None:
    try:
        facts = Path(path).stat()
    except (OSError, ValueError):  # the latter: no name of a file
        facts = None
    if facts is None or not S_ISREG(facts.st_mode):
        raise PscxError("the file is no longer here: upload it again")
    size = facts.st_size
    if size > bounds.bytes:
        raise PscxError(f"the file has {size} bytes; at most {bounds.bytes} are accepted")
