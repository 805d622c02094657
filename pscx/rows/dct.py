"""Block-local transform rows: which coefficients to measure, posterior samples tell."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from pscx.exact import square_root
from pscx.measurements import Coordinates, Partition
from pscx.priors.base import Prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.filling import LARGEST_SEGMENT, Quota, coding, fill, merged, variance_at
from pscx.transforms import BAND, BlockDCT, dct_matrix, fine

LARGEST_SIDE = 32
SIGNIFICANT_BITS = 10  # of a prior variance: far coarser than what machines differ by
UNCORRELATED = 1e-6  # of the largest variance
FULLEST = 3  # halves of the average rows of an iteration: the most in any one block where it completes
ENERGY = 2.0**12
BANDS = 16  # copies of a band of blocks that are held while it is worked on
NEIGHBOURHOOD = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))


@ROWS.register("dct")
class DCT(RowRule):
    """Coefficients of a block DCT in the order of their posterior variance: reverse water-filling over all blocks.

    The variance of a coefficient is ``(1 - base) S + base g B``: ``S`` that of the samples, pooled with the same
    coefficient of the eight neighbouring blocks, ``B`` the prior's image-independent one, ``g`` the ratio of their
    energies on the block's channel axis (the mix of Hamill and Snyder 2000, on a diagonal). On photographs the DCT's
    rows are close to the eigenvectors that :class:`pscx.rows.Local` looks for (Ahmed, Natarajan and Rao 1974), without
    their noise; ``H`` is a mask, and every number is the same on every machine. The first iteration needs no samples.

    Args:
        block: side of a block, 2 to 32; signals are padded to a multiple of it.
        per_iteration: at most this many rows for each block in the first iteration, on average over blocks.
        growth: ratio, over 0, of that number from one iteration to the next.
        depth: at most this many rows an iteration in any one block.
        base: weight of the prior's variance, in [0, 1].
        neighbours: weight of the neighbouring blocks' samples, in [0, 1].
        floor: rows are taken down to a predicted standard deviation of ``floor`` times the quantizer's resolution.
        evenness: power, in [0, 1] and a multiple of 1/8, of the mean energy of blocks over a block's own by which its
            variances are multiplied (within [1/8, 8], where there are samples): these agree too much where they show
            little, and differ too much elsewhere.
        complete: rows over a predicted standard deviation of ``complete`` times the resolution (0, or at least
            ``floor``) are taken by the end: the second half of the iterations takes more than ``per_iteration``,
            ``growth`` and ``depth`` say where it must, but no more than 1.5 times an iteration's average in any one
            block, and no more than 2^21 in an iteration. 0: they hold.
    """

    references = ("ahmed1974dct", "hamill2000hybrid", "cover2006elements")

    exact = True

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
    ) -> None:
        if not 2 <= block <= LARGEST_SIDE:
            raise ValueError(f"rows.block must lie in 2..{LARGEST_SIDE}, got {block}")
        for name, share in (("base", base), ("neighbours", neighbours)):
            if not 0 <= share <= 1:
                raise ValueError(f"rows.{name} must lie in [0, 1], got {share}")
        if not 0 <= evenness <= 1 or 8 * evenness % 1:
            raise ValueError(f"rows.evenness must lie in [0, 1] and be a multiple of 1/8, got {evenness}")
        self.quota, self.complete = Quota(per_iteration, growth, depth, floor, complete), complete
        self.block, self.per_iteration, self.growth, self.depth = block, per_iteration, growth, depth
        self.base, self.neighbours, self.floor, self.evenness = base, neighbours, floor, evenness

    @property
    def stride(self) -> int:
        return self.block

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        numbers, dim = prod(shape), shape[0] * self.block**2
        deepest = dim if self.complete else min(self.depth, dim)
        most = int(max(min(rows, deepest) for rows in self.quota.averages(iterations)) * numbers / dim)
        kept = 4 * min(self.depth, dim) * (numbers // dim)
        if self.complete:
            most = max(most, min(LARGEST_SEGMENT, numbers))
            kept = max(kept, 2 * FULLEST * most)
        signals = 2 * samples + 5  # the samples, and what they become; values, variances, estimate, image and spread
        worked = numbers * signals + BANDS * min(BAND, numbers) + 4 * dim**2 + kept
        return 8 * (worked + coding(most))

    def start(self, prior: Prior, shape: tuple[int, ...]) -> Coordinates:
        channels, height, width = shape
        return Coordinates(BlockDCT(Partition(channels, height, width, self.block), channel_axes(prior)))

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        known = situation.measurements
        assert isinstance(known, Coordinates)
        spread = None if situation.samples is None else spread_of(situation.samples, known)
        blocks, left = known.partition.count, 0
        factor = torch.ones(blocks, dtype=torch.float64)
        if spread is not None and self.evenness:
            factor = leveled(
                torch.cat([block_energy(here) for _, here in self.predicted(situation, spread)]), self.evenness
            )
        factor = factor[:, None]
        least, wanted = (variance_at(share, situation) for share in (self.floor, self.complete))
        if wanted and situation.late:
            left = sum(int((here * factor[at] >= wanted).sum()) for at, here in self.predicted(situation, spread))
        most = self.quota.most(left, blocks, situation)
        depth = min(max(self.depth, FULLEST * most // (2 * blocks) if left else 0), known.partition.dim)
        variance = torch.empty(blocks, depth, dtype=torch.float64)
        number = torch.empty(blocks, depth, dtype=torch.int64)
        for at, here in self.predicted(situation, spread):
            ranked = torch.sort(here.mul_(factor[at]), dim=1, descending=True, stable=True)
            variance[at], number[at] = (part[:, :depth] for part in ranked)
        rank, block = fill(variance, most, least)
        groups = merged(torch.bincount(rank).tolist())
        return Proposal(block, number[block, rank], variance[block, rank], groups)

    def predicted(self, situation: Situation, spread: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Variances of the coefficients before they are leveled, ``(blocks, dim)`` of a band of blocks at a time.

        They are zero where a coefficient is known.
        """
        known = situation.measurements
        assert isinstance(known, Coordinates)
        prior = prior_variances(situation.prior, self.block)
        for (first, last), (_, band) in zip(known.transform.bands(), known.bands(), strict=True):
            here = prior.repeat(band.partition.count, 1)
            here[band.known] = 0
            if spread is not None:
                here = self.mixed(here, self.local(spread, known, first, last))
            across = known.partition.grid[1]
            yield slice(first * across, last * across), here.mul_(band.gains[:, None])

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
    mean = energy.sum() / len(energy)
    ratio = mean.clamp_min(1 / ENERGY) / energy.clamp_min(1 / ENERGY)
    if evenness == 1:
        return ratio.clamp(1 / 8, 8)
    factor = torch.ones_like(ratio)
    for place in (4, 2, 1):
        ratio = square_root(ratio)
        if int(8 * evenness) & place:
            factor = factor * ratio
    return factor.clamp(1 / 8, 8)


