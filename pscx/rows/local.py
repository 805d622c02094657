"""Block-local rows: every block has its own small posterior covariance."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from pscx.priors.base import Prior
from pscx.priors.kept import kept_by_prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.filling import Quota, coding, merged
from pscx.rows.orthonormal import eigen_work, fix_signs, orthonormalize
from pscx.signal.measurements import DenseRows
from pscx.signal.partition import Partition

POWER_ITERATIONS, EXTRA_VECTORS = 2, 4
LARGEST_BLOCK = 32  # its covariance, (3 * 32^2)^2 numbers, takes 75 MB
FULLEST = 3.0  # no block is given more than so many times the average number of rows


@ROWS.register("local")
class Local(RowRule):
    """Principal components block by block, of the samples' covariance mixed with the prior's.

    Each block's covariance is ``(1 - base) S + base g B``: ``S`` of the samples cut to the block, ``B`` the prior's
    image-independent covariance conditioned on the rows already measured there, ``g`` the ratio of their energies.
    Localisation and mixing are those of the hybrid ensemble Kalman filter (Hamill and Snyder 2000). The rows of all
    blocks compete: those of the largest predicted variance are taken, as in reverse water-filling (Cover and Thomas
    2006, section 10.3). The first iteration needs no samples.

    All this happens in the ``candidates`` leading coordinates of the block's Karhunen-Loeve transform under ``B``.

    Args:
        block: side of a block, 2 to 32; signals are padded to a multiple of it.
        per_iteration: largest number of rows per block in the first iteration, averaged over blocks; over 0.
        growth: ratio, over 0, of that number from one iteration to the next.
        depth: largest number of rows per iteration in any one block, at least 1.
        base: weight of the prior's covariance, in [0, 1].
        floor: rows are taken down to a predicted standard deviation of ``floor``, at least 0, times the quantizer's
            resolution.
        candidates: coordinates of a block that are considered, at least 1.
    """

    references = ("hamill2000hybrid", "cover2006elements")

    def __init__(
        self,
        block: int = 16,
        per_iteration: float = 2.0,
        growth: float = 1.6,
        depth: int = 48,
        base: float = 0.5,
        floor: float = 0.3,
        candidates: int = 192,
    ) -> None:
        if not 2 <= block <= LARGEST_BLOCK:
            raise ValueError(f"rows.block must lie in 2..{LARGEST_BLOCK}, got {block}")
        if not 0 <= base <= 1:
            raise ValueError(f"rows.base must lie in [0, 1], got {base}")
        if candidates < 1:
            raise ValueError(f"rows.candidates must be at least 1, got {candidates}")
        self.quota = Quota(per_iteration, growth, depth, floor)
        self.block, self.depth, self.base, self.candidates = block, depth, base, candidates

    @property
    def stride(self) -> int:
        return self.block

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        numbers, dim = prod(shape), shape[0] * self.block**2
        averages = list(self.quota.averages(iterations))
        size = min(self.candidates, dim)
        rows, count = self.most(averages, dim)
        each = 2 * rows * (dim + size) + (3 * samples + 4 * count) * size
        coded = coding(int(min(max(averages), count) * (numbers // dim)))
        return 8 * (4 * dim**2 + 3 * samples * numbers + int(each) * (numbers // dim) + coded)

    def work(self, shape: tuple[int, ...], samples: int, iterations: int, evaluations: int) -> float:
        numbers, dim = prod(shape), shape[0] * self.block**2
        size = min(self.candidates, dim)
        rows, count = self.most(list(self.quota.averages(iterations)), dim)
        products = size * (dim * (rows / 2 + samples + count) + rows * rows + samples * rows)
        search = size * count * (20 * count + 8 * rows + 8 * samples) + eigen_work(count)
        chosen = iterations * (products + search) * (numbers // dim)
        return eigen_work(dim) + chosen + 2 * evaluations * rows * numbers

    def most(self, averages: list[float], dim: int) -> tuple[int, int]:
        """Rows of a block after iterations with these averages, and vectors searched for in one, at most or so."""
        rows = min(int(sum(min(2 * average, self.depth) for average in averages)), dim)
        count = int(min(FULLEST * max(averages), self.depth)) + 1 + EXTRA_VECTORS
        return rows, min(count, self.candidates, dim)

    def start(self, prior: Prior, shape: tuple[int, ...]) -> DenseRows:
        channels, height, width = shape
        return DenseRows(Partition(channels, height, width, self.block), prior.home)

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        basis, spectrum = klt(situation.prior, self.block, self.candidates)
        measurements = situation.measurements
        assert isinstance(measurements, DenseRows)
        known = measurements.rows @ basis.T
        terms = conditioned(spectrum, known, measurements.variances)
        if situation.samples is not None:
            blocks = measurements.partition.split(situation.samples - situation.samples.mean(0)) @ basis.T
            terms = self.mixed(terms, blocks.transpose(0, 1), known, situation.divisor)
        count = min(self.depth, int(FULLEST * self.quota.average(situation.iteration)) + 1)
        variance, vectors = leading(terms, known, count)
        variance = variance * measurements.gains[:, None]
        rank, block, counts = self.quota.fill(variance, situation)
        rows = fix_signs(vectors[block, rank] @ basis)
        return Proposal(block, rows, variance[block, rank], merged(counts))

    def mixed(self, prior: Covariance, centred: Tensor, known: Tensor, divisor: float) -> Covariance:
        """The mix of the conditioned prior's covariance and that of samples ``(blocks, s, k)``."""
        centred = centred - centred @ known.mT @ known
        local = centred / divisor**0.5
        energy = local.square().sum((1, 2)) / prior.variances().sum(1).clamp_min(1e-12)
        weight = self.base * energy[:, None]
        plus = (1 - self.base) ** 0.5 * local
        return Covariance(prior.diagonal * weight, plus, prior.left * weight[..., None], prior.right)


