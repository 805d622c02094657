"""Roundings of the default recipe that a mathematical library takes part in, and how far they are from ties.

A cosine, a logarithm or a long sum may differ in its last digits from one machine to the next. Each test shows that
what is rounded afterwards lies further from a tie than that, and that pscx computes the numbers it speaks of.
"""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi, sqrt

import pytest
import torch
from einops import rearrange
from tiny import psc_of
from torch import Tensor

import pscx
from pscx.priors import DDPM
from pscx.priors.denoiser import PixelDenoiser
from pscx.priors.schedules import HIGHEST_LEVEL, log_levels, noise_levels
from pscx.rows.block_transform import SIGNIFICANT_BITS, prior_variances
from pscx.samplers import DDRM
from pscx.samplers.steps import evenly, schedule
from pscx.signal.partition import Partition
from pscx.signal.transforms import GRID, BlockDCT, dct_matrix

ULP = 2.0**-52  # of 1


@pytest.fixture(scope="module")
def prior() -> DDPM:
    return DDPM(exact=True)


def off_tie(values: Tensor) -> Tensor:
    """Distance of float64 ``values`` from the nearest half integer."""
    return (values - values.floor() - 0.5).abs()


def test_betas_of_the_schedule(prior: DDPM) -> None:
    """Nichol and Dhariwal 2021, Eq. 17. Squares of cosines, their ratio and 1 less it: 8 ulp of 1 at most."""
    shares = [cos((t / 1000 + 0.008) / 1.008 * pi / 2) ** 2 for t in range(1001)]
    pairs = pairwise(shares)
    betas = torch.tensor([min(1 - after / before, 0.999) for before, after in pairs], dtype=torch.float64)
    mantissa, exponent = torch.frexp(betas)
    assert float(torch.ldexp(off_tie(mantissa * 2**24), exponent - 24).min()) > 4 * 8 * ULP
    share, expected = 1.0, []
    for beta in betas.float():
        share *= float(1 - beta)  # in one order, each product rounded to double precision
        expected.append(share)
    assert isinstance(prior.denoiser, PixelDenoiser)
    assert torch.equal(prior.denoiser.alphas_cumprod, torch.tensor(expected).double())


def test_noise_levels_that_the_network_is_told(prior: DDPM) -> None:
    assert isinstance(prior.denoiser, PixelDenoiser)
    scaled = noise_levels(prior.denoiser.alphas_cumprod).clamp_max(HIGHEST_LEVEL).log() * 4096
    assert float(off_tie(scaled).min()) > 1e6 * ULP * float(scaled.abs().max())
    assert torch.equal(log_levels(prior.denoiser.alphas_cumprod).double() * 4096, scaled.round())


def test_steps_of_the_samplers(prior: DDPM) -> None:
    """The nearest level is nearer than the next by far more than an exponential's error."""
    psc = psc_of(pscx.load_codec())
    levels = prior.levels
    for sampler in (psc.sampler, psc.final_sampler):
        assert isinstance(sampler, DDRM)
        course = sampler.course
        for start in (course.start, course.warm_start):
            assert start is not None
            nearest = (levels - start).abs().sort().values
            assert float(nearest[1] - nearest[0]) > 1e6 * ULP * start
            first, last = (levels[(levels - level).abs().argmin()].log() for level in (start, course.stop))
            wanted = torch.tensor(evenly(float(first), float(last), course.steps), dtype=torch.float64).exp()
            distance, chosen = (levels - wanted[:, None]).abs().sort(dim=1)
            assert bool((distance[:, 1] - distance[:, 0] > 1e6 * ULP * wanted).all())
            assert schedule(prior, start, course.stop, course.steps, "log") == levels[chosen[:, 0]].tolist()


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16, 32])
def test_entries_of_the_cosine_transform(size: int) -> None:
    rows = [[cos(pi * (n + 0.5) * k / size) * sqrt(2 / size) for n in range(size)] for k in range(size)]
    scaled = torch.tensor([[sqrt(1 / size)] * size, *rows[1:]], dtype=torch.float64) * GRID
    assert float(off_tie(scaled).min()) > 1e6 * ULP * GRID
    assert torch.equal(dct_matrix(size) * GRID, scaled.round())


@pytest.mark.parametrize("block", [8, 16])
def test_variances_of_the_prior(block: int, prior: DDPM) -> None:
    """Sums of up to 768^2 products of either sign: the margin is a thousand times what rounding all of them gives."""
    transform = BlockDCT(Partition(3, block, block, block), dct_matrix(3))
    size = 3 * block**2
    eye = rearrange(torch.eye(size, dtype=torch.float64), "n (c p q) -> n 1 (c p q)", p=block, q=block)
    rows = transform.inverse(eye).flatten(1)
    covariance = prior.block_covariance(block)
    variance = ((rows @ covariance) * rows).sum(1)
    size_of_terms = ((rows.abs() @ covariance.abs()) * rows.abs()).sum(1)
    mantissa, exponent = torch.frexp(variance)
    margin = torch.ldexp(off_tie(mantissa * 2**SIGNIFICANT_BITS), exponent - SIGNIFICANT_BITS)
    assert float((margin / (ULP * size_of_terms)).min()) > 1000
    rounded = torch.ldexp((mantissa * 2**SIGNIFICANT_BITS).round(), exponent - SIGNIFICANT_BITS)
    torch.testing.assert_close(prior_variances(prior, block), rounded, rtol=0, atol=2.0**-31)
