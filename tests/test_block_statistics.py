"""Learnt statistics of a signal's blocks: against a Gaussian's own, and in a codec."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

from pscx.codecs import PSC
from pscx.codecs.specs import codec_spec
from pscx.coders import Posterior
from pscx.errors import PscxError
from pscx.priors import Gaussian
from pscx.quantizers import Trellis, Uniform
from pscx.restorations import Mean
from pscx.rows import DCT, Learned, RowRule
from pscx.rows.statistics import BlockStatistics, Moments, learn, moments, radii_of, radius
from pscx.samplers import DDRM
from pscx.signal.transforms import dct_matrix

BLOCK, CHANNELS = 4, 3
MEAN = torch.tensor([3.0, -1.0, 0.25], dtype=torch.float64)


class Shifted(Gaussian):
    """Images of three channels whose means are :data:`MEAN`, in a space that nothing is known of."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        shift = MEAN[:, None, None]
        return super().denoise(x - shift, sigma) + shift

    def block_covariance(self, block: int) -> Tensor:
        return torch.eye(CHANNELS * block * block, dtype=torch.float64)


PRIOR = Shifted(correlation=0.8, color=0.5, deviation=0.7)


def drawn(seed: int, side: int = 32) -> Tensor:
    return Gaussian.draw(PRIOR, side, side, torch.Generator().manual_seed(seed))[0] + MEAN[:, None, None]


@pytest.fixture(scope="module")
def found() -> BlockStatistics:
    return learn([moments(drawn(seed, 64), BLOCK) for seed in range(24)], BLOCK)


def test_radii_are_distances() -> None:
    assert radius(3).tolist() == [[0, 1, 2], [1, 1, 2], [2, 2, 3]]
    for block in (2, 8, 16, 32):
        expected = [[round(sqrt(y * y + x * x)) for x in range(block)] for y in range(block)]
        assert radius(block).tolist() == expected
        assert radii_of(block) == 1 + expected[-1][-1]


def test_learnt_statistics_are_those_of_the_model(found: BlockStatistics) -> None:
    """Means, principal axes and the variances of the axes' coefficients, averaged over a radius."""
    assert found.means.tolist() == pytest.approx(MEAN.tolist(), abs=0.06)
    assert found.axes[0].abs().tolist() == pytest.approx([sqrt(1 / 3)] * 3, abs=0.02)
    torch.testing.assert_close(found.axes @ found.axes.mT, torch.eye(3, dtype=torch.float64))
    line = 0.8 ** (torch.arange(BLOCK)[:, None] - torch.arange(BLOCK)).abs().double()
    basis = dct_matrix(BLOCK)
    of_line = (basis @ line @ basis.mT).diagonal()
    plane = of_line[:, None] * of_line
    for axis, factor in enumerate((1 + 2 * 0.5, 1 - 0.5, 1 - 0.5)):
        means = [0.49 * factor * float(plane[radius(BLOCK) == one].mean()) for one in range(radii_of(BLOCK))]
        assert found.variances[axis].tolist() == pytest.approx(means, rel=0.12)


def test_few_blocks_count_less() -> None:
    one = Moments(1, torch.zeros(1), torch.ones(radii_of(2), 1, 1))
    other = Moments(3, torch.full((1,), 4.0), torch.full((radii_of(2), 1, 1), 5.0))
    both = learn([Moments(m.blocks, m.mean.double(), m.products.double()) for m in (one, other)], 2)
    assert both.means.tolist() == [3.0]
    assert both.variances.tolist() == [[1e-6, 4.0]]  # a mean of 3 in a block of 2 x 2 has a square of 36


def test_numbers_come_back(found: BlockStatistics) -> None:
    numbers = found.numbers()
    again = BlockStatistics.of(numbers, BLOCK)
    assert again.numbers() == numbers
    assert len(numbers) == CHANNELS + CHANNELS**2 + CHANNELS * radii_of(BLOCK)
    spectrum = again.spectrum(BLOCK).view(CHANNELS, BLOCK, BLOCK)
    assert float(spectrum[1, 2, 3]) == pytest.approx(float(again.variances[1, 4]), abs=1e-9)
    torch.testing.assert_close(again.block_means(BLOCK), BLOCK * (again.axes @ again.means), atol=1e-8, rtol=0)


