"""Base of row rules whose rows are coefficients of a block transform."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from pscx.errors import PscxError
from pscx.exact import divide, ordered_mean
from pscx.priors.base import Prior
from pscx.priors.kept import kept_by_prior
from pscx.rows.base import Proposal, RowRule, Situation
from pscx.rows.filling import LARGEST_SEGMENT, Quota, coding, fill, merged, variance_at
from pscx.rows.pyramid import PHOTOGRAPHS, Pyramid, check_first
from pscx.rows.statistics import BlockStatistics, at_once
from pscx.rows.weighting import Weighting, rounded
from pscx.signal.measurements import Coordinates
from pscx.signal.partition import Partition
from pscx.signal.transforms import BAND, FINE, LARGEST_BLOCK, BlockDCT, dct_matrix, fine, to_fine

LARGEST_SIDE = 32
SIGNIFICANT_BITS = 10  # of a prior variance: far coarser than what machines differ by
UNCORRELATED = 1e-6  # of the largest variance
FULLEST = 3  # halves of the average rows of an iteration: the most in any one block where it completes
LAST_BITS = LARGEST_BLOCK - 1
BANDS = 16  # copies of a band of blocks held during its computation


class BlockTransform(RowRule):
    """Coefficients of a block DCT in the order of their predicted variance: reverse water-filling over all blocks.

    ``H`` is a mask. The first iteration needs no samples: its variances are the prior's. With samples a subclass
    computes them, with single IEEE operations and operations on bits only, so that it is bit-exact.

    The options are those of the same names of :class:`pscx.rows.DCT` and :class:`pscx.rows.Learned`.
    """

    exact = True

    implied: ClassVar[Mapping[str, Any]] = {"statistics": None, "chroma": 1.0, "knee": 0.0, "coarse": 1.0}

    def __init__(
        self,
        block: int,
        per_iteration: float,
        growth: float,
        depth: int,
        floor: float,
        complete: float,
        first: str = "prior",
        pyramid: list[float] | None = None,
        chroma: float = 1.0,
        knee: float = 0.0,
        coarse: float = 1.0,
        statistics: list[float] | None = None,
    ) -> None:
        if not 2 <= block <= LARGEST_SIDE:
            raise ValueError(f"rows.block must lie in 2..{LARGEST_SIDE}, got {block}")
        self.quota, self.complete = Quota(per_iteration, growth, depth, floor, complete), complete
        check_first(first, pyramid, coarse)
        self.block, self.depth, self.floor, self.first, self.pyramid = block, depth, floor, first, pyramid
        self.known = None if statistics is None else BlockStatistics.of(statistics, block)
        self.weighting, self.coarse = Weighting(chroma, knee), coarse

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
        signals = 2 * samples + 6  # samples and their transforms; values, noise, estimate, image, spread, prediction
        band = min(max(BAND, dim * (shape[2] // self.block)), numbers)
        copies = BANDS + 5 * samples  # with the blocks on either side of a band, up to as many as the band has
        worked = numbers * signals + copies * band + 4 * dim**2 + kept
        return 8 * (worked + coding(most))

    def start(self, prior: Prior, shape: tuple[int, ...]) -> Coordinates:
        channels, height, width = shape
        if self.known is not None and len(self.known.means) != channels:
            raise PscxError(
                f"rows.statistics are those of {len(self.known.means)} channels, and signals of this prior have "
                f"{channels}: they were learnt with another prior"
            )
        axes = channel_axes(prior) if self.known is None else self.known.axes
        return Coordinates(BlockDCT(Partition(channels, height, width, self.block), axes.to(prior.home)))

    def spectrum(self, prior: Prior) -> Tensor:
        """Variance of each coefficient before anything is known of an image, ``(dim,)``: learnt, or the prior's."""
        if self.known is None:
            return prior_variances(prior, self.block)
        return self.known.spectrum(self.block).to(prior.home)

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        known = situation.measurements
        assert isinstance(known, Coordinates)
        if self.first == "pyramid" and situation.iteration == 0:
            return self.means(situation, known)
        least, wanted = (variance_at(share, situation) for share in (self.floor, self.complete))
        predicted, blocks = self.predicted(situation), known.partition.count
        weights = self.weighting.of(known.partition.channels, self.block, known.device)
        if weights is not None:
            predicted *= weights.square()
        left = int((predicted >= wanted).sum()) if wanted and situation.late else 0
        most = self.quota.most(left, blocks, situation)
        depth = min(max(self.depth, FULLEST * most // (2 * blocks) if left else 0), known.partition.dim)
        variance = torch.empty(blocks, depth, dtype=torch.float64, device=known.device)
        place = torch.empty(blocks, depth, dtype=torch.int64, device=known.device)
        across = known.partition.grid[1]
        for first, last in known.transform.bands():
            at = slice(first * across, last * across)
            variance[at], place[at] = largest(predicted[at], depth)
        rank, block, counts = fill(variance, most, least)
        rows, variance = place[block, rank], variance[block, rank]
        weight = None if weights is None else weights[rows]
        if weight is not None:
            variance = variance / (weight * weight)
        if self.known is None or situation.samples is not None:
            return Proposal(block, rows, variance, merged(counts), weight=weight)
        mean = self.means_at(rows.cpu(), known.partition.dim)
        return Proposal(block, rows, variance, [len(rows)], partial(at_once, mean, variance.cpu()), weight)

    def means_at(self, rows: Tensor, dim: int) -> Tensor:
        """Learnt means of coefficients ``rows`` ``(r,)`` of a block of ``dim``, ``(r,)`` float64."""
        assert self.known is not None
        means = torch.zeros(dim, dtype=torch.float64)
        means[:: self.block**2] = self.known.block_means(self.block)
        return means[rows]

    def means(self, situation: Situation, known: Coordinates) -> Proposal:
        """The block means of the whole signal, coarse to fine."""
        pyramid = self.pyramid_of(situation, known)
        proposal = pyramid.proposal(known.partition.dim, known.device)
        weights = self.weighting.of(known.partition.channels, self.block, known.device)
        weight = None if weights is None else weights[proposal.rows]
        if self.coarse != 1:
            weight = torch.ones_like(proposal.variance) if weight is None else weight
            weight = rounded(torch.where(pyramid.coarse(proposal.block), weight * self.coarse, weight))
        return replace(proposal, weight=weight)

    def pyramid_of(self, situation: Situation, known: Coordinates) -> Pyramid:
        """The order and the predictions of the block means."""
        first = self.spectrum(situation.prior)[:: self.block**2].cpu()
        means = torch.zeros_like(first) if self.known is None else self.known.block_means(self.block)
        weights = self.pyramid or PHOTOGRAPHS
        return Pyramid(known.partition.grid, means, first, situation.resolution, weights)

    def predicted(self, situation: Situation) -> Tensor:
        """Variances of all coefficients before this iteration, ``(blocks, dim)`` float64, zero for known ones."""
        known = situation.measurements
        assert isinstance(known, Coordinates)
        if situation.samples is not None:
            return self.variances(situation, situation.samples, known)
        prior = self.spectrum(situation.prior)
        return (prior * known.gains[:, None]).masked_fill_(known.known, 0)

    @abstractmethod
    def variances(self, situation: Situation, samples: Tensor, known: Coordinates) -> Tensor:
        """:meth:`predicted` where there are ``samples`` ``(s, channels, height, width)``."""


def largest(variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row of ``(blocks, dim)`` float64 numbers, and their places.

    They fall, and equal ones are in the order of their places. Numbers are at least 0 (no negative zero), and ``dim``
    at most 4096. Where the last twelve bits of all numbers are zero (of those that were float32 once, they are), a
    place takes these bits, and whole numbers are sorted, which numpy does many times as fast: the result is the same.
    Of what lies on another device than the CPU nothing is asked.
    """
    bits = variance.view(torch.int64)
    if variance.device.type != "cpu" or bool((bits & LAST_BITS).any()):
        ordered, places = torch.sort(variance, dim=1, descending=True, stable=True)
        return ordered[:, :count], places[:, :count]
    keys = (bits | (LAST_BITS - torch.arange(variance.shape[1]))).numpy()
    keys.sort(axis=1)
    found = torch.from_numpy(keys[:, : -count - 1 : -1].copy())
    return (found & ~LAST_BITS).view(torch.float64), LAST_BITS - (found & LAST_BITS)


def sample_variances(coefficients: Tensor, divisor: float) -> Tensor:
    """Variance over the first dimension of coefficients on the grid, ``(s, blocks, dim)``."""
    return centred_variances(coefficients - ordered_mean([coefficients]), divisor)


def centred_variances(centred: Tensor, divisor: float) -> Tensor:
    """:func:`sample_variances` of coefficients less their mean, which are changed: sums of integers are exact."""
    squares = to_fine(centred.square_().mul_(FINE))
    total = squares[0]
    for more in squares[1:]:
        total += more
    return to_fine(divide(total, divisor)).mul_(1 / FINE)


def channel_axes(prior: Prior) -> Tensor:
    """Axes ``(channels, channels)``: a DCT, or the channels themselves where the prior has them uncorrelated.

    For red, green and blue the DCT's axes are brightness and two colour differences, those of photographs.
    """
    covariance = prior.block_covariance(1)
    mixing = covariance - torch.diag(covariance.diagonal())
    if float(mixing.abs().max()) < UNCORRELATED * float(covariance.abs().max()):
        return torch.eye(len(covariance), dtype=torch.float64)
    return dct_matrix(len(covariance))


@kept_by_prior(4)
def prior_variances(prior: Prior, block: int) -> Tensor:
    """Variance of each coefficient under the prior, ``(dim,)``, to ten significant bits; computed on the CPU."""
    side = Partition(len(channel_axes(prior)), block, block, block)
    transform = BlockDCT(side, channel_axes(prior))
    eye = rearrange(torch.eye(side.dim, dtype=torch.float64), "n (c p q) -> n c p q", p=block, q=block)
    rows = transform.inverse(rearrange(eye, "n c p q -> n 1 (c p q)")).flatten(1)
    variance = ((rows @ prior.block_covariance(block)) * rows).sum(1).clamp_min(0)
    mantissa, exponent = torch.frexp(variance)
    return fine(torch.ldexp((mantissa * 2**SIGNIFICANT_BITS).round(), exponent - SIGNIFICANT_BITS)).to(prior.home)
