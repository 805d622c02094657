"""The mean of posterior samples: least squared error."""

from __future__ import annotations

from torch import Tensor

from pscx.exact.sums import ordered_mean
from pscx.restorations.base import RESTORATIONS, Draw, Restoration


@RESTORATIONS.register("mean")
class Mean(Restoration):
    """Mean of posterior samples, the minimum mean squared error estimate (Elata et al. 2025, section 3.1).

    Args:
        samples: how many are averaged, at least 1; restoration number ``i`` uses draws ``i * samples`` and on.
    """

    references = ("elata2025psc",)

    exact = True

    def __init__(self, samples: int = 4) -> None:
        if samples < 1:
            raise ValueError(f"restoration.samples must be at least 1, got {samples}")
        self.samples = self.draws = samples

    def restore(self, draw: Draw, index: int) -> Tensor:
        return ordered_mean(draw(range(index * self.samples, (index + 1) * self.samples)))