def psc(rows: RowRule, prior: Gaussian = PRIOR, **options: Any) -> PSC:
    parts = {"sampler": DDRM(2, start=5.0, warm_start=1.0, spacing="log"), "quantizer": Uniform(0.3), **options}
    return PSC(prior, rows=rows, coder=Posterior(), restoration=Mean(2), samples=2, iterations=4, **parts)


@pytest.mark.parametrize("first", ["prior", "pyramid"])
@pytest.mark.parametrize("quantizer", [Uniform(0.3), Trellis(0.3)])
def test_a_codec_with_statistics_decodes_and_needs_fewer_bits(
    first: str, quantizer: Uniform, found: BlockStatistics
) -> None:
    signal, bits = drawn(100), []
    for statistics in (None, found.numbers()):
        rows = DCT(block=BLOCK, per_iteration=6.0, first=first, statistics=statistics)
        codec = psc(rows, quantizer=quantizer)
        payload, outcome = codec.encode(signal)
        decoded = codec.decode(payload, tuple(signal.shape))
        assert torch.equal(decoded.measurements.values, outcome.measurements.values)
        bits.append(8 * len(payload))
    assert bits[1] < 0.97 * bits[0]


@pytest.mark.parametrize("rule", [DCT, Learned])
def test_the_first_iteration_predicts_what_was_learnt(rule: type[DCT | Learned], found: BlockStatistics) -> None:
    """Means of the coefficients of frequency 0, and variances by axis and radius."""
    rows = rule(block=BLOCK, per_iteration=48.0, depth=48, floor=0.0, complete=0.0, statistics=found.numbers())
    seen: list[Any] = []
    psc(rows).encode(drawn(101), watch=lambda codec, seal: seen.append(seal))
    measured = seen[0].measured
    place = measured.proposal.rows.cpu()
    spectrum = BlockStatistics.of(found.numbers(), BLOCK)
    assert torch.equal(measured.scale**2, (spectrum.spectrum(BLOCK)[place].sqrt()) ** 2)
    at_zero = place % BLOCK**2 == 0
    assert torch.equal(measured.mean[at_zero], spectrum.block_means(BLOCK)[place[at_zero] // BLOCK**2])
    assert at_zero.sum() == CHANNELS * 64
    assert not measured.mean[~at_zero].any()


def test_streams_name_them_where_there_are_some(found: BlockStatistics) -> None:
    assert "statistics" not in codec_spec(psc(DCT(block=BLOCK), Gaussian()))["rows"]
    numbers = found.numbers()
    assert codec_spec(psc(DCT(block=BLOCK, statistics=numbers), Gaussian()))["rows"]["statistics"] == numbers


def good() -> list[float]:
    return [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, *([0.5] * 2 * radii_of(BLOCK))]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda n: n[:-1], r"rows.statistics must be c \(1 \+ c \+ 5\) numbers for c channels .* as 40 for 4 channels"),
        (lambda n: [2000.0, *n[1:]], "means in rows.statistics must lie within ±1000"),
        (lambda n: [float("nan"), *n[1:]], "means in rows.statistics must lie within ±1000"),
        (lambda n: [*n[:2], 0.9, *n[3:]], "axes in rows.statistics must be orthonormal to 1e-05, and are off by 0.19"),
        (lambda n: [*n[:-1], 0.0], "variances in rows.statistics must lie in 1e-06..1000, got 0 to 0.5"),
        (lambda n: [*n[:-1], float("nan")], "variances in rows.statistics must lie in 1e-06..1000, got nan"),
    ],
)
@pytest.mark.parametrize("rule", [DCT, Learned])
def test_statistics_are_checked(rule: Any, change: Any, sentence: str) -> None:
    rule(block=BLOCK, statistics=good())
    with pytest.raises(ValueError, match=sentence):
        rule(block=BLOCK, statistics=change(good()))


def test_statistics_of_another_prior_are_told_of() -> None:
    with pytest.raises(PscxError, match="are those of 2 channels, and signals of this prior have 3"):
        psc(DCT(block=BLOCK, statistics=good())).encode(drawn(0))


def test_blocks_are_those_of_the_signal() -> None:
    """The moments of a signal of two constant blocks, by hand."""
    signal = torch.stack([torch.ones(2, 4), torch.cat([torch.zeros(2, 2), torch.full((2, 2), 2.0)], 1)]).double()
    seen = moments(signal, 2)
    assert seen.blocks == 2
    assert seen.mean.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert seen.products[0].numpy() == pytest.approx(np.array([[4.0, 4.0], [4.0, 8.0]]), abs=1e-4)
    assert seen.products[1].abs().max() < 1e-6
