"""Exact layers against integers and NumPy, bit for bit, and diffusers networks of them in every setting."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, SlicedAttnProcessor
from diffusers.models.embeddings import Timesteps
from machine_settings import machine_settings
from numpy.typing import NDArray
from tiny import tiny_network
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.exact import (
    FORMS,
    FRAMES,
    ExactAttention,
    ExactAveragePool,
    ExactGELU,
    ExactGroupNorm,
    ExactLinear,
    ExactSiLU,
    ExactTimesteps,
    exponential,
    make_exact,
)
from pscx.exact.attention import attend, weight_bits
from pscx.exact.convolution import LIMIT, whole_weights
from pscx.exact.exponential import COEFFICIENTS, LOG2_E
from pscx.exact.gelu import gelu, tanh_gelu
from pscx.exact.group_norm import moment_bits
from pscx.exact.parts import PART, in_parts
from pscx.exact.products import check_products
from pscx.exact.silu import silu
from pscx.priors import DDPM
from pscx.priors.denoiser import PixelDenoiser

Floats = NDArray[np.float32]
Options = dict[str, Any]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A layer with random weights, which no global state decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = make()
        for tensor in layer.parameters():
            nn.init.normal_(tensor, 0.3, 0.5)
    return layer.eval().requires_grad_(False)


def attention(**options: Any) -> Attention:
    sizes: Options = {"query_dim": 16, "heads": 2, "dim_head": 8, "norm_num_groups": 4, "residual_connection": True}
    layer: Attention = built(lambda: Attention(**{**sizes, "bias": True, **options}))
    return layer


def norm(layer: nn.GroupNorm) -> nn.GroupNorm:
    made: nn.GroupNorm = built(lambda: layer)
    return made


def linear(inputs: int = 300, outputs: int = 40) -> nn.Linear:
    layer: nn.Linear = built(lambda: nn.Linear(inputs, outputs))
    return layer


def numpy_units(x: Floats, axes: tuple[int, ...], top: int) -> tuple[NDArray[np.int64], Floats]:
    unit = (np.abs(x).max(axes, keepdims=True) / np.float32(top)).astype(np.float32)
    return np.rint(x * (np.float32(1) / unit)).astype(np.int64), unit


def numpy_exponential(x: Floats) -> Floats:
    """Transcription with NumPy's float32, whose products and sums are separate ufuncs."""
    y = np.clip(x * np.float32(LOG2_E), np.float32(-126), np.float32(127))
    k = np.rint(y)
    y, value = y - k, np.zeros_like(y)
    for coefficient in reversed(COEFFICIENTS):
        value = (value + np.float32(coefficient)) * y
    found: NDArray[np.float32] = np.ldexp(value + np.float32(1), k.astype(np.int32))
    return found


# Linear layers


def numpy_linear(exact: ExactLinear, x: Tensor) -> Tensor:
    """Each group's sum in 64-bit integers, and float32 from there on."""
    whole, unit = numpy_units(x.numpy(), tuple(range(1, x.ndim)), exact.top)
    weight, total = exact.weight.numpy().astype(np.int64), np.float32(0)
    for part in exact.splits:
        total = total + (whole[..., part] @ weight[:, part].T).astype(np.float32)
    return torch.as_tensor(total * (unit * exact.scale.numpy()) + exact.bias.numpy())


def test_a_linear_layer_equals_integers_where_its_sums_reach_the_bound() -> None:
    """Activations that follow the signs of one output's weights drive its sum to ``top L1`` in each group."""
    exact = ExactLinear(linear(), activation_bits=11)
    sizes = [exact.weight[:, part].abs().sum(1) for part in exact.splits]
    assert len(exact.splits) > 1
    assert max(float(size.max()) for size in sizes) * exact.top < LIMIT
    fewer = exact.weight.abs().tensor_split(len(exact.splits) - 1, 1)
    assert max(float(part.sum(1).max()) for part in fewer) * exact.top > LIMIT * 0.98
    worst = exact.weight[int(exact.weight.abs().sum(1).argmax())].sign() * 7.3
    for x in (worst[None], -worst.repeat(2, 3, 1), random(4, 5, 300), random(3, 300) * 1e-4):
        assert torch.equal(exact(x), numpy_linear(exact, x))


