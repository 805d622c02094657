"""What an evaluation gives to Lightning's loggers, as each image is done."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

LABEL = 32  # letters of a name in a picture
NOT_LOGGED = ("name", "height", "width")

Row = Mapping[str, Any]
Pixels = NDArray[np.uint8]


class Log:
    """Gives the rows of an evaluation's table and pictures to ``loggers``.

    Each number goes to ``image/NAME`` at the image's place in the order in which they were done, and the means at the
    end to ``mean/NAME``. Pictures go to loggers with a method ``log_image`` (Weights & Biases and those alike) or an
    experiment with ``add_image`` (TensorBoard); others get the numbers alone.

    Args:
        loggers: those of the trainer.
        pictures: at most this many images have pictures logged.
    """

    def __init__(self, loggers: Sequence[Logger], pictures: int) -> None:
        self.loggers, self.pictures = loggers, pictures
        self._logged: set[str] = set()

    @property
    def wants_pictures(self) -> bool:
        """Whether the next image will have its pictures logged."""
        return any(map(_takes_pictures, self.loggers)) and len(self._logged) < self.pictures

    def image(self, row: Row, pictures: Mapping[str, Pixels]) -> None:
        """An image is done: its row of the table, and pictures ``(height, width, 3)`` of it by what they show."""
        step = len(self._logged)
        shown = pictures if self.wants_pictures else {}
        self._logged.add(row["name"])
        self._numbers("image", row, step)
        for what, pixels in shown.items():
            self._picture(f"{row['name']}/{what}", pixels, step)

    def end(self, rows: Sequence[Row], means: Row) -> None:
        """All images are done, those of other processes among them."""
        for row in rows:
            if row["name"] not in self._logged:
                self.image(row, {})
        self._numbers("mean", means, len(rows))
        if any(map(_takes_pictures, self.loggers)):
            self._picture("rate_distortion", rate_distortion(rows), len(rows))
        for logger in self.loggers:
            logger.save()

    def _numbers(self, group: str, row: Row, step: int) -> None:
        known = {key: value for key, value in row.items() if key not in NOT_LOGGED and value is not None}
        numbers = {f"{group}/{key}": float(value) for key, value in known.items()}
        for logger in self.loggers:
            logger.log_metrics(numbers, step)

    def _picture(self, tag: str, pixels: Pixels, step: int) -> None:
        for logger in filter(_takes_pictures, self.loggers):
            take: Any = getattr(logger, "log_image", None)
            if take is not None:
                take(tag, [pixels], step=step)
            else:
                _experiment(logger).add_image(tag, pixels, step, dataformats="HWC")


def figures(rows: Sequence[Row]) -> str:
    """The images so far in a few words: mean rate and PSNR, and denoiser evaluations a second."""
    if not rows:
        return ""
    timed = [row for row in rows if None not in (row["encode_seconds"], row["evaluations"])]  # older runs lack some
    seconds = sum(row["encode_seconds"] for row in timed)
    speed = sum(row["evaluations"] for row in timed) / seconds if seconds > 0 else 0.0
    rate, quality = fmean(row["bpp"] for row in rows), fmean(row["psnr"] for row in rows)
    return f"{rate:.3f} bpp, {quality:.2f} dB, {speed:.3g} evaluations/s"


def rate_distortion(rows: Sequence[Row]) -> Pixels:
    """A picture of each image's rate and PSNR, without those that came back as they were."""
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.margins(0.15)  # room for names
    for row in rows:
        if not isfinite(row["psnr"]):
            continue
        axes.plot(row["bpp"], row["psnr"], "o", color="#0072b2")
        axes.annotate(_label(row["name"]), (row["bpp"], row["psnr"]), (4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR in dB")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def _label(name: str) -> str:
    """A name, or the beginning of one that would be wider than the picture."""
    return name if len(name) <= LABEL else f"{name[: LABEL - 3]}..."


def _takes_pictures(logger: Logger) -> bool:
    return hasattr(logger, "log_image") or hasattr(_experiment(logger), "add_image")


def _experiment(logger: Logger) -> Any:
    return getattr(logger, "experiment", None)
