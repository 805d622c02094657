"""Gains: corrections of the predicted standard deviations, estimated block by block from the last segment."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pscx.coders.posterior import GAINS, OCTAVES, PART, PENALTY
from pscx.signal.distributions import UNIT, both_sides, code_lengths, mass, student_tail

DEGREES = 4
SHARED_ROWS = 8.0  # the mean row of all blocks counts in each block as much as this many rows of its own


def likely_gains(blocks: int, block: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Most likely factor of the predicted standard deviation in each block, ``(blocks,)`` float64, from 1/4 to 4.

    ``block`` ``(r,)`` is the block of each row. ``low`` and ``high`` ``(r,)`` are the edges of its quantizer cell minus
    the predicted mean, in predicted standard deviations. The likelihood is Student's t with 4 degrees of freedom, as in
    :class:`pscx.coders.Posterior`. Code lengths are integers, so their sums are the same in any order.
    """
    own = torch.zeros(len(GAINS), blocks, dtype=torch.int64)
    for place, first, last in zip(*(torch.split(rows, PART) for rows in (block, low, high)), strict=True):
        edges = [np.clip(edge.numpy() / GAINS[:, None], -1e12, 1e12) for edge in (first, last)]
        cuts = [both_sides(edge, lambda z: student_tail(z, DEGREES)) for edge in edges]
        own.index_add_(1, place, torch.from_numpy(code_lengths(mass(*cuts))))
    shared = own.sum(1, keepdim=True).double() * (SHARED_ROWS / max(len(block), 1))
    prior = torch.from_numpy(PENALTY / UNIT * OCTAVES * OCTAVES)[:, None]
    return torch.from_numpy(GAINS)[(own + shared + prior).argmin(0)]
