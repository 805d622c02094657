"""Pairs of opposite noise: their mean has none of it where a sampler is linear, and their spread is still right."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

from pscx import StreamError
from pscx.codecs import PSC
from pscx.codecs.psc.loop import SEGMENT_BITS, checksum_bits
from pscx.codecs.specs import codec_spec, wanted_of_spec
from pscx.coders import Posterior, Raw
from pscx.coders.base import Coder
from pscx.priors import Gaussian
from pscx.quantizers import Uniform
from pscx.restorations import Mean
from pscx.rows import DCT, Situation
from pscx.samplers import DDRM, Problem
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

PRIOR = Gaussian()
SHAPE = (3, 16, 16)


def problem(antithetic: bool = True, seed: int = 1) -> Problem:
    known = DenseRows(Partition(*SHAPE, block=None))
    rows = torch.linalg.qr(torch.randn(768, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].T
    known.append(
        torch.zeros(5, dtype=torch.int64), rows.contiguous(), torch.ones(5).double(), torch.full((5,), 0.01).double()
    )
    return Problem(PRIOR, known, Noise(seed), 3, SHAPE, antithetic=antithetic)


def codec(iterations: int = 4, antithetic: bool = True, coder: Coder | None = None, samples: int = 2) -> PSC:
    rows = DCT(block=8, per_iteration=4.0, growth=1.0)
    parts = (PRIOR, DDRM(3), rows, Uniform(0.1), coder or Posterior(), Mean(2))
    return PSC(*parts, samples=samples, iterations=iterations, antithetic=antithetic)


def image() -> Tensor:
    return PRIOR.draw(16, 16, torch.Generator().manual_seed(4))[0]


def test_noise_comes_in_pairs() -> None:
    one, other = problem(), problem(antithetic=False)
    assert torch.equal(one.draw(range(6), 2)[::2], other.draw(range(6), 2)[::2])
    assert torch.equal(one.draw(range(6), 2)[1::2], -one.draw(range(6), 2)[::2])
    assert torch.equal(one.draw(range(3, 4), 2), -other.draw(range(2, 3), 2))
    assert not torch.equal(other.draw(range(1), 2), -other.draw(range(1, 2), 2))


def test_the_mean_of_a_pair_has_no_noise_where_the_sampler_is_linear() -> None:
    """On a Gaussian prior it does not depend on the seed; that of two independent samples does."""
    pairs, others = (
        [DDRM(6).sample(problem(antithetic, seed), range(2)).mean(0) for seed in (1, 2)] for antithetic in (True, False)
    )
    torch.testing.assert_close(*pairs)
    assert float((others[0] - others[1]).square().mean()) > 0.01


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 7])
def test_variances_are_right_on_average(samples: int) -> None:
    """Sums of squares of linear samples over the divisor, over many seeds."""
    found = []
    for seed in range(40):
        noise = Problem(PRIOR, DenseRows(Partition(*SHAPE, block=None)), Noise(seed), 0, SHAPE, antithetic=True)
        drawn = 3.0 * noise.draw(range(samples), 0)
        here = Situation(PRIOR, noise.measurements, drawn, 1, 4, 0.1, PRIOR, antithetic=True)
        found.append(float((drawn - drawn.mean(0)).square().sum(0).mean() / here.divisor))
    assert sum(found) / len(found) == pytest.approx(9.0 if samples > 1 else 0.0, rel=0.03)


def test_independent_samples_lose_one_degree_of_freedom() -> None:
    measurements = DenseRows(Partition(*SHAPE, block=None))
    for samples in (None, *(torch.zeros(count, *SHAPE) for count in (1, 2, 5))):
        situation = Situation(PRIOR, measurements, samples, 0, 4, 0.1, PRIOR)
        assert situation.divisor == (1 if samples is None else max(len(samples) - 1, 1))


def test_a_codec_with_pairs_decodes_to_what_it_measured() -> None:
    psc = codec()
    payload, encoded = psc.encode(image())
    wanted = wanted_of_spec(codec_spec(psc), psc.quantizer.parameter, psc.seed)
    again = wanted.codec(wanted.load())
    assert isinstance(again, PSC)
    assert again.antithetic
    decoded = again.decode(payload, SHAPE)
    assert torch.equal(decoded.measurements.values, encoded.measurements.values)
    assert torch.equal(again.restore(decoded, SHAPE), psc.restore(encoded, SHAPE))
    with pytest.raises(StreamError):
        codec(antithetic=False).decode(payload, SHAPE)


def test_many_segments_have_short_seals() -> None:
    assert [checksum_bits(count) for count in (1, 12, 13, 18, 19, 36, 400)] == [3, 3, 2, 2, 1, 1, 1]
    assert all(one >= other for one, other in pairwise(checksum_bits(count) for count in range(1, 60)))


@pytest.mark.parametrize("coder", [Posterior(), Raw()], ids=["posterior", "raw"])
@pytest.mark.parametrize(("iterations", "doubtful"), [(12, 0), (16, 1), (24, 2)])
def test_segments_that_short_seals_may_have_missed_do_not_count(coder: Coder, iterations: int, doubtful: int) -> None:
    """A byte changed: what is shown are segments of the whole stream, and a seal was wrong so many segments later."""
    psc = codec(iterations, coder=coder)
    payload, whole = psc.encode(image())
    right = 0
    places = range(len(payload) // 3, len(payload), max(len(payload) // 40, 1))
    for place in places:
        damaged = payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :]
        try:
            outcome = psc.decode(damaged, SHAPE, partial=True)
        except StreamError:  # there is nothing to show
            right += 1
            continue
        if outcome.cut is not None and "does not decode" in str(outcome.cut):
            failed = int(str(outcome.cut).split("segment ")[1].split()[0]) - 1
            assert outcome.segments == failed - doubtful
        _, short = codec(outcome.segments, coder=coder).encode(image())
        known = (outcome.measurements.values, short.measurements.values)
        right += int(torch.equal(*known) and outcome.segments < iterations)
    assert len(whole.account.segment_symbols) == iterations
    assert right > len(places) * (1 - 2.0**-SEGMENT_BITS) - 4
