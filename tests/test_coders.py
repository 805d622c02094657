from __future__ import annotations

import json
import math
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from constriction import stream
from torch import Tensor

from pscx.coders import CODERS, Adaptive, Coder, Posterior, Raw, Static
from pscx.coders.adaptive import AdaptiveEncoder, Counts
from pscx.coders.binarization import student_table
from pscx.coders.posterior import GAINS, Gain
from pscx.coders.ranges import interval, shortest
from pscx.coders.static import StaticEncoder
from pscx.coders.table import SHIPPED, Table, student
from pscx.errors import StreamError
from pscx.quantizers import RDO, Deadzone, Float8, Quantizer, Uniform
from pscx.signal.distributions import both_sides, code_lengths, mass, student_tail

Group = tuple[Tensor, Tensor, Tensor]  # symbols, mean, scale

CODERS_TO_TRY = [
    *(Posterior(), Posterior(adapt=False), Posterior(0), Posterior(8), Posterior(64), Posterior(gains=[0.5, 3.0])),
    *(Raw(), Static(), Adaptive(), Adaptive(4, 64, "photographs")),
]
QUANTIZERS_TO_TRY = [Float8(), Uniform(), Uniform(0.01, 5), Uniform(1.0, 2), Uniform(2.0**-10, 24), Deadzone(), RDO()]
coders = pytest.mark.parametrize("coder", CODERS_TO_TRY, ids=lambda c: str(CODERS.spec(c)))
quantizers = pytest.mark.parametrize("quantizer", QUANTIZERS_TO_TRY, ids=lambda q: f"{type(q).__name__}{q.alphabet}")


def student_draws(count: int, degrees: int, generator: torch.Generator) -> Tensor:
    """Draws of unit variance: Student's t, or Gaussian for 0 degrees."""
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    if degrees == 0:
        return normal
    chi = torch.randn(degrees, count, generator=generator, dtype=torch.float64).square().sum(0)
    return normal / (chi / degrees).sqrt() * math.sqrt((degrees - 2) / degrees)


