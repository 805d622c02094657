"""Block-local transform rows: which coefficients to measure, posterior samples tell."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from pscx.measurements import Coordinates, Partition
from pscx.priors.base import Prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.filling import Quota, coding, merged
from pscx.transforms import BAND, BlockDCT, dct_matrix, fine

LARGEST_SIDE = 32
SIGNIFICANT_BITS = 10  # of a prior variance: far coarser than what machines differ by
UNCORRELATED = 1e-6  # of the largest variance
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
    ) -> None:
        if not 2 <= block <= LARGEST_SIDE:
            raise ValueError(f"rows.block must lie in 2..{LARGEST_SIDE}, got {block}")
        for name, share in (("base", base), ("neighbours", neighbours)):
            if not 0 <= share <= 1:
                raise ValueError(f"rows.{name} must lie in [0, 1], got {share}")
        self.quota = Quota(per_iteration, growth, depth, floor)
        self.block, self.per_iteration, self.growth, self.depth = block, per_iteration, growth, depth
        self.base, self.neighbours, self.floor = base, neighbours, floor

    @property
    def stride(self) -> int:
        return self.block

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        numbers, dim = prod(shape), shape[0] * self.block**2
        most = max(min(rows, self.depth, dim) for rows in self.quota.averages(iterations))
        kept = 4 * min(self.depth, dim) * (numbers // dim)
        signals = 2 * samples + 5  # the samples, and what they become; values, variances, estimate, image and spread
        worked = numbers * signals + BANDS * min(BAND, numbers) + 4 * dim**2 + kept
        return 8 * (worked + coding(int(most * numbers / dim)))

    def start(self, prior: Prior, shape: tuple[int, ...]) -> Coordinates:
        channels, height, width = shape
        return Coordinates(BlockDCT(Partition(channels, height, width, self.block), channel_axes(prior)))

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        known = situation.measurements
        assert isinstance(known, Coordinates)
        prior = prior_variances(situation.prior, self.block)
        spread = None if situation.samples is None else spread_of(situation.samples, known)
        shape = known.partition.count, min(self.depth, known.partition.dim)
        variance, number = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.int64)
        for (first, last), (_, band) in zip(known.transform.bands(), known.bands(), strict=True):
            blocks = slice(first * known.partition.grid[1], last * known.partition.grid[1])
            here = prior.repeat(band.partition.count, 1)
            here[band.known] = 0
            if spread is not None:
                here = self.mixed(here, self.local(spread, known, first, last))
            ranked = torch.sort(here.mul_(band.gains[:, None]), dim=1, descending=True, stable=True)
            variance[blocks], number[blocks] = (part[:, : self.depth] for part in ranked)
        rank, block = self.quota.fill(variance, situation)
        groups = merged(torch.bincount(rank).tolist())
        return Proposal(block, number[block, rank], variance[block, rank], groups)

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