def test_weights_of_a_linear_layer_are_those_rounded() -> None:
    layer = linear()
    exact = ExactLinear(layer, weight_bits=12)
    whole, scale = whole_weights(layer.weight.double(), 0, 12)
    assert torch.equal(exact.weight.double(), whole)
    assert float((exact.weight * exact.scale[:, None] - layer.weight).abs().max()) < float(scale.max()) * 0.51


# Norms


def numpy_norm(exact: ExactGroupNorm, x: Tensor) -> Tensor:
    """Sums in Python integers, then NumPy's float64 and float32."""
    groups = x.numpy().reshape(len(x), exact.groups, -1)
    count = groups.shape[2]
    whole, unit = numpy_units(groups, (2,), (1 << moment_bits(count)) - 1)
    sums = np.array([[sum(map(int, group)) for group in sample] for sample in whole], float)[..., None]
    squares = np.array([[sum(int(i) ** 2 for i in group) for group in sample] for sample in whole], float)[..., None]
    mean, scale = sums / count, unit.astype(np.float64)
    variance = (squares / count - mean * mean) * (scale * scale)
    root = (1 / np.sqrt(variance + exact.eps)).astype(np.float32)
    per_number = [t.numpy().repeat(x[0, 0].numel()) for t in (exact.weight, exact.bias)]
    weight, bias = (t.reshape(exact.groups, -1) for t in per_number)
    y = (groups - (mean * scale).astype(np.float32)) * (root * weight) + bias
    return torch.as_tensor(y).reshape(x.shape)


def test_a_norm_equals_integers_where_its_sums_reach_the_bound() -> None:
    """8191 numbers of full magnitude: their squares in 20 bits sum up to 2^53 less 2^41."""
    exact = ExactGroupNorm(norm(nn.GroupNorm(2, 2)))
    signs = torch.where(torch.arange(8191) % 3 == 0, 1.0, -1.0)
    assert (1 << 52) < 8191 * ((1 << moment_bits(8191)) - 1) ** 2 < (1 << 53)
    for x in (torch.stack([signs, -signs])[None] * 3.7, random(2, 2, 8191) + 5.0, random(3, 2, 40, 7)):
        assert torch.equal(exact(x), numpy_norm(exact, x))


def test_a_norm_of_many_numbers_equals_integers_in_any_layout() -> None:
    """More than are held at a time."""
    exact, x = ExactGroupNorm(norm(nn.GroupNorm(2, 4))), random(2, 4, 120, 101)
    assert x.numel() > PART
    expected = numpy_norm(exact, x)
    for same in (x, x.to(memory_format=torch.channels_last), x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2)):
        assert torch.equal(exact(same).reshape(x.shape), expected)


