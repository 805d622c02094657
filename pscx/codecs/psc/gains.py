"""Gains: corrections of the predicted standard deviations, estimated block by block from the last segment."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pscx.coders.posterior import GAINS, LEARNT, OCTAVES, PENALTY
from pscx.quantizers.turns import TOGETHER
from pscx.signal.cell_lengths import cell_lengths
from pscx.signal.distributions import UNIT

SHARED_ROWS = 8.0  # the mean row of all blocks counts in each block as much as this many rows of its own


def likely_gains(blocks: int, block: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Most likely factor of the predicted standard deviation in each block, ``(blocks,)`` float64, from 1/4 to 4.

    ``block`` ``(r,)`` is the block of each row. ``low`` and ``high`` ``(r,)`` are the edges of its quantizer cell minus
    the predicted mean, in predicted standard deviations. The likelihood is Student's t with 4 degrees of freedom, as in
    :class:`pscx.coders.Posterior`. Code lengths are integers, so their sums are the same in any order.
    """
    gains, penalty = choices_on(block.device)
    own = torch.zeros(len(gains), blocks, dtype=torch.int64, device=block.device)
    at_once = LEARNT if block.device.type == "cpu" else TOGETHER
    for place, first, last in zip(*(torch.split(rows, at_once) for rows in (block, low, high)), strict=True):
        own.index_add_(1, place, cell_lengths(*((edge / gains).clamp(-1e12, 1e12) for edge in (first, last))))
    shared = own.sum(1, keepdim=True).double() * (SHARED_ROWS / max(len(block), 1))
    return gains[:, 0][(own + shared + penalty).argmin(0)]


@lru_cache(8)
def choices_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """The gains to choose from, and the code length that each costs beforehand, ``(17, 1)`` on a device."""
    gains, penalty = (torch.from_numpy(part)[:, None] for part in (GAINS, PENALTY / UNIT * OCTAVES * OCTAVES))
    return gains.to(device), penalty.to(device)
