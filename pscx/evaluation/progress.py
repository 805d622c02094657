"""Progress of an evaluation while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from statistics import fmean
from typing import Any

from lightning.pytorch import Trainer

from pscx.evaluation.measures import Measure
from pscx.runtime.progress import Bar, Bars


class Shown:
    """The bars of one stage, on rank 0 only and unless Lightning has its own.

    Args:
        trainer: trainer of the evaluation.
        stage: ``test`` or ``predict``.
        measures: measures of the metrics; the first that has values is shown.
    """

    def __init__(self, trainer: Trainer, stage: str, measures: Mapping[str, Measure]) -> None:
        self.measures = measures
        loop = trainer.test_loop if stage == "test" else trainer.predict_loop
        batches = sum(int(n) for n in loop.max_batches if n != float("inf"))
        total = most_images(getattr(trainer, "datamodule", None), batches) or None
        alone = trainer.is_global_zero and trainer.progress_bar_callback is None
        self.bars: Bars | None = Bars(stage, total, visible=alone)
        self.bars.__enter__()

    def begin(self, name: str) -> Bar | None:
        """The bar of one image."""
        return None if self.bars is None else self.bars.begin(name)

    def tell(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Show what the images so far came to."""
        if self.bars is not None:
            self.bars.tell(figures(records, self.measures))

    def stop(self) -> None:
        """Remove the bars."""
        if self.bars is not None:
            self.bars.__exit__(None, None, None)
            self.bars = None


def most_images(data: Any, batches: int) -> int:
    """How many images so many batches have: no more than there are, where that is known."""
    count = getattr(data, "at_once", 1) * batches
    photos = getattr(data, "photos", None)
    return min(count, len(photos)) if isinstance(photos, Sized) else count


def figures(records: Sequence[Mapping[str, Any]], measures: Mapping[str, Measure]) -> str:
    """A summary of the images so far: mean rate and quality, and denoiser evaluations (NFE) per second."""
    if not records:
        return ""
    timed = [record for record in records if None not in (record["encode_seconds"], record["evaluations"])]
    seconds = sum(record["encode_seconds"] for record in timed)  # older runs may lack some
    speed = sum(record["evaluations"] for record in timed) / seconds if seconds > 0 else 0.0
    parts = [f"{fmean(record['bpp'] for record in records):.3f} bpp", *_quality(records, measures)]
    return ", ".join([*parts, f"{speed:.3g} evaluations/s"])


def _quality(records: Sequence[Mapping[str, Any]], measures: Mapping[str, Measure]) -> list[str]:
    for column, measure in measures.items():
        values = [record[column] for record in records if record.get(column) is not None]
        if values:
            return [f"{measure.title} {measure.shown(fmean(values))}"]
    return []
