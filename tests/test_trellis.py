"""Dependent quantization: the path is the cheapest there is, and it comes closer to R(D) than any scalar quantizer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pscx.coders import Adaptive, Coder, Posterior, Raw, Static
from pscx.coders.decisions import Chances, Decide, Tree, descend
from pscx.quantizers import CellsAtOnce, CellsInTurn, Quantizer, Trellis, Uniform
from pscx.quantizers import trellis as module
from pscx.quantizers.machine import Machine
from pscx.signal.distributions import Array, Booleans, Integers, both_sides, cell_bits, tail_of
from pscx.training.fitting import Group, fit_posterior

CODERS = [Posterior(), Posterior(0, adapt=False), Posterior(6, gains=[0.5]), Raw(), Adaptive(), Static()]
by_states = pytest.mark.parametrize("states", [4, 8])


def gaussian(rows: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Values, means and scales of rows whose predictions are right, ``(rows,)`` each."""
    generator = torch.Generator().manual_seed(seed)
    mean, error = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    return mean + scale * error, mean, torch.full((rows,), scale, dtype=torch.float64)


def student(rows: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same with errors that follow Student's t with 4 degrees of freedom."""
    error, mean, scales = gaussian(rows, 1.0)
    squares = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).square().sum(1)
    return mean + (error - mean) * scale * (2 / squares).sqrt(), mean, scale * scales


def bits(quantizer: Quantizer, symbols: Tensor, mean: Tensor, scale: Tensor, degrees: int) -> float:
    return float(Posterior(degrees, adapt=False).encoder().put(symbols, quantizer, mean, scale).sum())


@by_states
@pytest.mark.parametrize("weight", [0.0, 0.12, 1.0])
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("surprise", [1.0, 2.5])
def test_no_other_path_is_cheaper(states: int, weight: float, seed: int, surprise: float) -> None:
    """Against all sequences of seven symbols in a row; bits are those of the coder. Errors as predicted, or larger."""
    quantizer = Trellis(0.8, weight, states, bits=3)
    value, mean, scale = gaussian(4, surprise, seed)
    scale /= surprise

    def cost(symbols: Tensor) -> float:
        grids = quantizer.grids(symbols)
        level = symbols.numpy() - 3
        points = 0.625 * 0.8 * (2 * level - grids * np.sign(level))  # the definition
        error = float(((value - mean).numpy() - points) @ ((value - mean).numpy() - points)) / 0.8**2
        return error + weight * bits(quantizer, symbols, mean, scale, 4)

    least = min(cost(torch.tensor(symbols)) for symbols in itertools.product(range(7), repeat=4))
    assert cost(quantizer.quantize(value, mean, scale)) == pytest.approx(least, abs=2e-3)


@by_states
def test_the_machine_is_a_trellis(states: int) -> None:
    """Every state is reached from two others, by different parities or grids, and half of the states have each grid."""
    machine = Machine.of(states)
    assert sorted(machine.following.ravel().tolist()) == sorted([*range(states)] * 2)
    assert machine.grid.sum() == states / 2
    for after in range(states):
        ways = [(int(machine.grid[s]), p) for s in range(states) for p in (0, 1) if machine.following[s, p] == after]
        assert len(set(ways)) == 2


