"""Rate and quality of each image as a picture, for loggers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pscx.evaluation.measures import Measure

LABEL = 32  # letters of a name in a picture


def rate_distortion(records: Sequence[Mapping[str, Any]], column: str, measure: Measure) -> NDArray[np.uint8]:
    """A picture of each image's rate and one metric, without images that have no finite value."""
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.margins(0.15)  # room for names
    for record in records:
        value = record.get(column)
        if value is None or not isfinite(value):
            continue
        place = (record["bpp"], value)
        axes.plot(*place, "o", color="#0072b2")
        axes.annotate(_label(record["name"]), place, (4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(measure.label.replace("$", r"\$"))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def _label(name: str) -> str:
    """A name, or the beginning of one that would be wider than the picture; matplotlib sees no formula in it."""
    short = name if len(name) <= LABEL else f"{name[: LABEL - 3]}..."
    return short.replace("$", r"\$")
