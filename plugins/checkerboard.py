"""A row rule around another: every second block first, the blocks between them when their neighbours are known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pscx.priors import Prior
from pscx.rows import ROWS, Proposal, RowRule, Situation
from pscx.signal.measurements import Measurements
from pscx.signal.partition import Partition


@ROWS.register("checkerboard")
class Checkerboard(RowRule):
    """The rows of ``inner``, in two iterations for each of its own: those of the black blocks, then of the white.

    The white blocks are then measured against a prediction that knows their black neighbours, as in the two-pass
    context model of He et al. 2021 (checkerboard context). Give the codec twice the iterations of ``inner`` alone.

    Args:
        inner: a rule that cuts the signal into blocks.
    """

    def __init__(self, inner: RowRule) -> None:
        self.inner, self.exact, self.evaluations = inner, inner.exact, inner.evaluations

    @property
    def stride(self) -> int:
        return self.inner.stride

    def memory(self, shape: tuple[int, ...], samples: int, iterations: int) -> int:
        return self.inner.memory(shape, samples, (iterations + 1) // 2)

    def start(self, prior: Prior, shape: tuple[int, ...]) -> Measurements:
        return self.inner.start(prior, shape)

    def needs_samples(self, iteration: int) -> bool:
        return iteration % 2 == 1 or self.inner.needs_samples(iteration // 2)

    def propose(self, situation: Situation) -> Proposal:
        turn = situation.iteration % 2
        halved = replace(situation, iteration=situation.iteration // 2, iterations=(situation.iterations + 1) // 2)
        proposal = self.inner.propose(halved)
        kept = colour(situation.measurements.partition)[proposal.block] == turn
        groups = [int(part.sum()) for part in torch.split(kept, proposal.groups)]
        weight = None if proposal.weight is None else proposal.weight[kept]
        rows = Proposal(proposal.block[kept], proposal.rows[kept], proposal.variance[kept], groups, weight=weight)
        return replace(rows, groups=[size for size in groups if size])


def colour(partition: Partition) -> Tensor:
    """0 for a black block, 1 for a white one, in the order of the partition: ``(blocks,)``."""
    down, across = (torch.arange(size) for size in partition.grid)
    return ((down[:, None] + across) % 2).flatten()
