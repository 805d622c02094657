from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pscx.quantizers import QUANTIZERS, RDO, Deadzone, Float8, Quantizer, Trellis, Uniform

ONE = torch.ones(1, dtype=torch.float64)
EVERY = [
    Float8(),
    *(Uniform(), Uniform(0.37, 5), Uniform(2.0**-10, 24)),
    *(Deadzone(), Deadzone(0.37, 0.33, 0.1, 5), Deadzone(0.37, 0.0, 0.0, 5), Deadzone(2.0**-10, 0.45, bits=24)),
    RDO(0.37, 0.0),
]


def name_of(quantizer: Quantizer) -> str:
    return f"{type(quantizer).__name__}-{quantizer.alphabet}"


every = pytest.mark.parametrize("quantizer", EVERY, ids=name_of)
every_and_trellis = pytest.mark.parametrize("quantizer", [*EVERY, Trellis(0.37)], ids=name_of)


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
    value = quantizer.dequantize(symbol, mean, ONE)
    assert value.dtype == torch.float64
    assert torch.equal(quantizer.quantize(value, mean, ONE), symbol)


@every
def test_cells_agree_with_their_edges(quantizer: Quantizer) -> None:
    value, mean = values()
    symbol = quantizer.quantize(value, mean, ONE)
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
    assert torch.equal(quantizer.quantize(edge.nextafter(infinity), mean, ONE), symbol)
    assert torch.equal(quantizer.quantize(edge.nextafter(-infinity), mean, ONE), symbol - 1)


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
    symbol = quantizer.quantize(value, torch.ones(4, dtype=torch.float64), ONE)
    assert symbol.tolist() == [0, quantizer.alphabet - 1] * 2


@every
def test_noise_variance_is_the_mean_square_over_the_cell(quantizer: Quantizer) -> None:
    symbol = some_symbols(quantizer).clamp(1, quantizer.alphabet - 2)
    mean = torch.zeros(len(symbol), dtype=torch.float64)
    low, high = quantizer.lower_edge(symbol, mean), quantizer.lower_edge(symbol + 1, mean)
    off = (low + high) / 2 - quantizer.dequantize(symbol, mean, ONE)
    if not isinstance(quantizer, Float8):  # its cells are not even where the exponent changes
        torch.testing.assert_close(quantizer.noise_variance(symbol, mean), (high - low) ** 2 / 12 + off**2)
    else:
        torch.testing.assert_close(quantizer.noise_variance(symbol, mean), (high - low) ** 2 / 12)


@every
def test_variance_of_the_outer_cells_is_that_of_their_neighbours(quantizer: Quantizer) -> None:
    symbol = torch.tensor([0, 1, quantizer.alphabet - 2, quantizer.alphabet - 1])
    low, next_to_low, next_to_high, high = quantizer.noise_variance(symbol, torch.zeros(4, dtype=torch.float64))
    assert low == next_to_low
    assert high == next_to_high


@every_and_trellis
def test_empty_groups(quantizer: Quantizer) -> None:
    nothing = torch.zeros(0, dtype=torch.float64)
    symbol = quantizer.quantize(nothing, nothing, nothing)
    assert symbol.shape == (0,)
    assert symbol.dtype == torch.int64
    assert quantizer.dequantize(symbol, nothing, ONE).shape == (0,)


@every_and_trellis
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
    rounded = quantizer.dequantize(quantizer.quantize(value.double(), zero, ONE), zero, ONE)
    assert torch.equal(rounded, value.to(torch.float8_e4m3fn).double())


def test_float8_symbols_are_all_finite_numbers_in_rising_order() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    distinct = every[every.isfinite()].unique()
    quantizer = Float8()
    symbol = torch.arange(253)
    assert quantizer.alphabet == 253
    assert torch.equal(quantizer.dequantize(symbol, torch.zeros(253, dtype=torch.float64), ONE), distinct)


def test_float8_ignores_the_mean() -> None:
    value, mean = values(100)
    quantizer = Float8()
    symbol = quantizer.quantize(value, mean, ONE)
    assert torch.equal(symbol, quantizer.quantize(value, -mean, ONE))
    assert torch.equal(quantizer.dequantize(symbol, mean, ONE), quantizer.dequantize(symbol, -mean, ONE))
    assert torch.equal(quantizer.lower_edge(symbol, mean), quantizer.lower_edge(symbol, -mean))


def test_float8_takes_no_parameter() -> None:
    assert Float8().parameter is None
    with pytest.raises(ValueError, match=r"takes no parameter, got 0\.5"):
        Float8().with_parameter(0.5)


