"""How rows of many blocks compete: reverse water-filling under a quota."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from pscx.exact import number
from pscx.quantizers.turns import TOGETHER
from pscx.rows.base import Situation

SMALLEST_GROUP = 128
CODING = 128  # numbers held for each row whose scale is learnt at once (pscx.codecs.psc.gains)
CODED = 40  # and for each row of a segment while it is coded
LARGEST_SEGMENT = 1 << 21  # rows of an iteration that completes, unless its quota has more
LARGEST_QUOTA = 2.0**40  # more rows than any block has


@dataclass(frozen=True)
class Quota:
    """Limits on the rows of an iteration: options shared by block-local row rules.

    Raises ``ValueError``, by the names of these options, where one is out of range.
    """

    per_iteration: float
    growth: float
    depth: int
    floor: float
    complete: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("per_iteration", self.per_iteration), ("growth", self.growth)):
            if not 0 < value < inf:
                raise ValueError(f"rows.{name} must be over 0, got {value}")
        if self.depth < 1:
            raise ValueError(f"rows.depth must be at least 1, got {self.depth}")
        if not 0 <= self.floor < inf:
            raise ValueError(f"rows.floor must be at least 0, got {self.floor}")
        if not 0 <= self.complete < inf:
            raise ValueError(f"rows.complete must be at least 0, got {self.complete}")
        if 0 < self.complete < self.floor:
            raise ValueError(f"rows.complete must be 0 or at least rows.floor, {self.floor}, got {self.complete}")

    def averages(self, iterations: int) -> Iterator[float]:
        """Rows for each block in each iteration, on average over blocks, at most: ``per_iteration growth^iteration``.

        Multiplied out: powers of a mathematical library are not the same to the last bit everywhere.
        """
        value = self.per_iteration
        for _ in range(iterations):
            yield value
            value = min(value * self.growth, LARGEST_QUOTA)

    def average(self, iteration: int) -> float:
        """The average of one iteration."""
        *_, value = self.averages(iteration + 1)
        return value

    def most(self, left: int, blocks: int, situation: Situation) -> int:
        """Largest number of rows of an iteration, if ``left`` rows of all blocks must be taken by the last iteration.

        In the second half, when samples know most of the image, it is at least such a share of them that, growing by
        ``growth`` from here on, takes all.
        """
        most = int(self.average(situation.iteration) * blocks)
        if not situation.late:
            return most
        shares = 0.0
        for share in replace(self, per_iteration=1.0).averages(situation.iterations - situation.iteration):
            shares += share  # Python's sum() of floats is not the same in every version
        return max(most, min(int(left / shares), LARGEST_SEGMENT))

    def fill(self, variance: Tensor, situation: Situation) -> tuple[Tensor, Tensor, list[int]]:
        """Which rows to take, of ``(blocks, r)`` variances that fall in ``r``: :func:`fill`."""
        return fill(variance, self.most(0, len(variance), situation), variance_at(self.floor, situation))


def variance_at(share: float, situation: Situation) -> float:
    """The variance at a standard deviation of ``share`` resolutions: Python's powers are those of the C library."""
    deviation = share * situation.resolution
    return deviation * deviation


def fill(variance: Tensor, most: int, least: float) -> tuple[Tensor, Tensor, list[int]]:
    """Reverse water-filling (Cover and Thomas 2006, section 10.3) over ``(blocks, r)`` variances, falling in ``r``.

    The ``most`` largest of at least ``least`` (at least one of all, and of equals at the limit all): ranks and blocks,
    ordered by rank and then by block, and how many there are of each rank. A device is asked once, for the last.
    """
    most, bound = max(most, 1), number(least, variance)
    if variance.numel() > most:
        bound = torch.maximum(bound, variance.flatten().kthvalue(variance.numel() - most + 1).values)
    taken = (variance.T >= bound) & (variance.T > 0)
    counts: list[int] = taken.sum(1).tolist()
    found = torch.arange(1, sum(counts) + 1, device=variance.device)
    # nonzero() would copy their number from the device again
    place = torch.searchsorted(taken.flatten().cumsum(0), found)
    return place // len(variance), place % len(variance), [count for count in counts if count]


def coding(rows: int) -> int:
    """Estimate of the numbers held while that many measurements of a segment are coded."""
    return CODED * rows + CODING * min(rows, TOGETHER)


def merged(sizes: list[int]) -> list[int]:
    """Merge neighbouring groups until each except the last has at least ``SMALLEST_GROUP`` rows."""
    groups: list[int] = []
    for size in sizes:
        if groups and groups[-1] < SMALLEST_GROUP:
            groups[-1] += size
        else:
            groups.append(size)
    return groups