def test_a_path_by_hand() -> None:
    """Levels 1, 1, 2, -1: states 0, 2, 3, 6 of eight, hence grids even, even, odd, even."""
    quantizer = Trellis(1.6015625, bits=3)
    symbols = torch.tensor([1, 1, 2, -1]) + 3
    assert quantizer.grids(symbols).tolist() == [0, 0, 1, 0]
    points = torch.tensor([2.0, 2.0, 3.0, -2.0], dtype=torch.float64)
    mean = torch.full((4,), 5.0, dtype=torch.float64)
    scale = torch.tensor([0.3, 0.9, 3.0, 30.0], dtype=torch.float64)
    p = points * quantizer.spacing
    outward = 0.095 * 1.6015625**2 * 5 * p / (2 * scale**2 + p**2)
    torch.testing.assert_close(quantizer.dequantize(symbols, mean, scale), mean + p + outward)
    low, high = quantizer.cells(symbols, mean)
    torch.testing.assert_close(low, quantizer.spacing * torch.tensor([1.0, 1.0, 2.0, -3.0]).double())
    torch.testing.assert_close(high, quantizer.spacing * torch.tensor([3.0, 3.0, 4.0, -1.0]).double())


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 129, 1000])
@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: type(coder).__name__)
def test_every_coder_brings_the_symbols_back(coder: Coder, rows: int) -> None:
    quantizer = Trellis(0.7)
    value, mean, scale = student(rows, 1.3)
    symbols = quantizer.quantize(value, mean, scale)
    encoder = coder.encoder()
    spent = encoder.put(symbols, quantizer, mean, scale)
    encoder.put_bits(5, 3)
    assert spent.shape == (rows,)
    decoder = coder.decoder(encoder.finish())
    assert torch.equal(decoder.get(quantizer, mean, scale), symbols)
    assert decoder.get_bits(3) == 5
    assert not decoder.exhausted


def test_the_payload_is_as_long_as_the_bits_that_are_told() -> None:
    quantizer = Trellis(0.7)
    value, mean, scale = student(5000, 1.3)
    symbols = quantizer.quantize(value, mean, scale)
    encoder = Posterior().encoder()
    spent = float(encoder.put(symbols, quantizer, mean, scale).sum())
    assert 0 <= 8 * len(encoder.finish()) - spent < 24