def test_uniform_measures_from_the_mean() -> None:
    quantizer = Uniform(0.5, 4)
    value = torch.tensor([10.0, 10.24, 10.26, 8.0, 99.0], dtype=torch.float64)
    mean = torch.full((5,), 10.0, dtype=torch.float64)
    symbol = quantizer.quantize(value, mean, ONE)
    assert quantizer.alphabet == 15
    assert symbol.tolist() == [7, 7, 8, 3, 14]
    assert quantizer.dequantize(symbol, mean, ONE).tolist() == [10.0, 10.0, 10.5, 8.0, 13.5]
    assert quantizer.lower_edge(symbol, mean).tolist() == [9.75, 9.75, 10.25, 7.75, 13.25]


def test_uniform_keeps_float64_precision() -> None:
    quantizer = Uniform(0.05, 24)
    mean = torch.tensor([1 / 3], dtype=torch.float64)
    symbol = torch.tensor([12345678])
    exact = 1 / 3 + (12345678 - (2**23 - 1)) * quantizer.step
    assert quantizer.dequantize(symbol, mean, ONE).item() == exact


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
    assert QUANTIZERS.get("deadzone") is Deadzone
    assert QUANTIZERS.get("rdo") is RDO
    assert QUANTIZERS.spec(RDO(0.1)) == {"name": "rdo", "step": 0.1, "weight": 0.05, "degrees": 4, "bits": 14}


def test_deadzone_by_hand() -> None:
    """Offset 0.375: the middle cell reaches 0.625 steps, the first level covers 0.625 to 1.625."""
    quantizer = Deadzone(0.5, 0.375, 0.0625, 4)
    value = 10 + 0.5 * torch.tensor([0.0, 0.624, 0.626, 1.624, 1.626, -0.624, -0.626, -1.626, 99], dtype=torch.float64)
    mean = torch.full((9,), 10.0, dtype=torch.float64)
    symbol = quantizer.quantize(value, mean, ONE)
    assert symbol.tolist() == [7, 7, 8, 8, 9, 7, 6, 5, 14]
    levels = ((quantizer.dequantize(symbol, mean, ONE) - 10) / 0.5).tolist()
    assert levels == [0, 0, 1.0625, 1.0625, 2.0625, 0, -1.0625, -2.0625, 7.0625]
    assert ((quantizer.lower_edge(symbol, mean) - 10) / 0.5).tolist()[:3] == [-0.625, -0.625, 0.625]
    assert quantizer.noise_variance(symbol, mean)[0] == 0.25 * (2 * 0.625) ** 2 / 12


def test_deadzone_at_one_half_is_uniform() -> None:
    value, mean = values()
    one, other = Deadzone(0.3, 0.5, 0.0), Uniform(0.3)
    symbol = one.quantize(value, mean, ONE)
    assert torch.equal(symbol, other.quantize(value, mean, ONE))
    torch.testing.assert_close(one.dequantize(symbol, mean, ONE), other.dequantize(symbol, mean, ONE))
    torch.testing.assert_close(one.noise_variance(symbol, mean), other.noise_variance(symbol, mean))
    assert torch.equal(one.lower_edge(symbol, mean), other.lower_edge(symbol, mean))


def test_deadzone_delta_lowers_the_error_on_laplacian_values() -> None:
    value = laplacian(20_000)
    zero = torch.zeros_like(value)
    errors = []
    for delta in (0.0, 0.05, 0.1, 0.4):
        quantizer = Deadzone(1.0, 0.4, delta)
        symbol = quantizer.quantize(value, zero, ONE)
        errors.append(float((value - quantizer.dequantize(symbol, zero, ONE)).square().mean()))
    assert errors[1] < errors[0] < errors[3]
    assert errors[2] < errors[0]