@kept_by_prior(4)
def klt(prior: Prior, block: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Leading rows ``(k, dim)`` of a block's Karhunen-Loeve transform under the prior, and their variances."""
    values, vectors = torch.linalg.eigh(prior.block_covariance(block))
    rows, variances = vectors.flip(1).mT[:candidates], values.flip(0)[:candidates]
    return fix_signs(rows.contiguous()).to(prior.home), variances.contiguous().to(prior.home)


@dataclass(frozen=True)
class Covariance:
    """Blocks of ``diag(diagonal) + plus^T plus - left^T right``, never formed.

    ``diagonal`` is ``(blocks, k)``, the others are ``(blocks, any, k)``; the whole is symmetric.
    """

    diagonal: Tensor
    plus: Tensor
    left: Tensor
    right: Tensor

    def single(self) -> Covariance:
        """The same in single precision."""
        return Covariance(self.diagonal.float(), self.plus.float(), self.left.float(), self.right.float())

    def variances(self) -> Tensor:
        """The diagonal of the whole, ``(blocks, k)``."""
        return self.diagonal + self.plus.square().sum(1) - (self.left * self.right).sum(1)

    def times(self, vectors: Tensor) -> Tensor:
        """Each of ``vectors`` ``(blocks, r, k)`` times the whole."""
        product = vectors * self.diagonal[:, None] - (vectors @ self.left.mT) @ self.right
        return product + (vectors @ self.plus.mT) @ self.plus


def conditioned(spectrum: Tensor, known: Tensor, variances: Tensor) -> Covariance:
    """Covariance of a Gaussian with diagonal ``D`` ``(k,)`` given rows ``V`` ``(blocks, r, k)`` with noise ``R``.

    ``D - D V^T (V D V^T + R)^-1 V D``; unused (zero) rows change nothing.
    """
    cross = known * spectrum
    if not known.shape[1]:  # some LAPACK builds hang on empty systems
        return Covariance(spectrum.expand(len(known), -1), cross, cross, cross)
    unused = (known.square().sum(-1) == 0).to(spectrum)
    inner = cross @ known.mT + torch.diag_embed(variances + unused)
    left = torch.cholesky_solve(cross, torch.linalg.cholesky(inner))
    return Covariance(spectrum.expand(len(known), -1), cross[:, :0], left, cross)


def leading(covariance: Covariance, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues ``(blocks, count)`` and eigenvectors ``(blocks, count, k)`` off the rows ``known``.

    Subspace iteration with a Rayleigh-Ritz step (Golub and Van Loan 2013, section 8.2.4), begun at the coordinates
    of largest variance.
    """
    blocks, size = covariance.diagonal.shape
    extra = min(count + EXTRA_VECTORS, size)
    first = covariance.variances().topk(extra, dim=1).indices
    vectors = torch.zeros(blocks, extra, size, device=first.device).scatter_(2, first[..., None], 1.0)
    rough, rows = covariance.single(), known.float()
    vectors = remove(vectors, rows)
    for _ in range(POWER_ITERATIONS):
        vectors = orthonormalize(remove(rough.times(vectors), rows))
    vectors = orthonormalize(remove(remove(vectors.double(), known), known))
    free = remove(vectors, known)
    values, rotation = torch.linalg.eigh(covariance.times(free) @ free.mT)
    vectors = (rotation.flip(-1).mT @ vectors)[:, :count]
    measured = remove(vectors, known).square().sum(-1) < 0.5  # what is left where no free direction is
    return values.flip(-1)[:, :count].masked_fill(measured, 0), vectors


def remove(vectors: Tensor, known: Tensor) -> Tensor:
    """What is left of ``vectors`` ``(blocks, r, k)`` outside the span of orthonormal rows ``known``.

    Where most of a vector is taken away, a second pass is needed (Giraud, Langou and Rozloznik 2005).
    """
    return vectors - vectors @ known.mT @ known
