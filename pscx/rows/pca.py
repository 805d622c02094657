"""The paper's row rule: principal components of the posterior samples."""

from __future__ import annotations

from math import prod

import torch

from pscx.priors.base import Prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.orthonormal import eigen_work, fix_signs, orthonormalize
from pscx.signal.measurements import DenseRows
from pscx.signal.partition import Partition


@ROWS.register("pca")
class PCA(RowRule):
    """Top right singular vectors of the centred samples of the whole signal (Elata et al. 2025, Algorithm 1).

    Args:
        per_iteration: rows per iteration, at least 1 (``r`` of the paper); at most as many as the samples span.
    """

    references = ("elata2025psc",)

    def __init__(self, per_iteration: int = 12) -> None:
        if per_iteration < 1:
            raise ValueError(f"rows.per_iteration must be at least 1, got {per_iteration}")
        self.per_iteration = per_iteration

    @property
    def stride(self) -> int:
        return 1

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        rows = min(min(self.per_iteration, samples) * iterations, prod(shape))
        return 8 * prod(shape) * (2 * rows + 4 * samples)

    def work(self, shape: tuple[int, ...], samples: int, iterations: int, evaluations: int) -> float:
        each = min(self.per_iteration, samples)
        rows = min(each * iterations, prod(shape))
        chosen = eigen_work(samples) + prod(shape) * samples * (2 * samples + 4 * rows)
        return iterations * chosen + 2 * evaluations * rows * prod(shape)

    def start(self, prior: Prior, shape: tuple[int, ...]) -> DenseRows:
        channels, height, width = shape
        return DenseRows(Partition(channels, height, width, None), prior.home)

    def needs_samples(self, iteration: int) -> bool:
        return True

    def propose(self, situation: Situation) -> Proposal:
        measurements, samples = situation.measurements, situation.samples
        assert samples is not None
        assert isinstance(measurements, DenseRows)
        centred = measurements.partition.split(samples - samples.mean(0))[:, 0]
        block = torch.zeros(len(centred), dtype=torch.int64, device=centred.device)
        centred = measurements.complement(block, centred)
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        rounding = max(1e-12 * float(values[-1]), 1e-24 * float(samples.square().sum()))
        keep = min(self.per_iteration, max(len(centred) - 1, 0), centred.shape[1] - len(measurements))
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        worth = values > rounding
        rows = orthonormalize(measurements.complement(block[: int(worth.sum())], (vectors.T @ centred)[worth]))
        variance = values[worth] / situation.divisor * measurements.gains[0]
        return Proposal(block[: len(rows)], fix_signs(rows), variance, [len(rows)] if len(rows) else [])
