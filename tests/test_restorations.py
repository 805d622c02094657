from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import oracles
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from recursions import Case, ddrm
from torch import Tensor

from pscx.execution.sharding import ALONE
from pscx.priors import Gaussian
from pscx.restorations import Draw, Mean, Restoration, Sample
from pscx.samplers import DDRM, Problem, Sampler
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

SHAPE = (3, 2, 4)
PRIOR = Gaussian(0.8, 0.5, 0.5)


@dataclass
class Numbered(Sampler):
    """Draw ``i`` is the constant ``i^2``; remembers which draws were asked for together."""

    asked: list[range] = field(default_factory=list)

    def sample(self, problem: Problem, indices: range) -> Tensor:
        self.asked.append(indices)
        squares = torch.tensor([float(i * i) for i in indices], dtype=torch.float64)
        return squares[:, None, None, None].expand(len(indices), *problem.shape)


def problem(rows: int = 4) -> Problem:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, rows, generator=generator, dtype=torch.float64)).Q.T
    measurements = DenseRows(Partition(*SHAPE, block=None))
    values = basis @ PRIOR.draw(2, 4, generator).flatten()
    measurements.append(torch.zeros(rows, dtype=torch.int64), basis, values, torch.full_like(values, 0.01))
    return Problem(PRIOR, measurements, Noise(3), 0, SHAPE)


def drawing(sampler: Sampler, batch: int) -> Draw:
    return partial(ALONE.draws, sampler, problem(), batch=batch)


@pytest.mark.parametrize("batch", [1, 2, 5, 9])
@pytest.mark.parametrize("index", [0, 3])
def test_mean_averages_its_own_draws(index: int, batch: int) -> None:
    """Restoration ``i`` averages draws ``5 i`` to ``5 i + 4``, no more than ``batch`` at once."""
    sampler = Numbered()
    restored = Mean(5).restore(drawing(sampler, batch), index)
    draws = range(5 * index, 5 * index + 5)
    assert restored.shape == SHAPE
    assert restored.unique().tolist() == [sum(i * i for i in draws) / 5]
    assert [i for asked in sampler.asked for i in asked] == list(draws)
    assert max(map(len, sampler.asked)) <= batch


@pytest.mark.parametrize("index", [0, 7])
def test_sample_is_one_draw(index: int) -> None:
    sampler = Numbered()
    restored = Sample().restore(drawing(sampler, 4), index)
    assert restored.shape == SHAPE
    assert restored.unique().tolist() == [index**2]
    assert sampler.asked == [range(index, index + 1)]


def test_mean_of_many_draws_is_the_mean_of_the_sampler() -> None:
    """2000 draws of a real sampler: within 4 standard errors of its linear recursion's mean."""
    asked, count = problem(), 2000
    known = asked.measurements
    assert isinstance(known, DenseRows)
    case = Case(PRIOR.covariance(2, 4), PRIOR.levels, known.rows[0], known.values[0], known.variances[0])
    wanted = ddrm(case, oracles.visited(PRIOR.levels, None, 0.0, 4, "linear"), 1.0, noise_aware=False)
    sampler = DDRM(4, 1.0, spacing="linear", noise_aware=False)
    restored = Mean(count).restore(partial(ALONE.draws, sampler, asked, batch=500), 0).flatten()
    error = (wanted.covariance.diagonal().clamp_min(0) / count).sqrt()
    assert ((restored - wanted.mean).abs() <= 4 * error + 1e-9).all()


@pytest.mark.parametrize("restoration", [Mean(2), Sample()])
def test_restorations_with_another_number_differ(restoration: Restoration) -> None:
    first, again, second = (restoration.restore(drawing(DDRM(3), 2), index) for index in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.isclose(first, second).all()


def test_mean_refuses() -> None:
    with pytest.raises(ValueError, match=r"restoration\.samples must be at least 1, got 0"):
        Mean(0)