def group(quantizer: Quantizer, count: int, seed: int = 0, degrees: int = 4, off: float = 1.0) -> Group:
    """Symbols of values around known means; the scale that the coder is told is wrong by ``off``."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, generator=generator, dtype=torch.float64)
    scale = (torch.rand(count, generator=generator, dtype=torch.float64) * 4 - 4).exp()
    value = mean + scale * student_draws(count, degrees, generator)
    return quantizer.quantize(value, mean, scale), mean, scale * off


def extremes(quantizer: Quantizer) -> Group:
    """Every combination of hard means, scales and values."""
    means = [0.0, -0.3, 1e-9, 500.0, -1e6, 1e300]
    scales = [0.0, 1e-300, 1e-12, 0.01, 1.0, 1e6, 1e300]
    offsets = [0.0, 0.06, -0.06, 3.0, -300.0, 1e12, -1e12]
    mean, scale, offset = torch.cartesian_prod(
        *(torch.tensor(x, dtype=torch.float64) for x in (means, scales, offsets))
    ).T
    symbols = quantizer.quantize(mean + offset, mean, scale)
    ends = torch.tensor([0, quantizer.alphabet - 1]).repeat_interleave(len(mean))
    return torch.cat([symbols, ends]), mean.repeat(3), scale.repeat(3)


def encode(coder: Coder, quantizer: Quantizer, groups: list[Group]) -> tuple[bytes, float]:
    encoder = coder.encoder()
    bits = sum(float(encoder.put(symbols, quantizer, mean, scale).sum()) for symbols, mean, scale in groups)
    return encoder.finish(), bits


@coders
@quantizers
def test_round_trip(coder: Coder, quantizer: Quantizer) -> None:
    sizes = [100, 0, 1, 64, 0, 7]
    groups = [group(quantizer, size, seed) for seed, size in enumerate(sizes)] + [extremes(quantizer)]
    groups.append(group(quantizer, 30, 9, off=3.0))
    encoder = coder.encoder()
    for index, (symbols, mean, scale) in enumerate(groups):
        bits = encoder.put(symbols, quantizer, mean, scale)
        assert bits.shape == symbols.shape
        assert (bits > 0).all()
        encoder.put_bits(index, index % 13 + 4)
        encoder.put_bits(0, 0)
        encoder.segment = index // 2
    encoder.put_bits(65535, 16)
    decoder = coder.decoder(encoder.finish())
    for index, (symbols, mean, scale) in enumerate(groups):
        found = decoder.get(quantizer, mean, scale)
        assert found.dtype == torch.int64
        assert torch.equal(found, symbols)
        assert decoder.get_bits(index % 13 + 4) == index
        assert decoder.get_bits(0) == 0
        assert not decoder.exhausted
        decoder.segment = index // 2
    assert decoder.get_bits(16) == 65535
    assert not decoder.exhausted


@coders
def test_quantizer_may_change_from_group_to_group(coder: Coder) -> None:
    groups = [(quantizer, group(quantizer, 20)) for quantizer in QUANTIZERS_TO_TRY]
    encoder = coder.encoder()
    for quantizer, (symbols, mean, scale) in groups:
        encoder.put(symbols, quantizer, mean, scale)
    decoder = coder.decoder(encoder.finish())
    for quantizer, (symbols, mean, scale) in groups:
        assert torch.equal(decoder.get(quantizer, mean, scale), symbols)


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (Uniform(), "0fb38d5ea7d0206fd49a36194d8d3c5ffc5cea0b75eedf8e2374da9024e76315"),
        (Float8(), "0522de3017023bbc396c8c73f08a0f4a8690908e83827b1b084ca69915149a6abd"),
    ],
)
def test_exact_bytes(quantizer: Quantizer, expected: str) -> None:
    value = torch.arange(-12, 12, dtype=torch.float64) / 8
    mean, scale = value.sign() / 4, 0.125 + value.abs() / 2
    twice = [(quantizer.quantize(value, mean, scale), mean, scale)] * 2
    assert encode(Posterior(), quantizer, twice)[0].hex() == expected


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (Uniform(), "eeff80f3bdafce83baa07e98eb800d020d65011df2b405b8fed4788b339fbf"),
        (Deadzone(0.2), "fa8d590f248677b93e970bf86b68bdf505cc3d3b4c"),
    ],
)
def test_exact_bytes_of_adaptive(quantizer: Quantizer, expected: str) -> None:
    value = torch.arange(-12, 12, dtype=torch.float64) / 8
    mean, scale = value.sign() / 4, 0.125 + value.abs() / 2
    twice = [(quantizer.quantize(value, mean, scale), mean, scale)] * 2
    assert encode(Adaptive(), quantizer, twice)[0].hex() == expected


@pytest.mark.parametrize(("quantizer", "expected"), [(Uniform(bits=5), "783d50"), (Float8(), "7e00fca8")])
def test_exact_bytes_of_raw(quantizer: Quantizer, expected: str) -> None:
    """By hand: symbols 15, 0, 30, 21 of 5 bits, and 126, 0, 252, 168 of 8."""
    value = torch.tensor([0.0, -9999.0, 9999.0, 0.3], dtype=torch.float64)
    zeros = torch.zeros(4, dtype=torch.float64)
    assert encode(Raw(), quantizer, [(quantizer.quantize(value, zeros, zeros), zeros, zeros)])[0].hex() == expected


def integral(z: float, degrees: int) -> float:
    """Mass of Student's t of unit standard deviation above ``z``, by Simpson's rule after ``x = z + w / (1 - w)``."""
    unit = math.sqrt(degrees / (degrees - 2))
    norm = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi) * unit
    spread = 1 + abs(z)
    w = np.linspace(0, 1, 40_001)[:-1]
    x = z + spread * w / (1 - w)
    density = norm * (1 + (x * unit) ** 2 / degrees) ** (-(degrees + 1) / 2) * spread / (1 - w) ** 2
    weights = np.where(np.arange(len(w)) % 2, 4, 2)
    weights[0] = 1
    return float((density * weights).sum() / 40_000 / 3)


@pytest.mark.parametrize("degrees", [4, 6, 8, 16, 64])
def test_student_tail_is_the_integral_of_the_density(degrees: int) -> None:
    z = np.array([0.0, 1e-6, 0.1, 0.7, 1.0, 2.5, 10.0, 100.0, 1e4])
    expected = [integral(float(point), degrees) for point in z]
    np.testing.assert_allclose(student_tail(z, degrees), expected, rtol=1e-9)


def cross_entropy(quantizer: Quantizer, groups: list[Group], degrees: int) -> float:
    """Bits under the coder's model as its docstring states it, by other formulas than the coder's."""

    def above(z: float) -> float:
        return NormalDist().cdf(-z) if degrees == 0 else integral(z, degrees)

    bits = 0.0
    for symbols, mean, scale in groups:
        low = ((quantizer.lower_edge(symbols, mean) - mean) / scale).tolist()
        high = ((quantizer.lower_edge(symbols + 1, mean) - mean) / scale).tolist()
        for start, stop in zip(low, high, strict=True):
            near, far = sorted((abs(start), abs(stop)))
            outer = 0.0 if math.isinf(far) else above(far)
            bits -= math.log2(1 - above(near) - outer if start < 0 < stop else above(near) - outer)
    return bits


@pytest.mark.parametrize("quantizer", [Uniform(), Float8()], ids=["uniform", "float8"])
@pytest.mark.parametrize("degrees", [0, 4, 8])
@pytest.mark.parametrize("adapt", [False, True])
def test_cost_is_the_cross_entropy(quantizer: Quantizer, degrees: int, adapt: bool) -> None:
    groups = [group(quantizer, 100, seed, degrees) for seed in range(4)]
    entropy = cross_entropy(quantizer, groups, degrees)
    data, bits = encode(Posterior(degrees, adapt), quantizer, groups)
    assert 8 * len(data) <= entropy * 1.01 + 32
    assert bits == pytest.approx(entropy, rel=0.01 if adapt else 0.001)
    assert bits / 8 <= len(data) <= bits / 8 * 1.0005 + 2


@pytest.mark.parametrize("off", [1 / 3, 3.0])
def test_adaptation_finds_scales_that_are_off(off: float) -> None:
    quantizer = Uniform()
    right = [group(quantizer, 64, seed) for seed in range(40)]
    wrong = [group(quantizer, 64, seed, off=off) for seed in range(40)]
    ideal = encode(Posterior(adapt=False), quantizer, right)[1]
    plain = encode(Posterior(adapt=False), quantizer, wrong)[1]
    adapted = encode(Posterior(adapt=True), quantizer, wrong)[1]
    assert plain > 1.1 * ideal
    assert adapted < 1.02 * ideal


def test_adaptation_costs_little_where_scales_are_right() -> None:
    quantizer = Uniform()
    groups = [group(quantizer, 16, seed) for seed in range(60)]
    assert encode(Posterior(), quantizer, groups)[1] < 1.01 * encode(Posterior(adapt=False), quantizer, groups)[1]


def masses_for(gain: float, rows: int) -> np.ndarray:
    """One gain makes every row a bit cheaper than all others do."""
    return np.where(GAINS[:, None] == gain, 0.5, 0.25) * np.ones((1, rows))


def test_gain_follows_a_change() -> None:
    gain = Gain()
    assert gain.value == 1
    for value, groups in ((4.0, 20), (0.5, 3)):
        for _ in range(groups):
            gain.learn(300, [masses_for(value, 300)])
        assert gain.value == value


def test_small_groups_add_up_and_empty_ones_change_nothing() -> None:
    gain = Gain()
    for _ in range(20):
        gain.learn(1, [masses_for(4.0, 1)])
        for _ in range(20):
            gain.learn(0, [masses_for(4.0, 0)])
    assert gain.value == 4


def test_gain_is_not_moved_by_a_few_rows() -> None:
    gain = Gain()
    gain.learn(2, [masses_for(0.25, 2)])
    assert gain.value > 0.5


def test_gains() -> None:
    assert GAINS[0] == 1
    np.testing.assert_allclose(np.sort(np.log2(GAINS)), np.arange(-8, 9) / 4, atol=0.003)
    assert np.array_equal(GAINS * 1024, np.rint(GAINS * 1024))


def test_code_lengths() -> None:
    masses = np.concatenate([np.logspace(-12, 0, 5000), [1.0, 0.5, 0.25, 0.0, 1e-30]])
    expected = -np.log2(np.maximum(masses, 2.0**-40)) * 1024
    assert np.abs(code_lengths(masses) - expected).max() < 0.51


@pytest.mark.parametrize("degrees", [4, 8])
def test_mass_keeps_precision_in_both_tails(degrees: int) -> None:
    tail = partial(student_tail, degrees=degrees)
    start, stop = np.array([1000.0, -1300.0, -0.5]), np.array([1300.0, -1000.0, 1000.0])
    far = integral(1000.0, degrees) - integral(1300.0, degrees)
    expected = [far, far, 1 - integral(0.5, degrees) - integral(1000.0, degrees)]
    np.testing.assert_allclose(mass(both_sides(start, tail), both_sides(stop, tail)), expected, rtol=1e-8)


def test_an_impossible_value_costs_at_most_sixteen_bits_a_decision() -> None:
    quantizer = Uniform()
    symbols = torch.tensor([quantizer.alphabet - 1])
    data, bits = encode(Posterior(0), quantizer, [(symbols, *torch.tensor([[0.0], [1e-9]]).double())])
    assert 16 <= bits <= 16 * 14
    assert len(data) <= bits / 8 + 2


@pytest.mark.parametrize("quantizer", [Uniform(bits=14), Uniform(bits=5), Float8()], ids=["14", "5", "float8"])
def test_raw_spends_a_fixed_number_of_bits(quantizer: Quantizer) -> None:
    width = math.ceil(math.log2(quantizer.alphabet))
    for sizes in ([0], [1], [3, 0, 10], [100, 1]):
        data, bits = encode(Raw(), quantizer, [group(quantizer, size) for size in sizes])
        assert bits == sum(sizes) * width
        assert len(data) == math.ceil(sum(sizes) * width / 8)


def test_raw_refuses_what_is_no_symbol() -> None:
    zeros = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(StreamError, match="symbol 255 is not below 253"):
        Raw().decoder(b"\x01\xff\x02").get(Float8(), zeros, zeros)


@coders
def test_a_stream_cut_anywhere_decodes_until_it_is_exhausted(coder: Coder) -> None:
    """What is not flagged is right, and all is there that the bytes can hold (but for 40 bits)."""
    quantizer = Uniform()
    groups = [group(quantizer, size, seed) for seed, size in enumerate([5, 40, 0, 1, 30, 2, 64, 3])]
    encoder = coder.encoder()
    costs = (float(encoder.put(symbols, quantizer, mean, scale).sum()) for symbols, mean, scale in groups)
    ends = list(accumulate(costs))
    data = encoder.finish()
    for length in range(len(data) + 1):
        decoder, whole = coder.decoder(data[:length]), 0
        for symbols, mean, scale in groups:
            found = decoder.get(quantizer, mean, scale)
            if decoder.exhausted:
                break
            assert torch.equal(found, symbols)
            whole += 1
        assert whole >= sum(end <= 8 * length - 40 for end in ends)
        assert (whole == len(groups)) == (length == len(data))


@coders
def test_finish_in_between_is_a_stream_of_its_own_and_changes_nothing(coder: Coder) -> None:
    quantizer = Uniform()
    groups = [group(quantizer, 20, seed) for seed in range(6)]
    encoder = coder.encoder()
    for count, (symbols, mean, scale) in enumerate(groups, 1):
        encoder.put(symbols, quantizer, mean, scale)
        data = encoder.finish()
        assert data == encoder.finish() == encode(coder, quantizer, groups[:count])[0]
        decoder = coder.decoder(data)
        for symbols, mean, scale in groups[:count]:
            assert torch.equal(decoder.get(quantizer, mean, scale), symbols)
        assert not decoder.exhausted


@coders
def test_nothing_is_no_bytes(coder: Coder) -> None:
    assert coder.encoder().finish() == b""
    decoder = coder.decoder(b"")
    assert not decoder.exhausted
    decoder.get_bits(8)
    assert decoder.exhausted


NOT_RAW = [coder for coder in CODERS_TO_TRY if not isinstance(coder, Raw)]


@pytest.mark.parametrize("coder", NOT_RAW, ids=lambda c: str(CODERS.spec(c)))
def test_bytes_that_no_encoder_wrote_give_symbols_of_the_alphabet(coder: Coder) -> None:
    generator = np.random.default_rng(0)
    _, mean, scale = group(Uniform(), 50)
    for data in [b"\xff" * 40, *(generator.bytes(size) for size in range(60))]:
        decoder = coder.decoder(data)
        for _ in range(4):
            found = decoder.get(Uniform(), mean, scale)
            assert ((found >= 0) & (found < Uniform().alphabet)).all()
    assert decoder.exhausted


def test_a_code_value_of_no_symbol_counts_as_exhausted() -> None:
    decoder = Posterior().decoder(b"\xff" * 40)
    _, mean, scale = group(Uniform(), 3)
    assert not decoder.exhausted
    decoder.get(Uniform(), mean, scale)
    assert decoder.exhausted
    assert decoder.get_bits(4) == 0


def test_interval_is_exact() -> None:
    """The numbers just inside decode to what was encoded, those just outside do not; carries included."""
    generator = np.random.default_rng(1)
    model = stream.model.Bernoulli(perfect=False)
    for count in [1, 2, 3, 5, 20, 60] * 30:
        p = generator.random(count) ** generator.integers(1, 8)
        symbols = (generator.random(count) < p).astype(np.int32)
        coder = stream.queue.RangeEncoder()
        coder.encode(symbols, model, p)
        low, high, bits = interval(coder)

        def decodes(number: int, bits: int = bits, p: np.ndarray = p, symbols: np.ndarray = symbols) -> bool:
            if not 0 <= number < 1 << bits:
                return False
            words = np.frombuffer(number.to_bytes(bits // 8, "big"), ">u4").astype(np.uint32)
            try:
                return bool((stream.queue.RangeDecoder(words).decode(model, p) == symbols).all())
            except AssertionError:
                return False

        assert [decodes(number) for number in (low - 1, low, high - 1, high)] == [False, True, True, False]


def test_shortest_string_inside_an_interval() -> None:
    assert shortest(0, 1 << 64, 64) == b""
    assert shortest(0x12345678 << 32, 0x12345679 << 32, 64) == b"\x12\x34\x56\x78"
    assert shortest((0x12345678 << 32) - 5, 0x12350000 << 32, 64) == b"\x12\x34\x57"
    assert shortest((0x12345678 << 32) + 1, 0x12390000 << 32, 64) == b"\x12\x35"
    assert shortest((0x80 << 56) - 1, 0x82 << 56, 64) == b"\x80"


@pytest.mark.parametrize("degrees", [-2, 1, 2, 3, 5, 66])
def test_degrees_out_of_range(degrees: int) -> None:
    with pytest.raises(ValueError, match=rf"coder\.degrees must be 0 or even and in 4\.\.64, got {degrees}"):
        Posterior(degrees)


@pytest.mark.parametrize(
    ("mean", "scale"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, -1.0), (0.0, math.inf)]
)
def test_predictions_must_be_finite(mean: float, scale: float) -> None:
    row = [torch.tensor([x], dtype=torch.float64) for x in (mean, scale)]
    with pytest.raises(ValueError, match="finite"):
        Posterior().encoder().put(torch.tensor([5]), Uniform(), *row)
    with pytest.raises(ValueError, match="finite"):
        Posterior().decoder(b"abc").get(Uniform(), *row)


@coders
@pytest.mark.parametrize("symbol", [-1, 253])
def test_symbols_must_be_of_the_alphabet(coder: Coder, symbol: int) -> None:
    row = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"symbols must lie in 0\.\.252, got {symbol}"):
        coder.encoder().put(torch.tensor([symbol]), Float8(), row, row)


def test_names_and_options() -> None:
    assert CODERS.get("posterior") is Posterior
    assert CODERS.get("raw") is Raw
    assert CODERS.get("static") is Static
    assert CODERS.spec(Posterior(8, False)) == {"name": "posterior", "degrees": 8, "adapt": False, "gains": None}
    assert CODERS.get("adaptive") is Adaptive
    assert CODERS.spec(Static()) == {"name": "static", "table": "photographs", "digest": Static().digest}
    assert CODERS.spec(Adaptive()) == {"name": "adaptive", "weight": 16, "memory": 2048, "table": None, "digest": None}


def ideal(taken: np.ndarray, yes: np.ndarray, chances: np.ndarray) -> float:
    """Bits of decisions by the definition of entropy."""
    return float(-(yes * np.log2(chances) + (taken - yes) * np.log2(1 - chances)).sum())


def test_static_cost_is_the_cross_entropy_of_its_table() -> None:
    """Decisions counted one by one in plain Python, at the probabilities of the table's file."""
    quantizer, chances = Uniform(0.5), np.array(json.loads((SHIPPED / "photographs.json").read_text())["segments"])[0]
    groups = [group(quantizer, 300, seed) for seed in range(4)]
    bits = 0.0
    for symbols, _, scale in groups:
        for offset, ratio in zip((symbols - 8191).tolist(), (scale / 0.5).tolist(), strict=True):
            context = sum(ratio >= round(2 ** (k / 2 - 3) * 4096) / 4096 for k in range(27))
            shift = max(context // 2 - 4, 0)
            size = abs(math.floor(offset / 2**shift + 0.5))
            p = chances[context] / 65536
            bits -= sum(math.log2(p[k]) for k in range(min(size, 14)))
            bits -= math.log2(1 - p[size]) if size < 14 else 0.0
            bits += (size > 0) + shift + (2 * int(math.log2(size - 13)) + 1 if size >= 14 else 0)
    data, counted = encode(Static(), quantizer, groups)
    assert counted == pytest.approx(bits, rel=0.002)
    assert 8 * len(data) <= bits * 1.01 + 32


def spread_out(offsets: Tensor, count: int) -> Group:
    """Offsets from the middle as symbols of ``Uniform(0.5)``, all in one context."""
    return offsets + 8191, torch.zeros(count, dtype=torch.float64), torch.full((count,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("values", [[0, 0, 0, 0, 0, 0, 0, 1], [-3, 0, 3], [5, -5], [-2, -1, 0, 1, 2, 0, 0, 0]])
def test_adaptive_approaches_the_empirical_entropy(values: list[int]) -> None:
    """Whatever the distribution of sizes (signs are always a bit): within 2% and what is learnt in the first chunk.

    That is 32 rows under Student's t, at most 60 bits for each decision that it has wrong.
    """
    choice = torch.randint(0, len(values), (6000,), generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor(values)[choice]
    share = offsets.abs().unique(return_counts=True)[1].double() / len(offsets)
    entropy = float(-(share * share.log2()).sum()) * len(offsets) + int((offsets != 0).sum())
    data, bits = encode(Adaptive(1), Uniform(0.5), [spread_out(offsets, len(offsets))])
    assert entropy * 0.99 <= bits <= 1.02 * entropy + 60 * (max(values) + 1)
    assert bits / 8 <= len(data) <= bits / 8 * 1.0005 + 2
    assert encode(Static(), Uniform(0.5), [spread_out(offsets, len(offsets))])[1] > 1.05 * bits


def test_adaptive_follows_a_change() -> None:
    quantizer = Uniform(0.5)
    offsets = torch.cat([torch.zeros(8000, dtype=torch.int64), torch.tensor([3, -3]).repeat(1000)])
    costs = [encode(Adaptive(1, m), quantizer, [spread_out(offsets, 10_000)])[1] for m in (256, 4096)]
    assert costs[0] < 0.8 * costs[1]


def test_adaptive_costs_about_what_the_posterior_does() -> None:
    """On data that the posterior coder's model fits, learning and the contexts' width cost less than 4%."""
    quantizer = Uniform(0.5)
    groups = [group(quantizer, 200, seed) for seed in range(20)]
    assert encode(Adaptive(), quantizer, groups)[1] < 1.04 * encode(Posterior(adapt=False), quantizer, groups)[1]


def test_a_table_holds_for_its_segment_and_the_last_for_all_further() -> None:
    chances = np.stack([student_table(), np.full_like(student_table(), 32768), student_table()])
    for coder in (StaticEncoder, lambda table: AdaptiveEncoder(Counts(table, 1024, 4096))):
        costs = []
        for segment in (0, 1, 2, 3):
            encoder = coder(Table(chances))
            encoder.segment = segment
            costs.append(float(encoder.put(*_arguments(group(Uniform(0.5), 30))).sum()))
        assert costs[0] == costs[2] == costs[3]
        assert costs[1] > 1.02 * costs[0]


def _arguments(group: Group) -> tuple[Tensor, Quantizer, Tensor, Tensor]:
    symbols, mean, scale = group
    return symbols, Uniform(0.5), mean, scale


def test_student_table_is_the_integral_of_the_density() -> None:
    """Context of ratios from 1 to 1.41, middle 2^(1/4): P(|x| > k + 1/2) over P(|x| > k - 1/2)."""
    table = student_table()[7] / 65536
    above = [2 * integral((k + 0.5) / 2**0.25, 4) for k in range(4)]
    expected = [above[0], *(b / a for a, b in pairwise(above))]
    np.testing.assert_allclose(table[:4], expected, atol=2e-4)


def test_gains_that_are_known_beforehand_are_of_their_segment() -> None:
    """The factor that scales are off by, as a gain, gives the cost of the right scales."""
    quantizer = Uniform()
    right, wrong = group(quantizer, 200), group(quantizer, 200, off=1 / 3)
    ideal_bits = encode(Posterior(adapt=False), quantizer, [right])[1]
    for segment, expected in ((0, False), (1, True), (2, True)):
        encoder = Posterior(adapt=False, gains=[1.0, 3.0]).encoder()
        encoder.segment = segment
        symbols, mean, scale = wrong
        bits = float(encoder.put(symbols, quantizer, mean, scale).sum())
        assert (bits == pytest.approx(ideal_bits, rel=1e-6)) == expected


@pytest.mark.parametrize("gains", [[], [0.0], [1.0, 65.0], [math.nan]])
def test_gains_out_of_range(gains: list[float]) -> None:
    with pytest.raises(ValueError, match=r"coder\.gains must be at least one number, each in \[0\.015625, 64\]"):
        Posterior(gains=gains)


def test_another_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSCX_TABLES", str(tmp_path))
    content = student().to_json()
    fraction, huge = content.replace(b",", b".7,", 1), content.replace(b",", b"0" * 30 + b",", 1)
    files = {"a": content, "b": b'{"segments": [[[1]]]}', "c": b"no", "e": fraction, "f": huge, "g": b"[]"}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_bytes(content)
    digest = student().digest
    assert Static("a").digest == Static("a", digest).digest == Adaptive(table="a").digest == digest
    for coder in (Static, lambda *args: Adaptive(1, 16, *args)):
        with pytest.raises(ValueError, match=rf"must be the one with digest 't00', but '.*a\.json' has '{digest}'"):
            coder("a", "t00")
        with pytest.raises(ValueError, match=r"coder\.table 'd' is not known: put d\.json into a folder"):
            coder("d")
        with pytest.raises(ValueError, match=r"coder\.table must be a plain lower-case word.*got '\.\./a'"):
            coder("../a")
        for name in ("b", "c", "e", "f", "g"):
            with pytest.raises(ValueError, match=rf"'.*{name}\.json' holds no table"):
                coder(name)
    with pytest.raises(ValueError, match=r"coder\.digest must be none without a table"):
        Adaptive(digest=digest)


def test_a_table_of_ones_own_may_take_a_name_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, own = Static("photographs").digest, student().digest
    monkeypatch.setenv("PSCX_TABLES", str(tmp_path))
    assert Static("photographs").digest == shipped != own
    file = tmp_path / "photographs.json"
    file.write_bytes(student().to_json())
    assert Static("photographs").digest == Adaptive(table="photographs").digest == own
    for digest in (own, shipped):  # as in a stream
        assert Static("photographs", digest).digest == digest
    with pytest.raises(ValueError, match=rf"one with digest 't00', but '.*' has '{own}' and '.*' has '{shipped}'$"):
        Static("photographs", "t00")
    file.write_bytes(b"no")
    assert Static("photographs", shipped).digest == shipped
    with pytest.raises(ValueError, match=r"one with digest 't00', but '.*' holds no table .* and '.*' has"):
        Static("photographs", "t00")
    with pytest.raises(ValueError, match=r"'.*photographs\.json' holds no table"):
        Static("photographs")


@pytest.mark.parametrize(("weight", "memory"), [(0, 64), (1025, 64), (1, 15), (1, 4097)])
def test_adaptive_options_out_of_range(weight: int, memory: int) -> None:
    with pytest.raises(ValueError, match=r"coder\.(weight|memory) must lie in"):
        Adaptive(weight, memory)


def test_a_probability_of_a_table_is_never_0_or_1() -> None:
    for wrong in (0, 65536):
        table = student_table()
        table[0, 0] = wrong
        with pytest.raises(ValueError, match=r"probabilities of a table lie in 1\.\.65535"):
            Table(table[None])
