"""Block-local transform rows whose variances a regression predicts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from pscx.exact import divide, logarithm, ordered_mean, square_root
from pscx.rows.base import ROWS, Situation
from pscx.rows.block_transform import BlockTransform, centred_variances
from pscx.rows.log_linear import check_weights, log_linear
from pscx.signal.measurements import Coordinates

FEATURES = 10
TRENDS = 3  # weights of a feature: constant, with the progress, and with 1 / iteration^2
SMALLEST = 1e-6  # of a variance, before its logarithm is taken
WORKED = 1 << 18  # numbers of the rows of blocks that are looked at at once, but one row at least
NEAR, WIDE = 1, 2  # coefficients on either side of one that its means reach over, in both directions of frequency

PHOTOGRAPHS = [
    *(0.0868, 0.6314, 0.0908, -0.1431, 0.2578, 7.4544, 0.276, -0.1444, -0.0495, -4.528),
    *(0.0933, -0.1642, 0.0751, 0.2604, -0.1481, -7.8956, -0.4396, -0.2107, 1.9904, 5.2029),
    *(0.0462, -0.4267, 0.0662, 0.0501, 0.4146, -0.008, 0.4342, 1.3744, -0.7913, -2.0778),
]
"""Weights for the recipes and the prior that ship with pscx (docs/rows.md says of what).

