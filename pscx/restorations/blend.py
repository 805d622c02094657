"""Between the mean of posterior samples and one of them."""

from __future__ import annotations

from itertools import chain

from torch import Tensor

from pscx.exact.sums import ordered_mean
from pscx.restorations.base import RESTORATIONS, Draw, Restoration


@RESTORATIONS.register("blend")
class Blend(Restoration):
    """Between mean and sample (after Freirich, Michaeli and Meir 2021): ``m + share (x - m)``.

    ``m`` is the mean of ``samples`` posterior samples and ``x`` the first of them. In the paper, the line runs from the
    posterior mean to the best estimator with the distribution of images, and its points have the least squared error at
    their distance from that distribution. Here a posterior sample stands at that end.

    Args:
        samples: how many are averaged, at least 2; restoration number ``i`` uses draws ``i * samples`` and on.
        share: 0 is the mean and 1 the sample; in [0, 1].
    """

    references = ("freirich2021theory", "elata2025psc")

    exact = True

    def __init__(self, samples: int = 2, share: float = 0.5) -> None:
        if samples < 2:
            raise ValueError(f"restoration.samples must be at least 2, got {samples}")
        if not 0 <= share <= 1:
            raise ValueError(f"restoration.share must lie in [0, 1], got {share}")
        self.samples = self.draws = samples
        self.share = share

    def restore(self, draw: Draw, index: int) -> Tensor:
        parts = draw(range(index * self.samples, (index + 1) * self.samples))
        start = next(parts)
        first = start[0].clone()
        mean = ordered_mean(chain([start], parts))
        return first.sub_(mean).mul_(self.share).add_(mean)
