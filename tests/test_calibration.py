"""Learning how far predicted spreads were off, against draws whose spread is known."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.codecs.psc.gains import likely_gains


def cells(values: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Edges of the cells of a uniform quantizer that the values fall into."""
    middle = (values / step).round() * step
    return middle - step / 2, middle + step / 2


def draws(spread: Tensor) -> Tensor:
    """Student's t with 4 degrees of freedom and the given standard deviations."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(len(spread), 5, generator=generator, dtype=torch.float64)
    return spread * normal[:, 0] / normal[:, 1:].square().mean(1).sqrt() / 2**0.5


def test_each_block_finds_its_own_gain_whatever_the_quantizer() -> None:
    true = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    block = torch.arange(3).repeat_interleave(3000)
    for step in (0.05, 1.0, 2.0):
        gains = likely_gains(3, block, *cells(draws(true[block]), step))
        assert ((gains / true).log2().abs() <= 0.25).all(), (step, gains)


def test_a_block_with_few_rows_follows_the_others() -> None:
    block = torch.tensor([0] * 2000 + [1])
    gains = likely_gains(3, block, *cells(draws(torch.full((2001,), 2.0, dtype=torch.float64)), 0.5))
    assert ((gains[1:] / 2).log2().abs() <= 0.5).all(), gains


def test_nothing_coded_is_nothing_learnt() -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    gains = likely_gains(4, torch.zeros(0, dtype=torch.int64), nothing, nothing)
    assert torch.equal(gains, torch.ones(4, dtype=torch.float64))