def laplacian(count: int, seed: int = 0) -> Tensor:
    """Laplacian values of unit variance."""
    u = torch.rand(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log()
    return (u[0] - u[1]) / 2**0.5


@pytest.mark.parametrize("weight", [0.05, 0.1, 0.3])
def test_rdo_is_the_best_of_all_symbols(weight: float) -> None:
    """Against a search of the whole alphabet, on values and scales of all sizes."""
    quantizer = RDO(0.25, weight, bits=6)
    value, mean = values(1000, 0.25)
    scale = torch.logspace(-3, 1, 1000, dtype=torch.float64)
    chosen = quantizer.quantize(value, mean, scale)
    every = torch.stack([quantizer.cost(torch.full_like(chosen, k), value, mean, scale) for k in range(63)])
    torch.testing.assert_close(quantizer.cost(chosen, value, mean, scale), every.min(0).values)


@pytest.mark.parametrize("degrees", [0, 4, 8])
def test_rdo_is_never_worse_than_rounding(degrees: int) -> None:
    quantizer = RDO(0.25, 0.1, degrees, 6)
    value, mean = values(1000, 0.25)
    scale = torch.logspace(-3, 1, 1000, dtype=torch.float64)
    chosen = quantizer.quantize(value, mean, scale)
    plain = Uniform(0.25, 6).quantize(value, mean, scale)
    assert (quantizer.cost(chosen, value, mean, scale) <= quantizer.cost(plain, value, mean, scale)).all()
    assert (chosen != plain).any()


def student_bits(symbol: Tensor, scale: float, step: float) -> Tensor:
    """Bits of cells under Student's t with 4 degrees of freedom by its closed form, not by the package's tail."""

    def below(z: Tensor) -> Tensor:
        t = z * 2**0.5 / scale
        s = t / (4 + t * t).sqrt()
        return 0.5 + 0.75 * (s - s**3 / 3)

    level = symbol.double() - 8191
    return -(below((level + 0.5) * step) - below((level - 0.5) * step)).log2()


def test_rdo_rate_is_that_of_student_s_t() -> None:
    symbol = torch.arange(8185, 8198)
    mean = torch.full((13,), 0.7, dtype=torch.float64)
    rate = RDO(0.5).rate(symbol, mean, torch.full_like(mean, 0.8))
    torch.testing.assert_close(rate, student_bits(symbol, 0.8, 0.5), rtol=0, atol=2e-3)


def entropy(symbol: Tensor) -> float:
    share = symbol.unique(return_counts=True)[1].double() / len(symbol)
    return float(-(share * share.log2()).sum())


@pytest.mark.parametrize("step", [1.0, 2.0])
def test_rdo_saves_bits_on_laplacian_values_at_equal_error(step: float) -> None:
    """The uniform quantizer with the error of ``rdo`` has a coarser step; its symbols still have more entropy."""
    value = laplacian(40_000)
    zero, one = torch.zeros_like(value), torch.ones_like(value)
    chosen = RDO(step, 0.1)
    symbol = chosen.quantize(value, zero, one)
    error = (value - chosen.dequantize(symbol, zero, ONE)).square().mean()
    coarser = [Uniform(step * k / 64) for k in range(64, 96)]
    found = [q.quantize(value, zero, one) for q in coarser]
    errors = [(value - q.dequantize(s, zero, ONE)).square().mean() for q, s in zip(coarser, found, strict=True)]
    equal = next(s for s, e in zip(found, errors, strict=True) if e >= error)
    assert entropy(symbol) < 0.99 * entropy(equal)


def test_rdo_decodes_as_uniform() -> None:
    symbol = some_symbols(Uniform(0.3))
    mean = torch.full((len(symbol),), 0.7, dtype=torch.float64)
    rdo, uniform = RDO(0.3), Uniform(0.3)
    assert torch.equal(rdo.dequantize(symbol, mean, ONE), uniform.dequantize(symbol, mean, ONE))
    for name in ("lower_edge", "noise_variance"):
        assert torch.equal(getattr(rdo, name)(symbol, mean), getattr(uniform, name)(symbol, mean))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"offset": 0.6}, r"quantizer\.offset must lie in \[0, 0\.5\], got 0\.6"),
        ({"delta": -0.1}, r"quantizer\.delta must lie in \[0, 0\.5\), got -0\.1"),
        ({"step": 0.0}, r"quantizer\.step must lie in"),
        ({"bits": 1}, r"quantizer\.bits must lie in"),
    ],
)
def test_deadzone_options_out_of_range(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Deadzone(**options)
    with pytest.raises(ValueError, match="needs a parameter"):
        Deadzone().with_parameter(None)


def test_rdo_options_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"quantizer\.weight must lie in \[0, 1\], got 2"):
        RDO(weight=2)
    with pytest.raises(ValueError, match=r"quantizer\.degrees must be 0 or even and in 4\.\.64, got 5"):
        RDO(degrees=5)
    with pytest.raises(ValueError, match="needs a parameter"):
        RDO().with_parameter(None)


def test_options_survive_another_step() -> None:
    for quantizer in (Deadzone(0.1, 0.3, 0.02, 9), RDO(0.1, 0.2, 8, 9)):
        spec = QUANTIZERS.spec(quantizer.with_parameter(0.5))
        assert spec == {**QUANTIZERS.spec(quantizer), "step": 0.5}
