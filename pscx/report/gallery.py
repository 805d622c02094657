"""The pictures of a report: the choice of streams, and the views of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf, isfinite
from typing import Any, TypeVar

import numpy as np

from pscx.api import Decompressor
from pscx.codecs import CODECS
from pscx.codecs.replay import Map, Replay
from pscx.compression.restoring import settings_by_perception
from pscx.config import Checker, WrittenRun, built, read_yaml
from pscx.config.recipes import RECIPES
from pscx.errors import PscxError
from pscx.format.container import unpack
from pscx.format.limits import Limits
from pscx.images import read_image
from pscx.metrics import psnr
from pscx.rate_control.trials import Pixels
from pscx.report import pictures
from pscx.report.curves import RunCurve
from pscx.report.originals import Originals
from pscx.report.runs import CONFIG, Run
from pscx.restorations import Restoration
from pscx.runtime.hub import no_downloads
from pscx.runtime.progress import Bar, Bars
from pscx.runtime.quiet import quiet
from pscx.runtime.safe_yaml import read_bounded

T = TypeVar("T")
ROOM = 8_000_000  # characters for all originals and reconstructions
LEAST_ROOM = 60_000  # characters for one of them
STREAM_BYTES = 1 << 30
GREY_LEVELS = 127.5  # a unit of an image's range


@dataclass(frozen=True)
class Exhibit:
    """One stream in the gallery."""

    run: Run
    image: str


@dataclass(frozen=True)
class Others:
    """Restorations of each stream beside that of its run.

    Args:
        restoration: one of them, or none, and its ``label``.
        perception: whether all settings of the recipe's table are among them, for a stream of a recipe that has one.
    """

    restoration: Restoration | None = None
    label: str = ""
    perception: bool = False

    def of(self, exhibit: Exhibit) -> dict[str, Restoration]:
        """Those of one stream, by their labels. Raises :class:`PscxError` if the stream's header cannot be read."""
        found = {} if self.restoration is None else {self.label: self.restoration}
        if self.perception:
            path = exhibit.run.stream(exhibit.image)
            try:
                header = unpack(read_bounded(path, STREAM_BYTES))[0]
            except PscxError as error:
                raise PscxError(f"'{path}': {error}") from error
            settings = settings_by_perception(RECIPES.get(header.recipe))
            found |= {f"perception {place:.2g}": one for place, one in settings.items()}
        return found


def choose(curves: Sequence[RunCurve], count: int) -> list[Exhibit]:
    """At most ``count`` streams, image by image, of each curve first the point with the highest rate.

    One of each curve is among them; where there are more curves than ``count``, the axes of an ablation take turns.
    """
    images = list(dict.fromkeys(name for curve in curves for run in curve.runs for name in run.images))
    runs = list(_in_turn([list(reversed(curve.runs)) for curve in curves]))
    every = [Exhibit(run, image) for image in images for run in runs if image in run.images]
    by_axes: dict[tuple[str, ...], list[RunCurve]] = {}
    for curve in curves:
        by_axes.setdefault(tuple(curve.axes), []).append(curve)
    of_each = [[one for one in every if one.run in curve.runs][:1] for curve in _in_turn(list(by_axes.values()))]
    first = [one for found in of_each for one in found]
    chosen = [*first, *(one for one in every if one not in first)][:count]
    return [one for one in every if one in chosen]


def _in_turn(groups: Sequence[Sequence[T]]) -> Iterator[T]:
    """The first of each group, then the second of each, and so on."""
    return (one for rank in zip_longest(*groups) for one in rank if one is not None)


