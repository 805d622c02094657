"""What a stream says of itself before its payload."""

from __future__ import annotations

import json

from pscx.codecs import SignalCodec
from pscx.codecs.specs import codec_spec, recipe_number
from pscx.codecs.user_recipes import user_digest
from pscx.compression.results import Pixels
from pscx.config.recipes import USER_RECIPE
from pscx.errors import ImageError, PscxError, StreamError
from pscx.execution.arithmetic import short_arithmetic
from pscx.format.container import SIDE_LIMIT, TEXT_LIMIT, Header, unpack

SHORT = 7  # number of the first recipe whose streams have a digest for an arithmetic, as those of user recipes have


def header_of(codec: SignalCodec, height: int, width: int, caption: str = "") -> Header:
    """The header of a stream of an image of that size, at the codec's own parameter."""
    spec = codec_spec(codec)
    number = recipe_number(spec)
    digest, words = b"" if number else user_digest(spec), codec.arithmetic()
    return Header(
        height=height,
        width=width,
        fingerprint=codec.fingerprint(),
        recipe=USER_RECIPE if digest else number,
        spec="" if number or digest else json.dumps(spec, separators=(",", ":")),
        parameter=codec.parameter,
        seed=codec.seed,
        caption=caption,
        arithmetic=short_arithmetic(words) if number >= SHORT or digest else words,
        digest=digest,
    )


def check_sides(pixels: Pixels) -> None:
    """Raise :class:`ImageError` for an image that a header cannot hold the size of."""
    height, width = pixels.shape[:2]
    if max(height, width) > SIDE_LIMIT:
        raise ImageError(f"an image must be at most {SIDE_LIMIT} pixels a side, got {width}x{height}")


def checked_caption(caption: str) -> str:
    """The caption, if a stream can hold it. Raises :class:`PscxError`, or ``TypeError`` for what is no text."""
    if not isinstance(caption, str):
        raise TypeError(f"caption must be a text, got {type(caption).__name__}")
    try:
        size = len(caption.encode())
    except UnicodeEncodeError:
        raise PscxError("the caption holds characters that UTF-8 cannot say") from None
    if size > TEXT_LIMIT:
        raise PscxError(f"the caption must be at most {TEXT_LIMIT} bytes of UTF-8, got {size}")
    return caption


def shares_calls(data: bytes) -> bool:
    """Whether a stream may be decoded with others in one network call: it says that its codec is exact."""
    try:
        return unpack(data, partial=True)[0].exact
    except StreamError:
        return False
