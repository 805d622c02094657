"""Block means coarse to fine: the order, the predictions, what they save, and the weights that ``pscx fit`` learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pscx import load_codec, read_image
from pscx.codecs import PSC
from pscx.codecs.pixels import signal_of
from pscx.codecs.psc.loop import Seal
from pscx.coders import Adaptive, Coder, Posterior, Raw
from pscx.data.folder import BUNDLED
from pscx.errors import StreamError
from pscx.priors import Gaussian
from pscx.quantizers import RDO, Deadzone, Float8, Quantizer, Trellis, Uniform
from pscx.restorations import Mean
from pscx.rows import DCT, Learned
from pscx.rows.pyramid import PHOTOGRAPHS, Neighbours, Pyramid
from pscx.rows.regression import Means, fit_means, observe_means
from pscx.samplers import DDRM
from pscx.signal.measurements import Coordinates

SIGNAL = Gaussian(correlation=0.95, deviation=0.5).draw(20, 28, torch.Generator().manual_seed(3))[0]
GRIDS = [(1, 1), (1, 5), (7, 1), (2, 2), (5, 8), (16, 9)]


def pyramid(grid: tuple[int, int], axes: int = 3, resolution: float = 0.1) -> Pyramid:
    return Pyramid(
        grid,
        torch.zeros(axes, dtype=torch.float64),
        torch.full((axes,), 4.0, dtype=torch.float64),
        resolution,
        PHOTOGRAPHS,
    )


def predicted(planes: Tensor, resolution: float = 0.1) -> tuple[Tensor, Tensor]:
    """Means and variances of every block where exact values are sent, ``(axes, down, across)``."""
    one = pyramid((planes.shape[1], planes.shape[2]), len(planes), resolution)
    means, variances = torch.full_like(planes, torch.nan), torch.full_like(planes, torch.nan)
    steps, value = one.predictions(), None
    for y, x, *_ in one.places():
        for axes in one.turns():
            mean, variance = next(steps) if value is None else steps.send(value)
            part = slice(axes.start, axes.stop)
            means[part, y, x], variances[part, y, x] = mean.view(len(axes), -1), variance.view(len(axes), -1)
            value = planes[part, y, x].flatten()
    return means, variances


@pytest.mark.parametrize("grid", GRIDS)
def test_every_block_comes_once_and_after_its_four_nearest(grid: tuple[int, int]) -> None:
    known = torch.zeros(grid, dtype=torch.bool)
    for y, x, spacing, middle in pyramid(grid).places():
        assert not known[y, x].any()
        if spacing:
            near = Neighbours.of(torch.ones(1, *grid), known, y, x, spacing, middle)
            offsets = [(-1, -1), (1, 1), (-1, 1), (1, -1)] if middle else [(0, -1), (0, 1), (-1, 0), (1, 0)]
            for there, (dy, dx) in zip(near.there[:4], offsets, strict=True):
                row, column = y + dy * spacing, x + dx * spacing
                inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
                assert torch.equal(there.bool(), inside)
            assert near.there[:4].any(0).all()
        known[y, x] = True
    assert known.all()


@pytest.mark.parametrize("grid", GRIDS)
def test_a_proposal_names_each_mean_of_each_axis_once(grid: tuple[int, int]) -> None:
    proposal = pyramid(grid).proposal(3 * 64, torch.device("cpu"))
    count = grid[0] * grid[1]
    assert sum(proposal.groups) == len(proposal.block) == 3 * count
    assert set(proposal.rows.tolist()) == {0, 64, 128}
    assert len({*zip(proposal.block.tolist(), proposal.rows.tolist(), strict=True)}) == 3 * count


@pytest.mark.parametrize("grid", GRIDS)
def test_coarse_means_are_those_of_the_first_block_and_of_a_spacing_of_four(grid: tuple[int, int]) -> None:
    one = pyramid(grid)
    for y, x, spacing, _ in one.places():
        assert one.coarse(y * grid[1] + x).tolist() == [spacing == 0 or spacing >= 4] * len(y)


def test_flat_planes_and_slopes_are_predicted_exactly() -> None:
    flat = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)[:, None, None].expand(3, 9, 17).clone()
    means, variances = predicted(flat)
    assert torch.equal(means.flatten(1)[:, 1:], flat.flatten(1)[:, 1:])
    y, x = torch.meshgrid(torch.arange(17.0), torch.arange(17.0), indexing="ij")
    slope = (0.5 * y - 0.25 * x).double()[None].repeat(3, 1, 1)
    means, steep = predicted(slope)
    inner = slice(1, 16)
    inside = (means - slope)[:, inner, inner].abs()
    assert float(inside[:, 1::2, 1::2].max()) < 1e-12  # all but the blocks of the border have two opposite pairs
    assert float(steep[:, 5, 5].min()) > float(variances[:, 5, 5].max())


def test_predictions_follow_an_edge() -> None:
    """Beside a vertical edge, the two neighbours along it are trusted, not the two across it."""
    edge = torch.zeros(1, 17, 17, dtype=torch.float64)
    edge[:, :, 9:] = 10.0
    means, _ = predicted(edge)
    column = (means - edge)[0, 3:14:2, 10]  # odd rows: between known blocks above and below, and on either side
    assert float(column.abs().max()) < 0.1


@pytest.mark.parametrize("where", ["first", "other"])
def test_a_rough_neighbourhood_is_less_certain(where: str) -> None:
    draw = torch.randn(3, 17, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = torch.tensor([0.05, 2.0], dtype=torch.float64).repeat_interleave(torch.tensor([9, 8]))
    _, variances = predicted(draw * size)
    axis = 0 if where == "first" else 1
    assert float(variances[axis, 2:-2, 12:15].mean()) > 100 * float(variances[axis, 2:-2, 2:6].mean())


@pytest.mark.parametrize("step", [0.3, 1.4])
def test_means_cost_less_in_context(step: float) -> None:
    """On photographs a block mean costs less than seven tenths of what a coefficient costs under the prior alone."""
    spent = {}
    for first in ("prior", "pyramid"):
        codec = load_codec("fast", step=step, iterations=1, rows={"first": first, "per_iteration": 2.0}).signal_codec
        bits, rows = 0.0, 0
        for name in ("chelsea.png", "coffee.png"):
            pixels = read_image(BUNDLED / name)[:256, :256]
            _, known = codec.encode(signal_of(codec, pixels))
            bits += known.account.segment_bits[0]
            rows += known.account.segment_symbols[0]
        spent[first] = bits / rows
    assert spent["pyramid"] < 0.7 * spent["prior"]


def psc(quantizer: Quantizer, coder: Coder, least_rows: float = 0.0, iterations: int = 2) -> PSC:
    prior = Gaussian(correlation=0.95, deviation=0.5)
    rows = DCT(block=4, per_iteration=2.0, growth=1.2, floor=0.3, first="pyramid")
    sampler, mean = DDRM(2, spacing="linear"), Mean(2)
    return PSC(prior, sampler, rows, quantizer, coder, mean, samples=2, iterations=iterations, least_rows=least_rows)


@pytest.mark.parametrize("quantizer", [Uniform(0.05), Deadzone(0.05), RDO(0.05), Trellis(0.05), Float8()])
@pytest.mark.parametrize("coder", [Posterior(), Adaptive(), Raw()])
def test_a_decoder_finds_the_same_means(quantizer: Quantizer, coder: Coder) -> None:
    codec = psc(quantizer, coder)
    payload, encoded = codec.encode(SIGNAL)
    decoded = codec.decode(payload, tuple(SIGNAL.shape))
    assert torch.equal(decoded.measurements.values, encoded.measurements.values)
    assert encoded.account.segment_symbols[0] == 3 * 35


@pytest.mark.parametrize("rows", [DCT, Learned])
def test_coarse_means_are_quantized_so_many_times_as_finely(rows: type[DCT] | type[Learned]) -> None:
    """A value is within its cell, which is a fourth as wide in every fourth row and column, and so is its noise."""
    codec = psc(Uniform(0.5), Posterior(), iterations=1)
    codec.rows = rows(block=4, first="pyramid", coarse=4.0)
    payload, known = codec.encode(SIGNAL)
    measured = known.measurements
    assert isinstance(measured, Coordinates)
    wanted = measured.transform.forward(SIGNAL[None].double())[0]
    errors = (measured.values - wanted).abs().view(5, 7, 3, 16)[..., 0]
    far = torch.zeros(5, 7, 3, dtype=torch.bool)
    far[::4, ::4] = True
    assert float(errors[far].max()) <= 0.5 / 4 < float(errors[~far].max()) <= 0.5
    noise = measured.variances.view(5, 7, 3, 16)[..., 0]
    assert float(noise[far].max()) < float(noise[~far].min()) / 8
    assert torch.equal(codec.decode(payload, tuple(SIGNAL.shape)).measurements.values, measured.values)


def test_the_loop_ends_where_little_is_left() -> None:
    """Both sides stop after the first segment with no more rows a block than ``least_rows``: no more samples."""
    every, evaluations = [], []
    for least in (0.0, 0.23, 2.0):
        codec = psc(Uniform(0.02), Posterior(), least, iterations=30)
        told: list[tuple[int, int]] = []

        def tell(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        payload, encoded = codec.encode(SIGNAL, tell)
        decoded = codec.decode(payload, tuple(SIGNAL.shape))
        rows = [count / 35 for count in encoded.account.segment_symbols]
        assert torch.equal(decoded.measurements.values, encoded.measurements.values)
        assert decoded.account.evaluations == encoded.account.evaluations == 4 * (len(rows) - 1)
        assert decoded.segments == encoded.segments == len(rows)
        assert least == 0 or rows[-1] < least <= min(rows[:-1])
        assert told[-1] == (30, 30)
        every.append(rows)
        evaluations.append(encoded.account.evaluations)
    assert 4 * 29 == evaluations[0] > evaluations[1] > evaluations[2]
    assert every[0][: len(every[1])] == every[1]


def test_a_stream_that_ends_early_shows_what_is_whole_of_it() -> None:
    codec = psc(Uniform(0.02), Posterior(), 2.0, iterations=30)
    payload, encoded = codec.encode(SIGNAL)
    with pytest.raises(StreamError):
        codec.decode(payload[: len(payload) // 2], tuple(SIGNAL.shape))
    part = codec.decode(payload[: len(payload) // 2], tuple(SIGNAL.shape), partial=True)
    assert part.cut is not None
    assert 0 < part.segments < encoded.segments


@pytest.mark.parametrize("rule", [DCT, Learned])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"first": "pyramid", "coarse": 0.5}, r"rows.coarse must lie in \[1, 16\], got 0.5"),
        ({"first": "pyramid", "coarse": float("nan")}, r"rows.coarse must lie in \[1, 16\], got nan"),
        ({"first": "means"}, "rows.first must be one of prior, pyramid, got 'means'"),
        ({"pyramid": [1.0] * 13}, "rows.pyramid must be 14 numbers, got 13"),
        ({"pyramid": [1.0] * 13 + [2000.0]}, "rows.pyramid must lie within ±1000, got 2000.0"),
    ],
)
def test_rules_refuse(rule: type[DCT] | type[Learned], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rule(**options)


def test_weights_are_found_again() -> None:
    """Residuals drawn with known weights: maximum likelihood finds these."""
    true = [*(0.6, 0.3, 0.1, -1.0, 0.5, 0.2, 0.4), *(0.4, 0.5, 0.3, -0.5, 0.3, 0.1, -1.0)]
    draws = np.random.default_rng(0)
    seen = []
    for first, weights in ((1.0, true[:7]), (0.0, true[7:])):
        features = draws.normal(size=(40_000, 6))
        deviation = np.sqrt(np.exp(features @ weights[:6] + weights[6]) + 0.01)
        residual = deviation * draws.standard_t(4, size=len(features)) / np.sqrt(2)
        seen.append(Means(np.full(len(features), first), features, residual, np.full(len(features), 0.01)))
    assert fit_means(seen) == pytest.approx(true, abs=0.04)


def test_what_is_observed_is_what_the_encoder_predicted() -> None:
    codec = psc(Uniform(0.02), Posterior())
    rule, seals = codec.rows, []
    assert isinstance(rule, DCT)
    codec.encode(SIGNAL, watch=lambda _, segment: seals.append(segment))
    seal = seals[0]
    assert isinstance(seal, Seal)
    known = rule.start(codec.prior, tuple(SIGNAL.shape))
    situation = codec.loop.situation(known, None, 0, codec.prior)
    pyramid, proposal = rule.pyramid_of(situation, known), seal.measured.proposal
    exact = known.along(known.split(SIGNAL[None].double())[0], proposal.block, proposal.rows)
    means = observe_means(pyramid, proposal, seal.measured.value, exact)
    assert len(means.residual) == len(proposal.block) - 3
    assert means.residual == pytest.approx((exact - seal.measured.mean)[3:].numpy())
    constant = np.where(means.first > 0, PHOTOGRAPHS[6], PHOTOGRAPHS[13])
    weights = np.where(means.first[:, None] > 0, PHOTOGRAPHS[:6], PHOTOGRAPHS[7:13])
    variance = np.exp((means.features * weights).sum(1) + constant) + means.rounding
    assert np.sqrt(variance) == pytest.approx(seal.measured.scale[3:].numpy(), rel=1e-3)