@pytest.mark.parametrize("function", [silu, gelu, tanh_gelu])
def test_a_function_in_parts_is_the_function(function: Callable[[Tensor], Tensor]) -> None:
    x = random(2, 6, 120, 101)
    assert x.numel() > 2 * PART
    every_other = x[:, ::2]
    for same in (x, x.to(memory_format=torch.channels_last), x[1:], every_other, x.transpose(2, 3)):
        result = in_parts(function, same)
        assert torch.equal(result, function(same))
        assert result.shape == same.shape
    assert in_parts(function, x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_squares_of_a_norm_stay_below_the_bound_for_every_count() -> None:
    for count in [1, 2, 3, 8191, 8192, *(2**i - 1 for i in range(14, 40)), *(2**i for i in range(14, 40))]:
        bits = moment_bits(count)
        assert count * ((1 << bits) - 1) ** 2 < 1 << 53
        assert bits == 20 or 8 * count * (1 << bits) ** 2 >= 1 << 53


def test_a_norm_of_a_constant_is_its_bias() -> None:
    layer = norm(nn.GroupNorm(2, 4))
    assert torch.equal(ExactGroupNorm(layer)(torch.zeros(1, 4, 3, 3)), layer.bias[:, None, None].expand(1, 4, 3, 3))


# Transcendental functions


def test_the_exponential_is_single_operations_and_close() -> None:
    x = torch.cat([torch.linspace(-87, 88, 70001), torch.tensor([0.0, -0.0, -1e-30, -1e9, 1e9])])
    assert torch.equal(exponential(x), torch.as_tensor(numpy_exponential(x.numpy())))
    inside = x[:70001]
    error = (exponential(inside).double() / inside.double().exp() - 1).abs()
    assert bool((error < 2e-7 + 1e-7 * inside.abs()).all())
    assert exponential(torch.zeros(1)) == 1
    assert float(exponential(-torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e-3).max()) <= 1


def test_activations_are_close() -> None:
    x = torch.linspace(-40, 40, 80001)
    pairs: list[tuple[nn.Module, nn.Module]] = [(ExactSiLU(), nn.SiLU())]
    pairs += [(ExactGELU(layer), layer) for layer in (nn.GELU(), nn.GELU(approximate="tanh"))]
    for exact, layer in pairs:
        assert float(((exact(x) - layer(x.double())).abs() / x.abs().clamp_min(1)).max()) < 2e-7
    ends = torch.tensor([-3e4, 3e4, -0.0])
    for exact, _ in pairs:
        torch.testing.assert_close(exact(ends), ends.relu(), rtol=0, atol=1e-6)


def test_activations_are_single_operations() -> None:
    x = torch.linspace(-20, 20, 40001)
    y = x.numpy()
    silu = y / (numpy_exponential(-y) + np.float32(1))
    assert torch.equal(ExactSiLU()(x), torch.as_tensor(silu))
    u = (y * y * np.float32(0.044715) + np.float32(1)) * y * np.float32(2 * (2 / np.pi) ** 0.5)
    tanh = y * (np.float32(1) / (numpy_exponential(-u) + np.float32(1)))
    assert torch.equal(ExactGELU(nn.GELU(approximate="tanh"))(x), torch.as_tensor(tanh))


def test_steps_are_embedded_by_the_true_sines() -> None:
    for channels, flip, shift in ((32, False, 1), (32, True, 0), (9, True, 0)):
        layer = Timesteps(channels, flip, shift)
        exact = ExactTimesteps(layer, 1000)
        half = channels // 2
        angles = np.arange(1000.0)[:, None] * 10000.0 ** (-np.arange(half) / (half - shift))
        waves = [np.cos(angles), np.sin(angles)] if flip else [np.sin(angles), np.cos(angles)]
        expected = np.concatenate([*waves, np.zeros((1000, channels % 2))], 1)
        assert np.abs(exact.table.numpy() - expected).max() <= 2.0**-25 + 1e-12
        steps = torch.tensor([999, 0, 17])
        torch.testing.assert_close(exact(steps), layer(steps), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"timesteps as integers, got torch\.float32"):
        exact(steps.float())


# Attention


def numpy_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Scores, weights and both their sums in 64-bit integers."""
    (q, q_unit), (k, k_unit), (v, v_unit) = (numpy_units(t.numpy(), (2, 3), 32767) for t in (query, key, value))
    scores = q @ k.transpose(0, 1, 3, 2)
    unit = q_unit.astype(np.float64) * k_unit * scale
    below = ((scores - scores.max(3, keepdims=True)) * unit).astype(np.float32)
    weights = np.rint(numpy_exponential(below) * np.float32(1 << weight_bits(key.shape[2]))).astype(np.int64)
    mean = (weights @ v) / weights.sum(3, keepdims=True)
    return torch.as_tensor((mean * v_unit.astype(np.float64)).astype(np.float32))


def test_attention_equals_integers_where_its_sums_reach_the_bound() -> None:
    """All keys alike and all values alike: every weight is the largest, and so are all sums."""
    alike = torch.full((1, 2, 32768, 4), -2.5)
    assert weight_bits(32768) == 22
    assert 2**51 < 32768 * 2**22 * 32767 < 2**53
    assert torch.equal(attend(alike[:, :, :3], alike, alike, 0.5), numpy_attention(alike[:, :, :3], alike, alike, 0.5))
    assert torch.equal(attend(alike[:, :, :3], alike, alike, 0.5), alike[:, :, :3])
    query, key, value = (random(2, 3, 50, 8, seed=seed) * 3 for seed in range(3))
    assert torch.equal(attend(query, key, value, 0.4), numpy_attention(query, key, value, 0.4))


def test_sums_of_attention_stay_below_the_bound_for_every_number_of_tokens() -> None:
    for tokens in (1, 77, 65535, 65536, 10**6, 2**30):
        assert tokens * (1 << weight_bits(tokens)) * 32767 < 1 << 53
        assert weight_bits(tokens) > 5


def test_attention_does_not_depend_on_the_rows_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (random(2, 3, 50, 8, seed=seed) for seed in range(3))
    together = attend(query, key, value, 0.4)
    monkeypatch.setattr("pscx.exact.attention.SCORES", 2 * 3 * 50 * 7)
    assert torch.equal(attend(query, key, value, 0.4), together)


@pytest.mark.parametrize("scaled", [True, False])
def test_cross_attention_is_close(scaled: bool) -> None:
    layer = attention(cross_attention_dim=12, norm_num_groups=None, scale_qk=scaled, rescale_output_factor=2.0)
    x, context = random(2, 9, 16), random(2, 5, 12, seed=1)
    plain = layer(x, context)
    error = ExactAttention(layer, lambda part: ExactLinear(part, 12, 14))(x, context) - plain
    assert 0 < float(error.square().mean() / plain.square().mean()) < 1e-6


# All layers


def image(channels: int) -> Tensor:
    return random(5, channels, 8, 6) * torch.tensor([1.0, 1e-3, 50.0, 2.0, 0.3])[:, None, None, None]


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], nn.Module], float]] = {
    "linear": (linear, ExactLinear, 5e-3),
    "group norm": (lambda: norm(nn.GroupNorm(4, 16)), ExactGroupNorm, 1e-6),
    "plain norm": (lambda: nn.GroupNorm(4, 16, affine=False), ExactGroupNorm, 1e-6),
    "silu": (nn.SiLU, lambda _: ExactSiLU(), 1e-6),
    "gelu": (nn.GELU, ExactGELU, 1e-6),
    "attention": (attention, ExactAttention, 5e-3),
    "average": (lambda: nn.AvgPool2d(2), ExactAveragePool, 1e-6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_close_and_does_not_see_its_batch(name: str) -> None:
    """Root mean square error over that of the output, in each sample; then bit for bit."""
    make, form, limit = LAYERS[name]
    layer = make()
    exact = form(layer)
    x = image(300).transpose(1, 3) if name == "linear" else image(16)
    together, plain = exact(x), layer(x)
    axes = tuple(range(1, x.ndim))
    error = ((together - plain).square().mean(axes) / plain.square().mean(axes)).sqrt()
    assert float(error.max()) < limit
    for i in range(5):
        assert torch.equal(exact(x[i : i + 1])[0], together[i])
    assert torch.equal(exact(x.contiguous(memory_format=torch.channels_last)), together)
    assert torch.equal(exact(x[1:3]), together[1:3])


# Networks


def attentive_network(**options: Any) -> UNet2DModel:
    """Attention at each level, with random weights."""
    sizes: Options = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "dropout": 0.1}
    blocks = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = UNet2DModel(sample_size=16, **{**sizes, **blocks, "attention_head_dim": 8, **options})
    made: UNet2DModel = network.eval().requires_grad_(False)
    return made


NETWORKS: dict[str, Options] = {
    "as ddpm of Ho et al.": {
        **{"attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1},
        **{"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        **{"norm_eps": 1e-6, "mid_block_scale_factor": 2.0},
    },
    "as Dhariwal and Nichol": {
        **{"resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "upsample_type": "resnet"},
        **{"center_input_sample": True, "act_fn": "gelu"},
    },
    "resizing blocks": {
        **{"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2},
        **{"act_fn": "relu", "add_attention": False},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_diffusers_network_has_an_exact_form_that_is_close(name: str) -> None:
    """Root mean square error over that of the output below 2 percent, at random weights."""
    network = attentive_network(**NETWORKS[name])
    exact = deepcopy(network)
    make_exact(exact)
    exact.train()  # no layer is left that would draw
    x = random(3, 3, 16, 24)
    for t in (0, 400, 999):
        steps = torch.full((3,), t)
        plain, found = network(x, steps).sample, exact(x, steps).sample
        assert 0 < float((found - plain).square().mean() / plain.square().mean()) ** 0.5 < 0.02
        assert torch.equal(exact(x[1:2], steps[:1]).sample[0], found[1])
    kinds = {type(module) for module in exact.modules()}
    assert not kinds & {nn.Conv2d, nn.Linear, nn.GroupNorm, nn.SiLU, nn.GELU, nn.Dropout, nn.AvgPool2d, Attention}


class Foreign(nn.Module):
    """A layer that nobody knows."""


def fir(network: UNet2DModel) -> None:
    network.down_blocks[0].resnets[0].upsample = lambda x: x * 2


def sliced(network: UNet2DModel) -> None:
    network.mid_block.attentions[0].set_processor(SlicedAttnProcessor(1))


REFUSED: dict[str, tuple[Callable[[UNet2DModel], None], str]] = {
    "leaf": (lambda n: setattr(n, "conv_act", Foreign()), "conv_act is a Foreign, which has no exact form"),
    "deep": (
        lambda n: setattr(n.mid_block.resnets[0], "nonlinearity", nn.Mish()),
        r"mid_block\.resnets\.0\.nonlinearity is a Mish, which has no exact form",
    ),
    "filter": (fir, r"upsample by a filter has no exact form \(down_blocks\.0\.resnets\.0\)"),
    "factor": (
        lambda n: setattr(n.mid_block.resnets[1], "output_scale_factor", 2**0.5),
        "output_scale_factor must be a power of two, got 1.41",
    ),
    "processor": (sliced, r"by SlicedAttnProcessor has no exact form \(mid_block\.attentions\.0\)"),
    "norm": (
        lambda n: setattr(n.mid_block.attentions[0], "norm_q", nn.LayerNorm(8)),
        "attention with norm_q has no exact form",
    ),
    "projection": (
        lambda n: setattr(n.mid_block.attentions[0], "to_q", Foreign()),
        "a projection by Foreign has no exact form",
    ),
    "keys": (
        lambda n: setattr(n.mid_block.attentions[0], "inner_kv_dim", 8),
        "attention whose heads share keys has no exact form",
    ),
    "fused": (lambda n: n.mid_block.attentions[0].fuse_projections(), "attention with fused_projections has no"),
    "pool": (lambda n: setattr(n, "conv_act", nn.AvgPool2d(3)), "AvgPool2d.* has no exact form"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_form_is_refused_and_nothing_replaced(name: str) -> None:
    change, message = REFUSED[name]
    network = attentive_network()
    change(network)
    with pytest.raises(ValueError, match=f"^exact must be false: .*{message}"):
        make_exact(network)
    assert type(network.conv_in) is nn.Conv2d


@pytest.mark.parametrize("freeing", [False, True])
def test_floats_are_freed_as_layers_are_replaced(freeing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of layers before the one that is being made: none is held, or all of them."""
    network = nn.Sequential(*(linear() for _ in range(3)), nn.Sequential(linear(), linear()))
    weights = [weakref.ref(layer.weight) for layer in network.modules() if isinstance(layer, nn.Linear)]
    held, make = [], FORMS[nn.Linear]

    def counting(layer: nn.Linear, bits: Any) -> nn.Module:
        held.append(sum(weight() is not None for weight in weights))
        return make(layer, bits)

    monkeypatch.setitem(FORMS, nn.Linear, counting)
    make_exact(network, freeing=freeing)
    assert held == ([5, 4, 3, 2, 1] if freeing else [5] * 5)
    assert not any(isinstance(module, nn.Linear) for module in network.modules())


def test_freeu_is_refused() -> None:
    network = tiny_network()
    network.up_blocks[0].s1 = network.up_blocks[0].s2 = network.up_blocks[0].b1 = network.up_blocks[0].b2 = 1.1
    with pytest.raises(ValueError, match="exact must be false: FreeU has no exact form"):
        make_exact(network)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="exact must be false: the network is a Foreign, which has no exact form"):
        make_exact(Foreign())
    with pytest.raises(ValueError, match="0 steps in 16 channels have no exact form"):
        make_exact(attentive_network(), steps=0)
    with pytest.raises(ValueError, match=r"exact\.weight_bits must lie in 2\.\.16, got 1"):
        ExactLinear(linear(), weight_bits=1)


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    forms, frames = dict(FORMS), dict(FRAMES)
    code = Path("docs/exactness.md").read_text().split("```python\n")[1].split("```")[0]
    try:
        exec(compile(code, "docs/exactness.md", "exec"), {"__name__": "example"})
    finally:
        FORMS.clear()
        FORMS.update(forms)
        FRAMES.clear()
        FRAMES.update(frames)
    assert capsys.readouterr().out == "torch.Size([1, 4, 8, 8])\n"


