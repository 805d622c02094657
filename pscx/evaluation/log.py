"""Records and pictures of an evaluation for Lightning's loggers, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from pscx.api import Pixels
from pscx.evaluation.measures import Measure
from pscx.evaluation.rate_distortion import rate_distortion
from pscx.evaluation.tables import PLACE, Record


class Log:
    """Gives the records of an evaluation and pictures to ``loggers``.

    Each number goes to ``image/NAME`` at the image's place in the order in which they were done; the means are logged
    by the module itself. Pictures go to loggers with a method ``log_image`` (Weights & Biases and those alike) or an
    experiment with ``add_image`` (TensorBoard); others get the numbers alone.

    Args:
        loggers: those of the trainer.
        pictures: at most this many images have pictures logged.
        measures: measures of the metrics; at the end each per-image one gets a picture ``rate_distortion/NAME``.
    """

    def __init__(self, loggers: Sequence[Logger], pictures: int, measures: Mapping[str, Measure]) -> None:
        self.loggers, self.pictures, self.measures = loggers, pictures, measures
        self._logged: set[str] = set()

    @property
    def wants_pictures(self) -> bool:
        """Whether the next image will have its pictures logged."""
        return any(map(_takes_pictures, self.loggers)) and len(self._logged) < self.pictures

    def image(self, record: Record, pictures: Mapping[str, Pixels]) -> None:
        """Log an image: its record, and its pictures ``(height, width, 3)`` by name."""
        step = len(self._logged)
        shown = pictures if self.wants_pictures else {}
        self._logged.add(record["name"])
        known = {key: value for key, value in record.items() if key not in PLACE and value is not None}
        for logger in self.loggers:
            logger.log_metrics({f"image/{key}": float(value) for key, value in known.items()}, step)
        for what, pixels in shown.items():
            self._picture(f"{record['name']}/{what}", pixels, step)

    def end(self, records: Sequence[Record]) -> None:
        """Log the end of the evaluation over all ranks."""
        for record in records:
            if record["name"] not in self._logged:
                self.image(record, {})
        if any(map(_takes_pictures, self.loggers)):
            for column, measure in self.measures.items():
                if not measure.of_set:
                    picture = rate_distortion(records, column, measure)
                    self._picture(f"rate_distortion/{column}", picture, len(records))
        for logger in self.loggers:
            logger.save()

    def _picture(self, tag: str, pixels: Pixels, step: int) -> None:
        for logger in filter(_takes_pictures, self.loggers):
            take: Any = getattr(logger, "log_image", None)
            if take is not None:
                take(tag, [pixels], step=step)
            else:
                _experiment(logger).add_image(tag, pixels, step, dataformats="HWC")


def _takes_pictures(logger: Logger) -> bool:
    return hasattr(logger, "log_image") or hasattr(_experiment(logger), "add_image")


def _experiment(logger: Logger) -> Any:
    return getattr(logger, "experiment", None)