A stream says ``null`` for them, so they never change after a release: others are given by number.
"""


@ROWS.register("learned")
class Learned(BlockTransform):
    """Coefficients of a block DCT in the order of a variance that is regressed on what both sides know.

    The logarithm of the variance is linear in ten features of a coefficient. ``pscx fit`` finds the weights as those
    under which coefficients that were, or might have been, measured are most likely::

        ln variance = sum_k (a_k + b_k p + c_k / i^2) f_k,   p = i / (iterations - 1)

    in iteration ``i`` (the first, 0, has no samples and takes the prior's variances). The features ``f`` are logarithms
    of

    - the samples' variance, mean over the 3x3 frequencies around the coefficient that are not known,
    - the same over 5x5 frequencies and 3x3 blocks (those beside the block with weight 1/2 a direction),
    - the squared coefficients of the samples' mean, over the same two neighbourhoods, known ones among them,
    - the factor by which earlier predictions in this block were off,

    the block's share of coefficients that are not known; the logarithms of the prior's variance and of 1 plus the
    radial frequency; 1 on the first channel axis (brightness) and 0 elsewhere; and 1.

    Few samples know little of the variance of one coefficient, and posterior samples of few steps are wrong in ways
    that repeat: too much alike where they are smooth and in brightness. ``dct`` has options against that; a regression
    finds its own. Its numbers are made of IEEE operations alone, so they are the same on every machine.

    Args:
        block: side of a block, 2 to 32; signals are padded to a multiple of it.
        per_iteration: largest number of rows per block in the first iteration, averaged over blocks; over 0.
        growth: ratio, over 0, of that number from one iteration to the next.
        depth: largest number of rows per iteration in any one block, at least 1.
        floor: rows are taken down to a predicted standard deviation of ``floor``, at least 0, times the quantizer's
            resolution.
        complete: rows over a predicted standard deviation of ``complete`` times the resolution (0, or at least
            ``floor``) are taken by the end: the second half of the iterations takes more than ``per_iteration``,
            ``growth`` and ``depth`` say where it must, but no more than 1.5 times an iteration's average in any one
            block, and no more than 2^21 in an iteration. 0: they hold.
        weights: ``a``, then ``b``, then ``c``, thirty numbers within ±1000, each ten in the order above; none for those
            that ship with pscx, for its own prior.
        first: how the first iteration, which has no samples, measures: ``prior`` takes the coefficients of the largest
            variance under the prior; ``pyramid`` takes the block means, coarse to fine, each predicted from those
            around it (:class:`pscx.rows.pyramid.Pyramid`).
        pyramid: weights of the pyramid's variances, fourteen numbers within ±1000; none for those that ship with pscx.
        chroma: what an error on a channel axis after the first counts, in [1/16, 4]: coefficients of colour are
            quantized so many times as finely as those of brightness.
        knee: frequency in cycles a pixel, over 0.01, at which an error counts 0.71 of what it does at frequency 0: it
            falls as ``1 / sqrt(1 + (f / knee)^2)`` (:class:`pscx.rows.weighting.Weighting`). 0: it does not.
        coarse: the pyramid quantizes the means of the blocks in every fourth row and column so many times as finely as
            the others, in [1, 16], so that smooth surfaces keep their colour.
        statistics: of the signal's blocks, in the order of :meth:`pscx.rows.statistics.BlockStatistics.of`; none for
            what the prior says of them.
    """

    references = ("ahmed1974dct", "cover2006elements", "mannos1974fidelity")

    def __init__(
        self,
        block: int = 16,
        per_iteration: float = 2.0,
        growth: float = 1.6,
        depth: int = 64,
        floor: float = 0.2,
        complete: float = 0.6,
        weights: list[float] | None = None,
        first: str = "prior",
        pyramid: list[float] | None = None,
        chroma: float = 1.0,
        knee: float = 0.0,
        coarse: float = 1.0,
        statistics: list[float] | None = None,
    ) -> None:
        super().__init__(
            block, per_iteration, growth, depth, floor, complete, first, pyramid, chroma, knee, coarse, statistics
        )
        if weights is not None:
            check_weights("rows.weights", weights, TRENDS * FEATURES)
        self.weights = weights

    def variances(self, situation: Situation, samples: Tensor, known: Coordinates) -> Tensor:
        weights = weights_at(self.weights or PHOTOGRAPHS, situation.iteration, situation.iterations)
        predicted = torch.empty_like(known.values)
        for blocks, features in features_of(situation, self.spectrum(situation.prior)):
            variance = log_linear(features, weights)
            predicted[blocks] = variance.contiguous().masked_fill_(known.known[blocks], 0)
        return predicted


def time_basis(iteration: int, iterations: int) -> tuple[float, float, float]:
    """What the three parts of the weights are multiplied by; the first iteration counts as the second."""
    place = max(iteration, 1)  # a rule that wraps this one may have samples at once
    return 1.0, place / max(iterations - 1, 1), 1 / (place * place)


def weights_at(weights: list[float], iteration: int, iterations: int) -> list[float]:
    """Weights of the features in an iteration."""
    first, second, third = time_basis(iteration, iterations)
    parts = (weights[start : start + FEATURES] for start in range(0, TRENDS * FEATURES, FEATURES))
    return [first * a + second * b + third * c for a, b, c in zip(*parts, strict=True)]


def features_of(situation: Situation, spectrum: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """The features but for the last, of a band of blocks at a time; see :class:`Learned`.

    Each is float32 and of a shape that expands to ``(blocks, dim)``: some are the same in all of a block, or in all
    blocks. The situation has samples; ``spectrum`` ``(dim,)`` are the rule's variances before anything is known.
    """
    known, samples = situation.measurements, situation.samples
    assert isinstance(known, Coordinates)
    assert samples is not None
    down, across = known.partition.grid
    block, axes = known.transform.block, known.partition.channels
    of_place = [log_variance(spectrum), *places(axes, block, known.device)]
    step = max(1, WORKED // (across * known.partition.dim))
    planes, stop = torch.empty(0, device=known.device), 0
    for first in range(0, down, step):
        last, start, done = min(first + step, down), max(first - 1, 0), stop
        stop = min(last + 1, down)
        if stop > done:
            more = planes_of(samples, known, situation.divisor, done, stop)
            planes = torch.cat([planes, more], 1) if first else more
        inner, blocks = slice(first - start, last - start), slice(first * across, last * across)
        near = sum_frequencies(by_frequency(planes[:, inner], axes, block), NEAR)
        wide = sum_frequencies(by_frequency(sum_blocks(planes)[:, inner], axes, block), WIDE)
        whole = totals(stop - start, across, block, inner.start, inner.stop, known.device)
        means = [near[0].div_(near[1].clamp_min_(1)), wide[0].div_(wide[1].clamp_min_(1 / 4))]
        means += [near[2].div_(whole[0]), wide[2].div_(whole[1])]
        logs = [log_variance(mean.view(-1, (last - first) * across)).T for mean in means]
        unknown = divide((~known.known[blocks]).sum(1, keepdim=True).float(), known.partition.dim)
        yield blocks, [*logs, log_variance(known.gains[blocks, None]), unknown, *of_place]
        planes = planes[:, last - 1 - start :]


def planes_of(samples: Tensor, known: Coordinates, divisor: float, first: int, last: int) -> Tensor:
    """Of the rows of blocks from ``first`` to ``last``: ``(3, rows of blocks, blocks, dim)`` float32.

    The samples' variance where a coefficient is not known, 1 where that is so, and the squared coefficients of the
    samples' mean.
    """
    across, block = known.partition.grid[1], known.transform.block
    coefficients = known.transform.band(first, last).forward(samples[..., first * block : last * block, :])
    mean = ordered_mean([coefficients])
    planes = torch.empty(3, last - first, across, known.partition.dim, device=known.device)
    variance, free, energy = planes.view(3, -1, known.partition.dim)
    torch.logical_not(known.known[first * across : last * across], out=free)
    variance.copy_(centred_variances(coefficients.sub_(mean), divisor)).mul_(free)
    energy.copy_(mean.square_())
    return planes


def by_frequency(planes: Tensor, axes: int, block: int) -> Tensor:
    """``(k, y, x, dim)`` as ``(k, axes, block, block, y, x)``: neighbours in frequency lie apart, so sums are fast."""
    k, y, x, dim = planes.shape
    return planes.reshape(k, y * x, dim).transpose(1, 2).contiguous().view(k, axes, block, block, y, x)


@lru_cache(4)
def totals(down: int, across: int, block: int, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the weights of the two means add up to, for the rows ``start`` to ``stop`` of ``down`` rows of blocks."""
    ones = torch.ones(1, down, across, block * block, device=device)
    near, wide = (by_frequency(part, 1, block)[0] for part in (ones[:, :1, :1], sum_blocks(ones)[:, start:stop]))
    return sum_frequencies(near, NEAR), sum_frequencies(wide, WIDE)


@lru_cache(4)
def places(axes: int, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logarithm of 1 plus the radial frequency, and whether the axis is the first: ``(dim,)`` each."""
    square = torch.arange(block, dtype=torch.float32).square()
    radius = square_root(square[:, None] + square).add_(1)
    first = torch.arange(axes * block * block) < block * block
    return logarithm(radius.repeat(axes, 1, 1).flatten()).to(device), first.float().to(device)


def log_variance(variance: Tensor) -> Tensor:
    """Its logarithm, float32."""
    return logarithm(variance.float() + SMALLEST)


def sum_frequencies(planes: Tensor, reach: int) -> Tensor:
    """Sums over the frequencies within ``reach``, in both directions, of ``(..., p, q, y, x)``."""
    return window(window(planes, -3, [1.0] * (2 * reach + 1)), -4, [1.0] * (2 * reach + 1))


def sum_blocks(planes: Tensor) -> Tensor:
    """Sums over 3x3 blocks of ``(k, y, x, ...)``, those beside a block with weight 1/2 a direction."""
    return window(window(planes, 1, [0.5, 1.0, 0.5]), 2, [0.5, 1.0, 0.5])


def window(values: Tensor, dim: int, weights: list[float]) -> Tensor:
    """Sums along a dimension over what lies around each place, with weights that are powers of two; none past its ends.

    The order of the additions is fixed, and the products are exact, so they may be fused with them.
    """
    reach, size = len(weights) // 2, values.shape[dim]
    total = values * weights[reach]
    for shift in range(-reach, reach + 1):
        length = size - abs(shift)
        if shift and length > 0:
            part = values.narrow(dim, max(shift, 0), length)
            total.narrow(dim, max(-shift, 0), length).add_(part, alpha=weights[reach + shift])
    return total
