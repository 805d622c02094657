"""JPEG measured on the images of a run, as the published one was made: what the images and machines alone change."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image, features

from pscx.comparison.curve import Compared
from pscx.comparison.measured import Measured
from pscx.metrics import MSSSIM, PSNR, ImageMetric, bits_per_pixel
from pscx.rate_control.trials import Pixels
from pscx.report.originals import Originals
from pscx.runtime.progress import Bars

QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90)
KEY = "jpeg-here"


def jpeg_here(found: Sequence[Measured], columns: Sequence[str], folder: Path | None) -> Compared | str:
    """JPEG of the first run's images by Pillow's defaults (4:2:0), or why it was not measured.

    ``columns`` are the metrics that are wanted, of PSNR and MS-SSIM; ``folder`` takes the place of where the run found
    its images.
    """
    run = next((run for curve in found for run in curve.runs), None)
    if run is None:
        return "no run of pscx test says where its images are"
    places, originals = Originals(folder), []
    for image in run.images:
        pixels, reason = places.of(run, image)
        if pixels is None:
            return f"'{image}': {reason}"
        originals.append(pixels)
    metrics = [metric for metric in (PSNR(), MSSSIM()) if metric.column in columns]  # those that published JPEG has
    points = list(_points(originals, metrics))
    by_column = {
        metric.column: [(rate, values[metric.column]) for rate, values in points if metric.column in values]
        for metric in metrics
    }
    about = f"Pillow's defaults (4:2:0), {features.version('jpg')}, on the images of {run.folder}"
    shown = {column: pairs for column, pairs in by_column.items() if pairs}
    return Compared(KEY, "JPEG, measured here", about, len(originals), shown, measured=True)


def _points(originals: Sequence[Pixels], metrics: Sequence[ImageMetric]) -> Iterator[tuple[float, dict[str, float]]]:
    """Mean rate and metrics at each quality; without a metric that is not defined for an image of these."""
    with Bars("jpeg", len(QUALITIES)) as bars:
        for quality in QUALITIES:
            bar = bars.begin(f"quality {quality}")
            done = [_coded(pixels, quality) for pixels in originals]
            rates = [bits_per_pixel(size, *pixels.shape[:2]) for pixels, (size, _) in zip(originals, done, strict=True)]
            values = {}
            for metric in metrics:
                pairs = zip(originals, done, strict=True)
                own = [metric.value(pixels, shown) for pixels, (_, shown) in pairs]
                if None not in own:
                    values[metric.column] = fmean(value for value in own if value is not None)
            bar.end()
            yield fmean(rates), values


def _coded(pixels: Pixels, quality: int) -> tuple[int, Pixels]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return len(file.getvalue()), np.asarray(image.convert("RGB"))
