"""What an error of each coefficient counts: less in colour differences, and less the finer it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf

import torch
from torch import Tensor

from pscx.exact import square_root

PARTS = 256  # weights are whole multiples of 1 / 256: their squares times a float32 number are exact in float64


@dataclass(frozen=True)
class Weighting:
    """The contrast sensitivity of a viewer (Mannos and Sakrison 1974), in its simplest form.

    A coefficient of ``f`` cycles a pixel has the weight ``1 / sqrt(1 + (f / knee)^2)``, on the channel axes after the
    first multiplied by ``chroma``. It is rounded to a multiple of 1/256, and at least that. Raises ``ValueError``, by
    the names of the rule's options, where one is out of range.

    Args:
        chroma: weight of the channel axes after the first, in [1/16, 4].
        knee: frequency in cycles a pixel at which the weight is 0.71, over 0.01; or 0: weights do not fall.
    """

    chroma: float = 1.0
    knee: float = 0.0

    def __post_init__(self) -> None:
        if not 1 / 16 <= self.chroma <= 4:
            raise ValueError(f"rows.chroma must lie in [1/16, 4], got {self.chroma}")
        if self.knee and not 0.01 < self.knee < inf:
            raise ValueError(f"rows.knee must be 0 or over 0.01, got {self.knee}")

    def of(self, axes: int, block: int, device: torch.device) -> Tensor | None:
        """The weights of the coefficients of a block, ``(axes * block^2,)`` float64; none where all are 1."""
        even = self.chroma == 1 and not self.knee
        return None if even else weights_of(axes, block, self).to(device)


@lru_cache(4)
def weights_of(axes: int, block: int, weighting: Weighting) -> Tensor:
    """:meth:`Weighting.of`, on the CPU: single IEEE operations."""
    square = torch.arange(block, dtype=torch.float64).square()
    weight = torch.ones(block, block, dtype=torch.float64)
    if weighting.knee:
        knee = torch.full_like(weight, 2 * block * weighting.knee)  # f = |(u, v)| / (2 block)
        weight = weight / square_root(weight + (square[:, None] + square) / (knee * knee))
    by_axis = torch.stack([weight, *[weight * weighting.chroma] * (axes - 1)])
    return rounded(by_axis).flatten()


def rounded(weight: Tensor) -> Tensor:
    """To whole multiples of 1/256, and at least that."""
    return ((weight * PARTS).round() / PARTS).clamp_min(1 / PARTS)