def test_products_that_round_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.functional.linear
    for dtype in (torch.float32, torch.float64):
        rounded = {torch.float32: torch.bfloat16, torch.float64: torch.float32}[dtype]

        def product(x: Tensor, w: Tensor, dtype: torch.dtype = dtype, rounded: torch.dtype = rounded) -> Tensor:
            return plain(x.to(rounded).to(dtype), w) if x.dtype == dtype else plain(x, w)

        check_products.cache_clear()
        monkeypatch.setattr(nn.functional, "linear", product)
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(PscxError, match=f"{name} products of integers are not exact on cpu"):
            check_products(torch.device("cpu"))
    check_products.cache_clear()


# Settings of the machine

SETTINGS = machine_settings(5, 1, 3)
CODE = """
import hashlib, os, sys, numpy as np, torch, pscx
from pscx.priors import DDPM
from pscx.format.container import unpack

def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]

batch = int(os.environ["PSCX_TEST_BATCH"])
x = torch.as_tensor(np.random.default_rng(0).standard_normal((5, 3, 16, 24)))
for exact in (True, False):
    prior, found = DDPM(sys.argv[1], exact=exact), []
    for sigma in prior.levels[[3, 500]].tolist():
        for form in (torch.contiguous_format, torch.channels_last):
            parts = [prior.denoise(part.to(memory_format=form), sigma) for part in x.split(batch)]
            found.append(torch.cat(parts).numpy())
    assert not exact or np.array_equal(found[0], found[1])
    print(digest(np.stack(found)))
pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)[:, :27]
options = dict(sampler={"steps": 2}, restoration_sampler={"steps": 2}, iterations=3, batch=batch)
codec = pscx.load_codec(prior={"name": "ddpm", "path": sys.argv[1], "exact": True}, **options)
data = codec.compress(pixels)
print(digest(np.frombuffer(unpack(data)[1], np.uint8)), digest(codec.decompress(data)))  # the header names the batch
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attentive prior as a folder."""
    home = tmp_path_factory.mktemp("attentive")
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(attentive_network(), schedule).save(home)
    return home


def test_every_setting_gives_the_same_numbers_stream_and_pixels(folder: Path) -> None:
    """And the float network does not, else this would show nothing."""
    found = {}
    for name, setting in SETTINGS.items():
        command = [sys.executable, "-c", CODE, str(folder)]
        done = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        found[name] = done.stdout.splitlines()
    assert len({(numbers, codec) for numbers, _, codec in found.values()}) == 1, found
    assert len({plain for _, plain, _ in found.values()}) > 1, found


def test_an_exact_prior_denoises_as_the_float_one(folder: Path) -> None:
    """Error against the float prior, over what the denoiser changes; the fingerprints differ."""
    plain, exact = DDPM(str(folder)), DDPM(str(folder), exact=True)
    x = random(2, 3, 16, 24).double()
    for sigma in plain.levels[[5, 300, 900]].tolist():
        noisy = x * (1 + sigma**2) ** 0.5
        expected = plain.denoise(noisy, sigma)
        error = (exact.denoise(noisy, sigma) - expected).square().mean() / (expected - x).square().mean()
        assert 0 < float(error) < 1e-3
    assert plain.fingerprint() != exact.fingerprint()