class Gallery:
    """Decodes exhibits into plain data for the page, which JSON can hold.

    Args:
        originals: finds the originals.
        prior_path: where to load the priors of streams from; by default the place in each run's configuration.
        limits: limits on what a stream may ask for.
        device: where streams are decoded.
        others: what they are restored by, too.
    """

    def __init__(
        self,
        originals: Originals,
        prior_path: str | None = None,
        limits: Limits | None = None,
        device: str = "cpu",
        others: Others | None = None,
    ) -> None:
        self._originals, self._prior_path, self._others = originals, prior_path, others or Others()
        self._options: dict[str, Any] = {"limits": limits, "device": device}
        self._decompressors: dict[str, Decompressor] = {}

    def items(self, exhibits: Sequence[Exhibit]) -> Iterator[dict[str, Any]]:
        """One after the other. Raises :class:`PscxError`, with the stream's name, where one cannot be decoded."""
        names = {(exhibit.run.folder, exhibit.image) for exhibit in exhibits}
        others = [len(self._others.of(exhibit)) for exhibit in exhibits]
        by_name = 0 if self._others.restoration is None else 1
        if self._others.perception and max(others, default=by_name) == by_name:
            raise PscxError("--perception needs a stream of a recipe that has a table, and none is shown")
        room = max(LEAST_ROOM, ROOM // max(1, len(exhibits) + sum(others) + len({image for _, image in names})))
        with Bars("report", len(exhibits)) as bars:
            for exhibit in exhibits:
                bar = bars.begin(f"{exhibit.image}, {exhibit.run.name}")
                yield self._item(exhibit, room, bar)
                bar.end()

    def _item(self, exhibit: Exhibit, room: int, bar: Bar) -> dict[str, Any]:
        run, image = exhibit.run, exhibit.image
        path = run.stream(image)
        data = read_bounded(path, STREAM_BYTES)
        reconstruction = read_image(run.reconstruction(image))
        original, missing = self._originals.of(run, image)
        others = self._others.of(exhibit)
        try:
            with quiet():
                played = self._decompressor(run).replay(data, bar.advance, list(others.values()))
        except PscxError as error:
            raise PscxError(f"'{path}': {error}") from error
        height, width = reconstruction.shape[:2]
        header = 8 * (len(data) - len(unpack(data)[1]))
        return {
            "image": image,
            "run": run.name,
            "width": width,
            "height": height,
            "facts": _facts(run.record(image)),
            "original": None if original is None else _photograph(original, room),
            "missing": missing,
            "reconstruction": _photograph(reconstruction, room),
            "restorations": [
                {"label": label, "psnr": _psnr(original, picture), **_photograph(picture, room)}
                for label, picture in zip(others, played.restored, strict=True)
            ],
            "thumbnail": pictures.thumbnail(reconstruction),
            "header_bits": header,
            "row_bits": played.bits,
            **_steps(played, original, reconstruction, header),
            **_patterns(played),
        }

    def _decompressor(self, run: Run) -> Decompressor:
        """One for each prior, which it then holds."""
        if self._prior_path is not None:
            path = self._prior_path
            return self._decompressors.setdefault("", Decompressor(prior_path=path, **self._options))
        layer = read_yaml(run.folder / CONFIG)
        codec = Checker([layer], WrittenRun()).component(CODECS, layer.values["model"].get("codec"), "model.codec")
        form = codec["init_args"].get("prior")
        if form is None:
            return Decompressor(**self._options)
        key = json.dumps(form, default=str)
        if key not in self._decompressors:
            with no_downloads():
                self._decompressors[key] = Decompressor(built(form), **self._options)
        return self._decompressors[key]


def _photograph(pixels: Pixels, room: int) -> dict[str, Any]:
    uri, factor = pictures.faithful(pixels, room)
    return {"uri": uri, "factor": factor}


def _facts(record: Mapping[str, str]) -> dict[str, float]:
    """The numbers of an image's record, as far as they are finite."""
    numbers = {key: float(value) for key, value in record.items() if key != "name" and value}
    return {key: number for key, number in numbers.items() if isfinite(number)}


def _psnr(original: Pixels | None, picture: Pixels | None) -> float | None:
    """The PSNR in dB, if there are both and it is finite."""
    value = inf if original is None or picture is None else psnr(original, picture)
    return value if isfinite(value) else None


def _steps(played: Replay, original: Pixels | None, reconstruction: Pixels, header: int) -> dict[str, Any]:
    """Segments with what they add up to, and the scales of their maps."""
    height, width = reconstruction.shape[:2]
    in_block = played.size[0] * played.size[1] / (played.grid[0] * played.grid[1])
    total = np.sum([step.block_bits for step in played.steps], axis=0) / in_block
    top = float(total.max())
    spreads = [step.spread for step in played.steps if step.spread is not None]
    widest = max((float(np.quantile(spread, 0.995)) for spread in spreads), default=0.0)
    so_far = np.zeros_like(total)
    steps, bits = [], 0.0
    for step in played.steps:
        so_far, bits = so_far + step.block_bits / in_block, bits + step.bits + step.sealing
        last = step is played.steps[-1]
        picture = reconstruction if last else step.picture
        steps.append(
            {
                "segment": step.segment + 1,
                "rows": step.rows,
                "bits": step.bits,
                "bpp": (header + bits) / (height * width),
                "psnr": _psnr(original, picture),
                "picture": None if last or picture is None else pictures.frame(picture),
                "map": pictures.map_picture(so_far, top, played.size, (height, width)),
                "spread": _spread(played, step.spread, widest, (height, width)),
            }
        )
    unit = GREY_LEVELS if played.in_pixels else 1.0
    return {"steps": steps, "top_bits": top, "top_spread": widest * unit, "in_pixels": played.in_pixels}


def _spread(played: Replay, spread: Map | None, top: float, image: tuple[int, int]) -> str | None:
    return None if spread is None else pictures.map_picture(spread, top, played.size, image)


def _patterns(played: Replay) -> dict[str, Any]:
    """The first rows in the block with the most of them, and where that is, in pixels of the image."""
    down, across = played.grid
    height, width = played.size[0] // down, played.size[1] // across
    return {
        "patterns": [
            {"segment": pattern.segment + 1, "uri": pictures.pattern_picture(pattern.row)}
            for pattern in played.patterns
        ],
        "blocks": down * across,
        "block": {
            "top": played.block // across * height,
            "left": played.block % across * width,
            "height": height,
            "width": width,
        },
    }
