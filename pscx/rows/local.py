"""Block-local rows: every block has its own small posterior covariance."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pscx.measurements import Partition
from pscx.priors.base import Prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.orthonormal import fix_signs


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
        block: side of a block, at least 2; signals are padded to a multiple of it.
        per_iteration: at most this many rows an iteration for each block, on average over blocks.
        depth: at most this many rows an iteration in any one block.
        base: weight of the prior's covariance, in [0, 1].
        floor: rows are taken down to a predicted standard deviation of ``floor`` times the quantizer's resolution.
        fall: ratio, at least 1, by which that limit falls from one iteration to the next to arrive at ``floor``.
        candidates: coordinates of a block that are considered.
    """

    def __init__(
        self,
        block: int = 16,
        per_iteration: float = 12.0,
        depth: int = 32,
        base: float = 0.5,
        floor: float = 0.5,
        fall: float = 2.0,
        candidates: int = 192,
    ) -> None:
        if block < 2:
            raise ValueError(f"rows.block must be at least 2, got {block}")
        if per_iteration <= 0:
            raise ValueError(f"rows.per_iteration must be over 0, got {per_iteration}")
        if not 0 <= base <= 1:
            raise ValueError(f"rows.base must lie in [0, 1], got {base}")
        if fall < 1 or floor < 0:
            raise ValueError(f"rows.fall must be at least 1 and rows.floor at least 0, got {fall} and {floor}")
        if depth < 1 or candidates < 1:
            raise ValueError(f"rows.depth and rows.candidates must be at least 1, got {depth} and {candidates}")
        self.block, self.per_iteration, self.depth, self.base = block, per_iteration, depth, base
        self.floor, self.fall, self.candidates = floor, fall, candidates

    @property
    def stride(self) -> int:
        return self.block

    def partition(self, shape: tuple[int, ...]) -> Partition:
        return Partition(*shape, block=self.block)

    def needs_samples(self, iteration: int) -> bool:
        return iteration > 0

    def propose(self, situation: Situation) -> Proposal:
        basis, spectrum = klt(situation.prior, self.block, self.candidates)
        measurements = situation.measurements
        known = measurements.rows @ basis.T
        covariance = conditioned(spectrum, known, measurements.variances)
        if situation.samples is not None:
            blocks = measurements.partition.split(situation.samples - situation.samples.mean(0)) @ basis.T
            covariance = self.mixed(covariance, blocks, known)
        free = torch.eye(len(basis), dtype=basis.dtype) - known.mT @ known
        variance, vectors = leading(free @ covariance @ free, self.depth)
        return self.choose(situation, variance, vectors @ basis)

    def mixed(self, prior: Tensor, centred: Tensor, known: Tensor) -> Tensor:
        """The mix of covariances, ``(blocks, k, k)``, of conditioned ``prior`` and samples ``(s, blocks, k)``."""
        centred = centred - (centred.transpose(0, 1) @ known.mT @ known).transpose(0, 1)
        local = torch.einsum("sbi,sbj->bij", centred, centred) / max(len(centred) - 1, 1)
        trace = local.diagonal(dim1=1, dim2=2).sum(1)
        energy = trace / prior.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-12)
        return (1 - self.base) * local + self.base * energy[:, None, None] * prior

    def choose(self, situation: Situation, variance: Tensor, rows: Tensor) -> Proposal:
        """Reverse water-filling over ``(blocks, depth)`` predicted variances of ``(blocks, depth, dim)`` rows."""
        left = situation.iterations - 1 - situation.iteration
        limit = (self.floor * situation.resolution * self.fall**left) ** 2
        most = int(self.per_iteration * len(variance))
        if variance.numel() > most:
            limit = max(limit, float(variance.flatten().kthvalue(variance.numel() - most + 1).values))
        rank, block = torch.nonzero((variance.T >= limit) & (variance.T > 0), as_tuple=True)
        chosen = fix_signs(situation.measurements.complement(block, rows[block, rank]))
        return Proposal(block, chosen, variance[block, rank], torch.bincount(rank).tolist())


@lru_cache(4)
def klt(prior: Prior, block: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Leading rows ``(k, dim)`` of a block's Karhunen-Loeve transform under the prior, and their variances."""
    values, vectors = torch.linalg.eigh(prior.block_covariance(block))
    return fix_signs(vectors.flip(1).mT[:candidates].contiguous()), values.flip(0)[:candidates].contiguous()


def conditioned(spectrum: Tensor, known: Tensor, variances: Tensor) -> Tensor:
    """Covariance of a Gaussian with diagonal ``spectrum`` ``(k,)`` given rows ``(blocks, r, k)`` with noise.

    ``D - D V^T (V D V^T + R)^-1 V D``; unused (zero) rows change nothing. Returns ``(blocks, k, k)``.
    """
    cross = known * spectrum
    unused = (known.square().sum(-1) == 0).to(spectrum)
    inner = cross @ known.mT + torch.diag_embed(variances + unused)
    return torch.diag(spectrum) - cross.mT @ torch.linalg.solve(inner, cross)


def leading(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues ``(blocks, count)`` and their eigenvectors ``(blocks, count, k)``, largest first."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(-1)[:, :count], vectors.flip(-1).mT[:, :count]
