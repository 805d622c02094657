"""FLIP: what a viewer sees who flips between two pictures."""

from __future__ import annotations

import numpy as np

from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.runtime.extras import required


@METRICS.register("flip")
class FLIP(ImageMetric):
    """FLIP (Andersson et al. 2020) for pictures of low dynamic range, in [0, 1]; equal pictures: 0, lower is better.

    The mean of the map that NVIDIA's ``flip-evaluator`` computes (``pip install 'pscx[metrics]'``).

    Args:
        pixels_per_degree: of the viewer's field of vision, over 0; by default a screen of 0.7 m and 3840 pixels at a
            distance of 0.7 m.
    """

    references = ("andersson2020flip",)
    title, higher_is_better = "FLIP", False

    def __init__(self, pixels_per_degree: float = 67.02064514160156) -> None:
        if not 0 < pixels_per_degree < float("inf"):
            raise ValueError(f"pixels_per_degree must be a finite number over 0, got {pixels_per_degree}")
        self.pixels_per_degree = pixels_per_degree

    def prepare(self) -> None:
        required("flip_evaluator", "metrics", "the metric flip")

    def measure(self, original: Image, other: Image) -> float:
        evaluator = required("flip_evaluator", "metrics", "the metric flip")
        first, second = (np.ascontiguousarray(image, np.float32) / 255 for image in (original, other))
        options = {"ppd": self.pixels_per_degree}
        _, mean, _ = evaluator.evaluate(first, second, "LDR", applyMagma=False, parameters=options)
        return float(mean)