def spread_of(samples: Tensor, known: Coordinates) -> Tensor:
    """:func:`sample_variances` of samples ``(s, channels, height, width)``, ``(blocks, dim)``, band by band."""
    spread = torch.empty_like(known.values)
    done = 0
    for rows, band in known.bands():
        found = sample_variances(band.split(samples[..., rows, :]))
        spread[done : done + len(found)] = found
        done += len(found)
    return spread


def sample_variances(coefficients: Tensor) -> Tensor:
    """Unbiased variance over the first dimension of coefficients on the grid, ``(s, blocks, dim)``."""
    centred = coefficients - coefficients.sum(0) / len(coefficients)
    return fine(fine(centred.square()).sum(0) / max(len(centred) - 1, 1))


def pooled(variance: Tensor, free: Tensor, grid: tuple[int, int], weight: float) -> Tensor:
    """Mean of ``variance`` ``(blocks, dim)`` over a block and, with ``weight``, its neighbours, where ``free``."""
    down, across = grid
    planes = torch.stack([variance * free, free.double()])
    padded = pad(rearrange(planes, "k (y x) d -> k d y x", y=down), (1, 1, 1, 1))
    total = torch.zeros(2, variance.shape[1], down, across, dtype=torch.float64)
    for y, line in enumerate(NEIGHBOURHOOD):
        for x, share in enumerate(line):
            own = 1.0 if (y, x) == (1, 1) else weight * share
            total += own * padded[:, :, y : y + down, x : x + across]
    mean = total[0] / total[1].clamp_min(1e-12)
    return fine(rearrange(mean, "d y x -> (y x) d") * free)


def channel_axes(prior: Prior) -> Tensor:
    """Axes ``(channels, channels)``: a DCT, or the channels themselves where the prior has them uncorrelated.

    For red, green and blue the DCT's axes are brightness and two colour differences, those of photographs.
    """
    covariance = prior.block_covariance(1)
    mixing = covariance - torch.diag(covariance.diagonal())
    if float(mixing.abs().max()) < UNCORRELATED * float(covariance.abs().max()):
        return torch.eye(len(covariance), dtype=torch.float64)
    return dct_matrix(len(covariance))


@lru_cache(4)
def prior_variances(prior: Prior, block: int) -> Tensor:
    """Variance of each coefficient under the prior, ``(dim,)``, to ten significant bits."""
    side = Partition(len(channel_axes(prior)), block, block, block)
    transform = BlockDCT(side, channel_axes(prior))
    eye = rearrange(torch.eye(side.dim, dtype=torch.float64), "n (c p q) -> n c p q", p=block, q=block)
    rows = transform.inverse(rearrange(eye, "n c p q -> n 1 (c p q)")).flatten(1)
    variance = ((rows @ prior.block_covariance(block)) * rows).sum(1).clamp_min(0)
    mantissa, exponent = torch.frexp(variance)
    return fine(torch.ldexp((mantissa * 2**SIGNIFICANT_BITS).round(), exponent - SIGNIFICANT_BITS))
