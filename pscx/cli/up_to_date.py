"""Whether a stream that is there already is what a codec would make of an image, as far as its header tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pscx.api import Codec
from pscx.captioners import Captioner, File, Fixed
from pscx.errors import PscxError
from pscx.format.container import Header, unpack
from pscx.images import image_sides
from pscx.runtime.suffixes import IMAGES

OTHER = "was made by another codec or with other options"


class UpToDate:
    """Compares streams with a codec; nothing is decoded and no pixel is looked at.

    Compared are times of modification, the image's sides, the prior's fingerprint, recipe or spec, seed, and caption
    unless a captioner would have to look at the image. Of the target, ``quality`` and ``step`` are compared by the
    quantizer's parameter, ``bpp`` and ``max_bytes`` by the size of the stream; of others nothing can be told.

    Args:
        codec: the codec whose streams are looked for.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._header = comparable(codec.header(1, 1))
        self._stems = lru_cache(_image_stems)

    def difference(self, source: Path, output: Path) -> str:
        """Why the stream ``output`` is not what the codec makes of the image ``source``; empty where nothing shows."""
        try:
            data = output.read_bytes()
            header, _ = unpack(data)
        except (OSError, PscxError):
            return "is no whole stream"
        if output.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return "is older than its image"
        if sorted(image_sides(source) or ()) != sorted((header.width, header.height)):
            return "is of an image of another size"
        if output.stem != source.name and self._stems(source.parent)[source.stem] > 1:
            return "may be of another image of that name"
        captions = (None, header.caption)
        if comparable(header) != self._header or caption_of(self._codec.captioner, source) not in captions:
            return OTHER
        return self._difference_of_target(header, len(data))

    def _difference_of_target(self, header: Header, size: int) -> str:
        codec, target = self._codec.signal_codec, self._codec.target
        if target is None:
            return "" if header.parameter == codec.parameter else OTHER
        met = target.is_met(codec, header.parameter, size, header.height * header.width)
        return "does not show whether it meets the target" if met is None else "" if met else OTHER


def comparable(header: Header) -> Header:
    """A header without what is compared apart, or not at all."""
    return replace(header, height=1, width=1, parameter=None, arithmetic="", caption="")


def caption_of(captioner: Captioner | None, source: Path) -> str | None:
    """The caption that an image would get; none where that takes a look at it, or there is no caption to be read."""
    if captioner is None or isinstance(captioner, Fixed):
        return "" if captioner is None else captioner.text
    try:
        return captioner.of(str(source)) if isinstance(captioner, File) else None
    except PscxError:
        return None


def _image_stems(folder: Path) -> Counter[str]:
    return Counter(path.stem for path in folder.iterdir() if path.suffix.lower() in IMAGES)
