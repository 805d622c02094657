"""Block-local transform rows: posterior samples choose the coefficients to measure."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from pscx.exact import number, square_root
from pscx.rows.base import ROWS, Situation
from pscx.rows.block_transform import BlockTransform, sample_variances
from pscx.signal.measurements import Coordinates
from pscx.signal.transforms import fine

ENERGY = 2.0**12
NEIGHBOURHOOD = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))


@ROWS.register("dct")
class DCT(BlockTransform):
    """Coefficients of a block DCT in the order of their posterior variance: reverse water-filling over all blocks.

    The variance of a coefficient is ``(1 - base) S + base g B``: ``S`` that of the samples, pooled with the same
    coefficient of the eight neighbouring blocks, ``B`` the prior's image-independent one, ``g`` the ratio of their
    energies on the block's channel axis (the mix of Hamill and Snyder 2000, on a diagonal). On photographs the DCT's
    rows are close to the eigenvectors that :class:`pscx.rows.Local` looks for (Ahmed, Natarajan and Rao 1974), without
    their noise; ``H`` is a mask, and the rule is bit-exact. The first iteration needs no samples.

    Args:
        block: side of a block, 2 to 32; signals are padded to a multiple of it.
        per_iteration: largest number of rows per block in the first iteration, averaged over blocks; over 0.
        growth: ratio, over 0, of that number from one iteration to the next.
        depth: largest number of rows per iteration in any one block, at least 1.
        base: weight of the prior's variance, in [0, 1].
        neighbours: weight of the neighbouring blocks' samples, in [0, 1].
        floor: rows are taken down to a predicted standard deviation of ``floor``, at least 0, times the quantizer's
            resolution.
        evenness: power, in [0, 1] and a multiple of 1/8, of the mean energy of blocks over a block's own by which its
            variances are multiplied (within [1/8, 8], where there are samples): these agree too much where they show
            little, and differ too much elsewhere.
        complete: rows over a predicted standard deviation of ``complete`` times the resolution (0, or at least
            ``floor``) are taken by the end: the second half of the iterations takes more than ``per_iteration``,
            ``growth`` and ``depth`` say where it must, but no more than 1.5 times an iteration's average in any one
            block, and no more than 2^21 in an iteration. 0: they hold.
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

    references = ("ahmed1974dct", "hamill2000hybrid", "cover2006elements", "mannos1974fidelity")

    def __init__(
        self,
        block: int = 16,
        per_iteration: float = 2.0,
        growth: float = 1.6,
        depth: int = 64,
        base: float = 0.4,
        neighbours: float = 0.7,
        floor: float = 0.3,
        evenness: float = 0.0,
        complete: float = 0.0,
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
        for name, share in (("base", base), ("neighbours", neighbours)):
            if not 0 <= share <= 1:
                raise ValueError(f"rows.{name} must lie in [0, 1], got {share}")
        if not 0 <= evenness <= 1 or 8 * evenness % 1:
            raise ValueError(f"rows.evenness must lie in [0, 1] and be a multiple of 1/8, got {evenness}")
        self.base, self.neighbours, self.evenness = base, neighbours, evenness

    def variances(self, situation: Situation, samples: Tensor, known: Coordinates) -> Tensor:
        spread = spread_of(samples, known, situation.divisor)
        prior = self.spectrum(situation.prior)
        predicted = torch.empty_like(spread)
        across = known.partition.grid[1]
        for (first, last), (_, band) in zip(known.transform.bands(), known.bands(), strict=True):
            free = prior.repeat(band.partition.count, 1).masked_fill_(band.known, 0)
            mixed = self.mixed(free, self.local(spread, known, first, last))
            predicted[first * across : last * across] = mixed.mul_(band.gains[:, None])
        if self.evenness:
            predicted *= leveled(block_energy(predicted), self.evenness)[:, None]
        return predicted

    def local(self, spread: Tensor, known: Coordinates, first: int, last: int) -> Tensor:
        """The samples' variances ``spread``, :func:`pooled`, in the rows of blocks from ``first`` to ``last``."""
        down, across = known.partition.grid
        start, stop = max(first - 1, 0), min(last + 1, down)
        seen = slice(start * across, stop * across)
        local = pooled(spread[seen], ~known.known[seen], (stop - start, across), self.neighbours)
        return local[(first - start) * across : (last - start) * across]

    def mixed(self, prior: Tensor, local: Tensor) -> Tensor:
        """Variances ``(blocks, dim)`` of the samples, mixed with those of the prior; zero where they are known."""
        axes = prior.shape[1] // self.block**2
        by_axis = [rearrange(variance, "n (c k) -> n c k", c=axes) for variance in (local, prior)]
        energy = by_axis[0].sum(2) / by_axis[1].sum(2).clamp_min(1e-12)
        scaled = rearrange(energy[..., None] * by_axis[1], "n c k -> n (c k)")
        return (1 - self.base) * local + self.base * scaled


def block_energy(variance: Tensor) -> Tensor:
    """Sum over each block of ``(blocks, dim)`` variances, to a multiple of 2^-12: any sum of them is exact."""
    return (fine(variance).sum(1) * ENERGY).round() / ENERGY


def leveled(energy: Tensor, evenness: float) -> Tensor:
    """Factors ``(blocks,)`` within [1/8, 8] that bring energies closer to their mean: its ratio to each, to a power.

    The power, a multiple of 1/8, is made of square roots, which are rounded alike everywhere.
    """
    mean = energy.sum() / number(len(energy), energy)
    ratio = mean.clamp_min(1 / ENERGY) / energy.clamp_min(1 / ENERGY)
    if evenness == 1:
        return ratio.clamp(1 / 8, 8)
    factor = torch.ones_like(ratio)
    for place in (4, 2, 1):
        ratio = square_root(ratio)
        if int(8 * evenness) & place:
            factor = factor * ratio
    return factor.clamp(1 / 8, 8)


def spread_of(samples: Tensor, known: Coordinates, divisor: float) -> Tensor:
    """:func:`sample_variances` of samples ``(s, channels, height, width)``, ``(blocks, dim)``, band by band."""
    spread = torch.empty_like(known.values)
    done = 0
    for rows, band in known.bands():
        found = sample_variances(band.split(samples[..., rows, :]), divisor)
        spread[done : done + len(found)] = found
        done += len(found)
    return spread


def pooled(variance: Tensor, free: Tensor, grid: tuple[int, int], weight: float) -> Tensor:
    """Mean of ``variance`` ``(blocks, dim)`` over a block and, with ``weight``, its neighbours, where ``free``."""
    down, across = grid
    planes = torch.stack([variance * free, free.double()])
    padded = pad(rearrange(planes, "k (y x) d -> k d y x", y=down), (1, 1, 1, 1))
    total = torch.zeros(2, variance.shape[1], down, across, dtype=torch.float64, device=variance.device)
    for y, line in enumerate(NEIGHBOURHOOD):
        for x, share in enumerate(line):
            own = 1.0 if (y, x) == (1, 1) else weight * share
            total += own * padded[:, :, y : y + down, x : x + across]
    mean = total[0] / total[1].clamp_min(1e-12)
    return fine(rearrange(mean, "d y x -> (y x) d") * free)
