"""The steps of the page as HTML, for any upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pscx.api import Codec, Decompressor, load_codec
from pscx.config import ConfigError
from pscx.demo.pictures import Picture, gallery, link, message, png, progress
from pscx.demo.rivals import FORMATS, Rival, rival
from pscx.demo.work import Bounds, Coding, Compressed, Frame, Restored, compressing, decoding, photograph, stream
from pscx.errors import PscxError
from pscx.format.limits import SMALL_IMAGE, Limits
from pscx.metrics import bits_per_pixel, psnr
from pscx.rate_control.quality import HIGHEST, LOWEST, Quality
from pscx.rate_control.trials import Pixels

SHIPPED = ("default", "fast", "best", "perceptual")
WORK = 512  # evaluations of the largest image that a stream may ask for; the recipe "best" takes 336 at most

View = tuple[str, str, str]
"""Status, pictures and the file to save, as HTML."""


@dataclass
class Views:
    """Actions of the page, as steps; a user's mistake is the last step, as one sentence.

    Both are generator functions, because Gradio streams only those.

    Args:
        codecs: constructors of the codecs that can be chosen, by name; each is called once, on first use.
        decompressor: decodes uploaded streams.
        bounds: bounds of uploads.
    """

    codecs: Mapping[str, Callable[[], Codec]]
    decompressor: Decompressor
    bounds: Bounds
    _made: dict[str, Codec] = field(default_factory=dict)

    def compress(
        self, path: str | None, name: str, quality: float, shrink: bool, choose: bool = False, perception: float = 0.0
    ) -> Iterator[View]:
        """A photograph to a stream, its picture segment by segment, and others at the same bytes.

        If the visitor wants to ``choose``, the picture is restored with that ``perception``.
        """
        views = self._compress(path, name, quality, shrink, perception if choose else None)
        yield from _told_as_sentence(views, path)

    def decode(self, path: str | None, choose: bool = False, perception: float = 0.0) -> Iterator[View]:
        """A stream to its picture, segment by segment; ``choose`` and ``perception`` as in :meth:`compress`."""
        yield from _told_as_sentence(self._decode(path, perception if choose else None), path)

    def _compress(
        self, path: str | None, name: str, quality: float, shrink: bool, perception: float | None
    ) -> Iterator[View | None]:
        if path is None:
            raise PscxError("choose a photograph first")
        if not isinstance(name, str) or name not in self.codecs:
            raise PscxError(f"choose a recipe from {', '.join(self.codecs)}, got {name!r:.64}")
        _check_number("quality", quality, LOWEST, HIGHEST)
        _check_perception(perception)
        pixels = photograph(path, self.bounds, shrink=shrink)
        original = Picture("Original", f"{pixels.shape[1]}x{pixels.shape[0]} pixels", pixels)
        data = b""
        yield message(f"Loading the recipe {name}"), gallery([original]), ""
        for event in compressing(self._codec(name), pixels, Quality(quality), perception):
            if event is None:
                yield None
            elif isinstance(event, Coding):
                label = f"Compressing, iteration {event.done} of {event.total}"
                yield progress(label, event.done, event.total), gallery([original]), ""
            elif isinstance(event, Compressed):
                data = event.data
            elif isinstance(event, Frame):
                picture = Picture("pscx", f"{_after(event)}, {psnr(pixels, event.pixels):.2f} dB", event.pixels)
                yield _decoding(event), gallery([original, picture]), ""
            else:
                ours = Picture("pscx", _figures(len(data), pixels, event.pixels), event.pixels)
                others = [_rival_picture(rival(other, pixels, len(data)), pixels) for other in FORMATS]
                file = link(f"{Path(path).stem}.pscx", data, f"Save {Path(path).stem}.pscx ({len(data)} bytes)")
                says = f"Done: {len(data)} bytes, {bits_per_pixel(len(data), *pixels.shape[:2]):.3f} bits per pixel."
                yield message(says), gallery([original, ours, *others]), file

    def _decode(self, path: str | None, perception: float | None) -> Iterator[View | None]:
        if path is None:
            raise PscxError("choose a .pscx file first")
        _check_perception(perception)
        data = stream(path, self.bounds)
        yield message("Loading the prior"), "", ""
        for event in decoding(self.decompressor, data, perception):
            if event is None:
                yield None
            elif isinstance(event, Frame):
                yield _decoding(event), gallery([Picture("Decoded", _after(event), event.pixels)]), ""
            elif isinstance(event, Restored):
                height, width = event.pixels.shape[:2]
                says = f"{width}x{height} pixels from {len(data)} bytes"
                file = link(f"{Path(path).stem}.png", png(event.pixels), f"Save {Path(path).stem}.png")
                yield message("Done."), gallery([Picture("Decoded", says, event.pixels)]), file

    def _codec(self, name: str) -> Codec:
        if name not in self._made:
            self._made[name] = self.codecs[name]()
        return self._made[name]


def views_of(config: str | None, prior_path: str | None, bounds: Bounds, device: str = "cpu") -> Views:
    """The views of the shipped recipes that have a quality, and first of a config file's codec if one is named.

    A file that is called as a recipe, ``fast.yaml``, is offered as ``fast (own)``. ``device`` is where all compute.

    Raises :class:`ConfigError` if that file or its quantizer cannot be used.
    """
    codecs: dict[str, Callable[[], Codec]] = {name: partial(load_codec, name, device=device) for name in SHIPPED}
    if config is not None:
        own = load_codec(config, prior_path=prior_path, device=device)
        try:
            Quality(LOWEST).check(own.signal_codec)
        except ValueError as error:
            raise ConfigError(f"{config}: {error}") from error
        name = Path(config).stem
        name = f"{name} (own)" if name in codecs else name
        codecs = {name: lambda: own, **codecs}
    limits = Limits(pixel_evaluations=WORK * max(bounds.pixels, SMALL_IMAGE))
    return Views(codecs, Decompressor(prior_path=prior_path, limits=limits, device=device), bounds)


def _told_as_sentence(views: Iterator[View | None], path: str | None) -> Iterator[View]:
    """The views, and one with the error where there is one that a user can cause; the last again in place of none.

    It calls an upload by its name: where it lies is nothing that a visitor knows, nor should.
    """
    last: View = "", "", ""
    try:
        for view in views:
            last = last if view is None else view
            yield last
    except PscxError as error:
        text = str(error) if path is None else str(error).replace(path, Path(path).name)
        yield message(f"{text[0].upper()}{text[1:]}.", "error"), "", ""


def _check_perception(value: object) -> None:
    if value is not None:
        _check_number("perception", value, 0, 1)


def _check_number(name: str, value: object, low: int, high: int) -> None:
    """Raise :class:`PscxError` unless a visitor's ``value`` is a number in ``low..high``: clicks need no sliders."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise PscxError(f"{name} must lie in {low}..{high}, got {value!r:.64}")


def _decoding(frame: Frame) -> str:
    return progress(f"Decoding, {_after(frame)}", frame.segments, frame.total)


def _after(frame: Frame) -> str:
    return f"after segment {frame.segments} of {frame.total}"


def _figures(size: int, original: Pixels, pixels: Pixels) -> str:
    return f"{size} bytes, {psnr(original, pixels):.2f} dB"


def _rival_picture(found: Rival, original: Pixels) -> Picture:
    says = f"{_figures(found.bytes, original, found.pixels)}, quality {found.quality}"
    return Picture(found.name, says if found.fits else f"{says}: it makes no smaller file", found.pixels)
