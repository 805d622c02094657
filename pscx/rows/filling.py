"""How rows of many blocks compete: reverse water-filling under a quota."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SMALLEST_GROUP = 128
CODING = 128  # numbers held for each row of a segment while its scale is learnt (pscx.calibration)
LARGEST_QUOTA = 2.0**40  # more rows than any block has


def quotas(first: float, growth: float, iterations: int) -> Iterator[float]:
    """Rows for each block in each iteration, on average over blocks, at most: ``first growth^iteration``.

    Multiplied out: powers of a mathematical library are not the same to the last bit everywhere.
    """
    value = first
    for _ in range(iterations):
        yield value
        value = min(value * growth, LARGEST_QUOTA)


def quota(first: float, growth: float, iteration: int) -> float:
    """That of one iteration; see :func:`quotas`."""
    *_, value = quotas(first, growth, iteration + 1)
    return value


def fill(variance: Tensor, most: int, least: float) -> tuple[Tensor, Tensor]:
    """Reverse water-filling (Cover and Thomas 2006, section 10.3) over ``(blocks, r)`` variances, falling in ``r``.

    The ``most`` largest of at least ``least`` (at least one of all, and of equals at the limit all): ranks and blocks,
    ordered by rank and then by block.
    """
    most = max(most, 1)
    if variance.numel() > most:
        least = max(least, float(variance.flatten().kthvalue(variance.numel() - most + 1).values))
    rank, block = torch.nonzero((variance.T >= least) & (variance.T > 0), as_tuple=True)
    return rank, block


def merged(sizes: list[int]) -> list[int]:
    """Neighbouring groups put together until each, but the last, has at least ``SMALLEST_GROUP`` rows."""
    groups: list[int] = []
    for size in sizes:
        if groups and groups[-1] < SMALLEST_GROUP:
            groups[-1] += size
        else:
            groups.append(size)
    return groups
