"""What an evaluation may ask of a metric: of each image, or of a whole set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.metrics.pixels import Pixels, arrays
from pscx.metrics.weights import sha256_of
from pscx.registry import Registry

Image = NDArray[np.uint8]
"""A picture ``(height, width, 3)``."""


class Metric(ABC):
    """What metrics of one image and of a set have in common.

    A metric is its options and nothing else. Networks are loaded at first use, once in a process.
    """

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    title: str
    """What tables and figures call it, such as ``MS-SSIM``."""

    unit: str = ""
    """Unit of its values, such as ``dB``; empty for a plain number."""

    higher_is_better: bool
    """Whether a larger value means a better picture."""

    device: torch.device = torch.device("cpu")
    """Where networks run; what has none computes on the CPU."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return METRICS.name_of(type(self))

    @property
    def column(self) -> str:
        """What its column in tables is called: :attr:`name`, unless options make it another measure."""
        return self.name

    def files(self) -> Sequence[Path]:
        """Files of weights that its values depend on."""
        return ()

    def digests(self) -> dict[str, str]:
        """SHA-256 of each of :meth:`files` by its name and its folder's, to be kept with results."""
        return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in self.files()}

    def prepare(self) -> None:
        """Load all it needs, so that a run fails at its start. Raises :class:`pscx.PscxError` where that is missing."""
        self.files()


class ImageMetric(Metric):
    """A metric of one image: a pure function of the original and the reconstruction."""

    least_side: int = 1
    """The smallest height and width it is defined for."""

    @abstractmethod
    def measure(self, original: Image, other: Image) -> float:
        """The value for two pictures of one size, of at least :attr:`least_side`."""

    def fits(self, height: int, width: int) -> bool:
        """Whether it is defined for pictures of this size."""
        return min(height, width) >= self.least_side

    def value(self, original: Pixels, other: Pixels) -> float | None:
        """The value, or None where the picture is smaller than :attr:`least_side`: an empty field in tables."""
        first, second = arrays(original, other)
        return float(self.measure(first, second)) if self.fits(*first.shape[:2]) else None

    def __call__(self, original: Pixels, other: Pixels) -> float:
        """The value. Raises ``ValueError`` where the picture is smaller than :attr:`least_side`."""
        first, second = arrays(original, other)
        height, width = first.shape[:2]
        if not self.fits(height, width):
            raise ValueError(f"{self.column} needs sides of at least {self.least_side} pixels, got {height}x{width}")
        return float(self.measure(first, second))


class SetMetric(Metric):
    """A metric of a set: what it keeps of each pair of pictures, and the value for what was kept of all.

    :class:`SetState` collects what is kept, in any order and in any number of processes.
    """

    @property
    def shared(self) -> Hashable:
        """Metrics whose keys are equal keep the same of a picture, which is then computed once."""
        return self.column

    @abstractmethod
    def keep(self, original: Image, other: Image) -> Tensor:
        """What is kept of a pair of one size, a function of these pictures alone.

        On the CPU, in any shape that is empty in the second dimension where nothing is kept: ``(2, parts, numbers)``
        for features of the parts of the original and of the other picture.
        """

    @abstractmethod
    def compute(self, kept: Sequence[Tensor]) -> float:
        """The value for what :meth:`keep` gave for each picture, in the order of the pictures.

        Raises :class:`pscx.PscxError` where there is too little.
        """


class SetState:
    """What metrics of a set have kept so far of which pictures.

    A picture has a key, such as its name. What is kept under a key that is there already is the same, so that
    pictures that a sampler repeats, or that were seen before a run went on, count once. The values depend on neither
    the order nor the process in which pictures were seen.

    Args:
        metrics: those to compute; ones of equal :attr:`SetMetric.shared` share what is kept.
    """

    def __init__(self, metrics: Sequence[SetMetric]) -> None:
        self.metrics = list(metrics)
        self.kept: dict[Hashable, dict[str, Tensor]] = {metric.shared: {} for metric in metrics}

    def update(self, key: str, original: Pixels, other: Pixels) -> None:
        """Keep what the metrics need of one pair of pictures."""
        first, second = arrays(original, other)
        for shared, metric in {metric.shared: metric for metric in self.metrics}.items():
            if key not in self.kept[shared]:
                self.kept[shared][key] = metric.keep(first, second)

    def state(self) -> list[dict[str, Tensor]]:
        """What was kept, as tensors by key, to be sent to another process or saved."""
        return [dict(kept) for kept in self.kept.values()]

    def merge(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Add the :meth:`state` of an object with the same metrics, of another process or of before."""
        if len(state) != len(self.kept):
            raise ValueError(f"a state of the same metrics has {len(self.kept)} parts, got {len(state)}")
        for kept, more in zip(self.kept.values(), state, strict=True):
            kept.update({key: value for key, value in more.items() if key not in kept})

    def compute(self) -> dict[str, float]:
        """The value of each metric by its :attr:`~Metric.column`."""
        return {metric.column: self.value(metric) for metric in self.metrics}

    def value(self, metric: SetMetric) -> float:
        """The value of one metric. Raises :class:`pscx.PscxError` where too little was kept."""
        return metric.compute([value for _, value in sorted(self.kept[metric.shared].items())])


METRICS: Registry[Metric] = Registry("metric", Metric)
"""Metrics: how far a reconstruction is from its original, of an image or of a set."""
