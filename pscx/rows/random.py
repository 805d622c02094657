"""Random rows: the baseline of compressed sensing."""

from __future__ import annotations

from math import prod

import torch

from pscx.priors.base import Prior
from pscx.rows.base import ROWS, Proposal, RowRule, Situation
from pscx.rows.orthonormal import orthonormalize
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

ADDRESS = 1 << 32  # noise index reserved for this rule


@ROWS.register("random")
class Random(RowRule):
    """Uniformly random orthonormal rows (Candes and Tao 2006): a baseline that ignores the posterior samples.

    Rows are Gaussian vectors, orthonormalised against each other and all earlier ones. Their predicted variance is that
    of the samples along them.

    Args:
        per_iteration: rows per iteration, at least 1; with blocks, in each block.
        block: side of a block, at least 2, or none for rows over the whole signal.
        seed: seed of the rows, in [0, 2^64).
    """

    references = ("candes2006random",)

    def __init__(self, per_iteration: int = 12, block: int | None = None, seed: int = 0) -> None:
        if per_iteration < 1:
            raise ValueError(f"rows.per_iteration must be at least 1, got {per_iteration}")
        if block is not None and block < 2:
            raise ValueError(f"rows.block must be at least 2 or none, got {block}")
        self.per_iteration, self.block, self.seed = per_iteration, block, seed
        self.noise = Noise(seed)

    @property
    def stride(self) -> int:
        return self.block or 1

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        numbers = prod(shape)
        dim = shape[0] * self.block**2 if self.block else numbers
        each = min(self.per_iteration, dim)
        return 8 * numbers * (2 * min(each * iterations, dim) + 4 * each + 3 * samples)

    def work(self, shape: tuple[int, ...], samples: int, iterations: int, evaluations: int) -> float:
        dim = shape[0] * self.block**2 if self.block else prod(shape)
        each = min(self.per_iteration, dim)
        rows = min(each * iterations, dim)
        return prod(shape) * rows * (4 * each + 4 * rows + samples + 2 * evaluations)

    def start(self, prior: Prior, shape: tuple[int, ...]) -> DenseRows:
        channels, height, width = shape
        return DenseRows(Partition(channels, height, width, self.block), prior.home)

    def needs_samples(self, iteration: int) -> bool:
        return True

    def propose(self, situation: Situation) -> Proposal:
        known, samples = situation.measurements, situation.samples
        assert samples is not None
        assert isinstance(known, DenseRows)
        count, dim = known.partition.count, known.partition.dim
        each = min(self.per_iteration, dim - int(known.counts.max()))
        block = torch.arange(count, device=known.device).repeat(each)
        address = {"iteration": situation.iteration, "sample": ADDRESS, "step": 0}
        drawn = self.noise.normal((each * count, dim), **address, device=known.device)
        rows = known.complement(block, drawn).reshape(each, count, dim).transpose(0, 1)
        rows = known.complement(block, orthonormalize(rows).transpose(0, 1).reshape(-1, dim))
        centred = known.split(samples - samples.mean(0)).permute(1, 2, 0)[block]
        variance = (rows[:, None] @ centred)[:, 0].square().sum(1) / situation.divisor
        return Proposal(block, rows, variance * known.gains[block], [count] * each)