class Feedback(Uniform):
    """A quantizer as a plugin may bring it: cells are half a step higher where the symbol before is odd."""

    whole = True

    def cells(self, symbol: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        shifts = torch.cat([torch.zeros(1), 0.25 * (symbol[:-1] % 2)])
        low, high = super().cells(symbol, mean)
        return low + shifts, high + shifts

    def cells_in_turn(self, mean: Tensor, symbols: Tensor | None = None) -> CellsInTurn:
        return Shifted(self, mean)


class Shifted(CellsInTurn):
    def __init__(self, quantizer: Quantizer, mean: Tensor) -> None:
        self.plain, self.shift = CellsAtOnce(quantizer, mean), np.zeros(len(mean))

    def lower(self, rows: Integers, symbols: Integers) -> Array:
        return self.plain.lower(rows, symbols) + self.shift[rows]

    def turns(self) -> Iterator[Integers]:
        for row in range(len(self.shift)):
            yield np.array([row])

    def turn(self, rows: Integers) -> Integers:
        return rows

    def take(self, rows: Integers, symbols: Integers) -> None:
        self.shift[rows[0] + 1 : rows[0] + 2] = 0.25 * float(symbols[0] % 2)


def test_other_quantizers_may_have_cells_that_depend_on_symbols_before() -> None:
    """Decoded, and at the price of the shifted cells, not of those of ``lower_edge``."""
    quantizer, (value, mean, scale) = Feedback(0.5), gaussian(400)
    plain = quantizer.quantize(value, mean, scale)
    symbols, shift = plain.clone(), 0.0
    for row in range(len(value)):
        symbols[row] = quantizer.quantize(value[row : row + 1] - shift, mean[row : row + 1], scale[row : row + 1])[0]
        shift = 0.25 * float(symbols[row] % 2)
    assert not torch.equal(symbols, plain)
    coder = Posterior(adapt=False)
    encoder = coder.encoder()
    told = encoder.put(symbols, quantizer, mean, scale)
    assert torch.equal(coder.decoder(encoder.finish()).get(quantizer, mean, scale), symbols)
    low, high = (edge.numpy() for edge in quantizer.cells(symbols, mean))
    torch.testing.assert_close(told, torch.from_numpy(cell_bits(low, high, 4)), rtol=0, atol=5e-3)


def test_a_coder_that_knows_the_grids_spends_less() -> None:
    """The odd grid's zero is narrow: that is worth over a hundredth of the bits."""
    quantizer = Trellis(1.0)
    value, mean, scale = gaussian(20_000)
    symbols = quantizer.quantize(value, mean, scale)
    known = bits(quantizer, symbols, mean, scale, 0)
    offsets = (symbols - quantizer.alphabet // 2).numpy()
    counts = np.unique(offsets, return_counts=True)[1]
    memoryless = -float((counts * np.log2(counts / counts.sum())).sum())
    assert known < 0.99 * memoryless


def gap(quantizer: Quantizer, scale: float, rows: int = 30_000) -> float:
    """Bits a row over the rate-distortion function of a Gaussian, at the error of the posterior mean."""
    value, mean, scales = gaussian(rows, scale)
    symbols = quantizer.quantize(value, mean, scales)
    trust = scale**2 / (scale**2 + quantizer.noise_variance(symbols, mean))
    error = value - mean - trust * (quantizer.dequantize(symbols, mean, scales) - mean)
    rate = bits(quantizer, symbols, mean, scales, 0) / rows
    return rate - 0.5 * math.log2(scale**2 / float(error.square().mean()))


@pytest.mark.parametrize(("scale", "most"), [(0.7, 0.21), (1.0, 0.18), (2.0, 0.14), (5.0, 0.12)])
def test_the_gap_to_the_rate_distortion_function(scale: float, most: float) -> None:
    """A uniform quantizer's is 0.254 at high rates; that of eight states is smaller than that of four."""
    eight, four, uniform = (gap(q, scale) for q in (Trellis(1.0), Trellis(1.0, states=4), Uniform(1.0)))
    assert 0.24 < uniform < 0.26
    assert 0 < eight < four < uniform - 0.02
    assert eight < most


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.0, 5.0])
def test_points_are_the_means_of_their_cells(scale: float) -> None:
    """To 0.1 steps, where errors are as heavy-tailed as a photograph's; noise variances are right to a quarter."""
    quantizer = Trellis(1.0)
    value, mean, scales = student(60_000, scale)
    symbols = quantizer.quantize(value, mean, scales)
    level = (symbols - quantizer.alphabet // 2).numpy()
    points = torch.from_numpy(0.625 * (2 * level - quantizer.grids(symbols) * np.sign(level)))
    error = (value - mean - points) * torch.where(points < 0, -1, 1)
    told = quantizer.noise_variance(symbols, mean)
    for size in range(5):
        here = points.abs() == 0.625 * size
        assert float(error[here].mean()) == pytest.approx(0, abs=0.1)
        posterior = told[here] * scale**2 / (told[here] + scale**2)
        if size in (0, 2, 4) or scale >= 2:
            assert float(error[here].square().mean()) == pytest.approx(float(posterior.mean()), rel=0.25)


def test_values_where_errors_are_gaussian() -> None:
    """``v p / s^2`` further out, but no more than a spacing; a scale of zero does no harm."""
    quantizer = Trellis(1.0, degrees=0)
    symbols = torch.tensor([1, 0, -1, 4]) + quantizer.alphabet // 2  # points 2, 0, -1 and 7
    scale = torch.tensor([2.0, 0.0, 1e-3, 1.0], dtype=torch.float64)
    assert quantizer.grids(symbols).tolist() == [0, 0, 1, 1]
    value = quantizer.dequantize(symbols, torch.zeros(4, dtype=torch.float64), scale)
    expected = [1.25 + 0.095 * 1.25 / 4, 0.0, -0.625 - 0.625, 4.375 + 0.095 * 4.375]
    assert value.tolist() == pytest.approx(expected)


def test_what_is_no_number_is_refused() -> None:
    value, mean, scale = gaussian(3)
    value[1] = torch.nan
    with pytest.raises(ValueError, match="values to quantize must be numbers, got NaN"):
        Trellis().quantize(value, mean, scale)


def test_a_codec_learns_the_gain_of_its_path() -> None:
    """Symbols of a right prediction have gain 1; the cells of the wrong grid would tell another."""
    quantizer = Trellis(1.0)
    groups = []
    for seed in range(4):
        value, mean, scale = student(3000 + seed, 1.0)
        groups.append(Group(0, quantizer.quantize(value, mean, scale), mean, scale))
    fitted = fit_posterior(quantizer, groups)
    assert fitted.gains is not None
    assert fitted.gains[0] == pytest.approx(1, abs=0.1)
    assert fitted.degrees in (4, 6)


def test_a_prediction_that_is_right_costs_next_to_nothing() -> None:
    quantizer = Trellis(1.0)
    _, mean, scale = gaussian(500)
    symbols = quantizer.quantize(mean, mean, scale)
    assert (symbols == quantizer.alphabet // 2).all()
    assert torch.equal(quantizer.dequantize(symbols, mean, scale), mean)


def test_values_outside_the_range_saturate() -> None:
    quantizer = Trellis(1.0, bits=4)
    value = torch.tensor([-1e30, 1e30, -torch.inf, torch.inf, -1e30, 1e30], dtype=torch.float64)
    symbols = quantizer.quantize(value, torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    assert torch.equal((symbols - 7).sign(), value.sign().long())
    assert ((symbols - 7).abs() >= 6).all()  # the outermost of either parity
    low, high = quantizer.cells(torch.tensor([0, 14]), torch.zeros(2, dtype=torch.float64))
    assert low[0] == -torch.inf
    assert high[1] == torch.inf


def test_many_lanes_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    value, mean, scale = student(1000, 2.0)
    whole = Trellis(1.0).quantize(value, mean, scale)
    monkeypatch.setattr(module, "LANES_AT_ONCE", 3)
    assert torch.equal(Trellis(1.0).quantize(value, mean, scale), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -0.1}, r"quantizer.weight must lie in \[0, 1\], got -0.1"),
        ({"states": 5}, r"quantizer.states must be one of \[4, 8\], got 5"),
        ({"degrees": 3}, "quantizer.degrees must be 0 or even"),
        ({"bits": 25}, r"quantizer.bits must lie in 2..24, got 25"),
        ({"step": 0.0}, "quantizer.step must lie in"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trellis(**options)


def test_chances_made_beforehand_are_those_of_each_decision() -> None:
    """The same rows are asked for the same decisions with the same bits, near the middle and to either end."""
    quantizer, generator = Trellis(0.5, bits=8), np.random.default_rng(0)
    rows, grids = np.arange(400), generator.integers(0, 2, 400)
    spread = 10 ** generator.uniform(-3, 3, 400)
    half = quantizer.alphabet // 2
    wanted = np.clip(half + np.rint(generator.standard_cauchy(400) * 5), 0, quantizer.alphabet - 1).astype(np.int64)
    assert {0, quantizer.alphabet - 1} < set(wanted.tolist())
    path = quantizer.cells_in_turn(torch.zeros(400))
    tail = tail_of(4)

    def cut(rows: Integers, at: Integers) -> Array:
        return both_sides(quantizer.two.offset(at, grids[rows]) / spread[rows], tail)

    asked: list[list[tuple[Any, ...]]] = [[], []]

    def decide(place: int) -> Decide:
        def decided(rows: Integers, middle: Integers, p: Array) -> Booleans:
            asked[place].append((rows, middle, p))
            upper: Booleans = wanted[rows] >= middle
            return upper

        return decided

    table = Chances.of(path, quantizer.alphabet, spread, tail)
    assert table is not None
    for place, found in enumerate(
        (
            descend(cut, quantizer.alphabet, rows, decide(0)),
            table.descend(grids, cut, rows, decide(1)),
        )
    ):
        assert np.array_equal(found, wanted), place
    assert len(asked[0]) == len(asked[1]) > 8
    for one, other in zip(*asked, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_chances_are_not_made_for_few_symbols_or_known_or_many_rows() -> None:
    few, spread = Trellis(0.5, bits=3), np.ones(200)
    assert len(Tree.of(few.alphabet).symbols) == 0
    assert Chances.of(few.cells_in_turn(torch.zeros(200)), few.alphabet, spread, tail_of(4)) is None
    usual, symbols = Trellis(0.5), torch.full((200,), 8191)
    assert Chances.of(usual.cells_in_turn(torch.zeros(200), symbols), usual.alphabet, spread, tail_of(4)) is None
    many = torch.zeros(64 * 512)
    assert Chances.of(usual.cells_in_turn(many), usual.alphabet, many.numpy(), tail_of(4)) is None
