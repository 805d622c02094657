from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pscx.quantizers import QUANTIZERS, Float8, Quantizer, Uniform

EVERY = [Float8(), Uniform(), Uniform(0.37, 5), Uniform(2.0**-10, 24)]
every = pytest.mark.parametrize("quantizer", EVERY, ids=lambda q: f"{type(q).__name__}-{q.alphabet}")


def values(count: int = 4000, spread: float = 100.0) -> tuple[Tensor, Tensor]:
    """Values over many orders of magnitude, and means that are not far from them."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(count, generator=generator, dtype=torch.float64) * 12 - 10
    value = torch.randn(count, generator=generator, dtype=torch.float64) * size.exp2() * spread
    return value, value + torch.randn(count, generator=generator, dtype=torch.float64)


def some_symbols(quantizer: Quantizer) -> Tensor:
    count = min(quantizer.alphabet, 20_001)
    middle = quantizer.alphabet // 2
    near = torch.arange(max(0, middle - count // 4), min(quantizer.alphabet, middle + count // 4))
    return torch.cat([torch.arange(50).clamp_max(middle), near, quantizer.alphabet - 1 - torch.arange(50)])[
        : quantizer.alphabet * 2
    ].clamp(0, quantizer.alphabet - 1)


@every
def test_symbol_survives_its_own_value(quantizer: Quantizer) -> None:
    symbol = some_symbols(quantizer)
    mean = torch.full_like(symbol, 3, dtype=torch.float64) / 7
    value = quantizer.dequantize(symbol, mean)
    assert value.dtype == torch.float64
    assert torch.equal(quantizer.quantize(value, mean), symbol)


@every
def test_cells_agree_with_their_edges(quantizer: Quantizer) -> None:
    value, mean = values()
    symbol = quantizer.quantize(value, mean)
    assert symbol.dtype == torch.int64
    assert (symbol >= 0).all()
    assert (symbol < quantizer.alphabet).all()
    slack = 1e-12 * (1 + value.abs())
    assert (quantizer.lower_edge(symbol, mean) <= value + slack).all()
    assert (quantizer.lower_edge(symbol + 1, mean) >= value - slack).all()


@every
def test_values_beside_an_edge_fall_on_their_side(quantizer: Quantizer) -> None:
    symbol = some_symbols(quantizer).clamp_min(1)
    mean = torch.zeros(len(symbol), dtype=torch.float64)
    edge = quantizer.lower_edge(symbol, mean)
    infinity = torch.tensor(torch.inf, dtype=torch.float64)
    assert torch.equal(quantizer.quantize(edge.nextafter(infinity), mean), symbol)
    assert torch.equal(quantizer.quantize(edge.nextafter(-infinity), mean), symbol - 1)


@every
def test_edges_rise_from_one_infinity_to_the_other(quantizer: Quantizer) -> None:
    symbol = torch.tensor([0, 1, quantizer.alphabet - 1, quantizer.alphabet])
    edge = quantizer.lower_edge(symbol, torch.zeros(4, dtype=torch.float64))
    assert edge[0] == -torch.inf
    assert edge[3] == torch.inf
    assert edge[1:3].isfinite().all()
    if quantizer.alphabet < 1 << 16:
        symbol = torch.arange(quantizer.alphabet + 1)
        assert (quantizer.lower_edge(symbol, torch.zeros(len(symbol), dtype=torch.float64)).diff() > 0).all()


@every
def test_values_outside_the_range_saturate(quantizer: Quantizer) -> None:
    value = torch.tensor([-1e30, 1e30, -torch.inf, torch.inf], dtype=torch.float64)
    symbol = quantizer.quantize(value, torch.ones(4, dtype=torch.float64))
    assert symbol.tolist() == [0, quantizer.alphabet - 1] * 2


@every
def test_noise_variance_is_that_of_a_uniform_value_in_the_cell(quantizer: Quantizer) -> None:
    symbol = some_symbols(quantizer).clamp(1, quantizer.alphabet - 2)
    mean = torch.zeros(len(symbol), dtype=torch.float64)
    width = quantizer.lower_edge(symbol + 1, mean) - quantizer.lower_edge(symbol, mean)
    torch.testing.assert_close(quantizer.noise_variance(symbol, mean), width**2 / 12)


@every
def test_variance_of_the_outer_cells_is_that_of_their_neighbours(quantizer: Quantizer) -> None:
    symbol = torch.tensor([0, 1, quantizer.alphabet - 2, quantizer.alphabet - 1])
    low, next_to_low, next_to_high, high = quantizer.noise_variance(symbol, torch.zeros(4, dtype=torch.float64))
    assert low == next_to_low
    assert high == next_to_high


@every
def test_empty_groups(quantizer: Quantizer) -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    symbol = quantizer.quantize(nothing, nothing)
    assert symbol.shape == (0,)
    assert symbol.dtype == torch.int64
    assert quantizer.dequantize(symbol, nothing).shape == (0,)


@every
def test_parameter_survives_a_stream(quantizer: Quantizer) -> None:
    again = quantizer.with_parameter(quantizer.parameter)
    assert again.parameter == quantizer.parameter
    assert again.alphabet == quantizer.alphabet
    assert QUANTIZERS.spec(again)["name"] == QUANTIZERS.spec(quantizer)["name"]


def test_float8_is_the_cast_of_torch_inside_its_range() -> None:
    value = values()[0].float()
    bits = torch.arange(-460, 460, dtype=torch.float32)
    value = torch.cat([value, bits, bits / 4, bits / 64, bits / 1024, bits / 2048])
    value = value[value.abs() <= 448]
    zero = torch.zeros(len(value), dtype=torch.float64)
    quantizer = Float8()
    rounded = quantizer.dequantize(quantizer.quantize(value.double(), zero), zero)
    assert torch.equal(rounded, value.to(torch.float8_e4m3fn).double())


def test_float8_symbols_are_all_finite_numbers_in_rising_order() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    distinct = every[every.isfinite()].unique()
    quantizer = Float8()
    symbol = torch.arange(253)
    assert quantizer.alphabet == 253
    assert torch.equal(quantizer.dequantize(symbol, torch.zeros(253, dtype=torch.float64)), distinct)


def test_float8_ignores_the_mean() -> None:
    value, mean = values(100)
    quantizer = Float8()
    symbol = quantizer.quantize(value, mean)
    assert torch.equal(symbol, quantizer.quantize(value, -mean))
    assert torch.equal(quantizer.dequantize(symbol, mean), quantizer.dequantize(symbol, -mean))
    assert torch.equal(quantizer.lower_edge(symbol, mean), quantizer.lower_edge(symbol, -mean))


def test_float8_takes_no_parameter() -> None:
    assert Float8().parameter is None
    with pytest.raises(ValueError, match=r"takes no parameter, got 0\.5"):
        Float8().with_parameter(0.5)


def test_uniform_measures_from_the_mean() -> None:
    quantizer = Uniform(0.5, 4)
    value = torch.tensor([10.0, 10.24, 10.26, 8.0, 99.0], dtype=torch.float64)
    mean = torch.full((5,), 10.0, dtype=torch.float64)
    symbol = quantizer.quantize(value, mean)
    assert quantizer.alphabet == 15
    assert symbol.tolist() == [7, 7, 8, 3, 14]
    assert quantizer.dequantize(symbol, mean).tolist() == [10.0, 10.0, 10.5, 8.0, 13.5]
    assert quantizer.lower_edge(symbol, mean).tolist() == [9.75, 9.75, 10.25, 7.75, 13.25]


def test_uniform_keeps_float64_precision() -> None:
    quantizer = Uniform(0.05, 24)
    mean = torch.tensor([1 / 3], dtype=torch.float64)
    symbol = torch.tensor([12345678])
    exact = 1 / 3 + (12345678 - (2**23 - 1)) * quantizer.step
    assert quantizer.dequantize(symbol, mean).item() == exact


def test_uniform_step_is_rounded_to_bfloat16() -> None:
    quantizer = Uniform(0.05)
    assert quantizer.parameter == quantizer.step == torch.tensor(0.05).bfloat16().item() != 0.05
    again = quantizer.with_parameter(2.0)
    assert (again.step, again.bits) == (2.0, 14)
    assert quantizer.step == Uniform().step


@pytest.mark.parametrize("step", [0.0, -0.1, 1000.0, 999.9, 1e-60, float("nan"), float("inf")])
def test_uniform_step_out_of_range(step: float) -> None:
    with pytest.raises(ValueError, match=r"quantizer\.step must lie in \(0, 1000\)"):
        Uniform(step)


@pytest.mark.parametrize("bits", [1, 25])
def test_uniform_bits_out_of_range(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"quantizer\.bits must lie in 2\.\.24, got {bits}"):
        Uniform(bits=bits)


def test_uniform_needs_its_parameter() -> None:
    with pytest.raises(ValueError, match="needs a parameter"):
        Uniform().with_parameter(None)


def test_names_and_options() -> None:
    assert QUANTIZERS.get("float8") is Float8
    assert QUANTIZERS.get("uniform") is Uniform
    assert QUANTIZERS.spec(Uniform(0.1, 5)) == {"name": "uniform", "step": 0.1, "bits": 5}
