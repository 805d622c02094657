"""Exact latent priors: their layers against integers and NumPy, whole networks and streams in every setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU, GELU
from diffusers.models.embeddings import Timesteps
from machine_settings import machine_settings
from numpy.typing import NDArray
from test_exact_layers import built, numpy_exponential, numpy_units, random
from tiny_latent import TOKENS, save_stable_diffusion, tiny_text_encoder, tiny_unet
from tiny_pipelines import clip, save_pipeline, sdxl_unet
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPAttention

import pscx
from pscx.cli.main import main
from pscx.codecs import DiffC, SignalCodec, TurboDDCM
from pscx.codecs.specs import codec_spec
from pscx.config import ConfigError
from pscx.errors import PscxError
from pscx.exact import (
    ExactConvolution,
    ExactGEGLU,
    ExactLayerNorm,
    ExactLinear,
    ExactProjectedGELU,
    ExactQuickGELU,
    ExactSizes,
    ExactWideConvolution,
    ExactWideLinear,
    convolving,
    exact_on_bytes,
    make_exact,
)
from pscx.exact.attention import attend, weight_bits
from pscx.exact.clip_layers import ExactCausalAttention
from pscx.exact.convolution import LIMIT
from pscx.exact.gelu import gelu
from pscx.exact.group_norm import moment_bits
from pscx.exact.parts import PART
from pscx.exact.planes import PIECE
from pscx.exact.wide import FORM, WideProducts, weight_digits, wide_weights
from pscx.priors import SDXL, Speed, StableDiffusion
from pscx.priors.ddpm_schedule import linear, scaled_linear
from pscx.priors.distilled import exact_guidance_waves, guidance_waves
from pscx.priors.latent import LatentPrior
from pscx.samplers.pullback import denoise_with_pullback

CPU = torch.device("cpu")
PATHS: tuple[Literal["integer", "float32"], ...] = ("integer", "float32")
needs_bytes = pytest.mark.skipif(not exact_on_bytes(CPU), reason="bytes are not multiplied exactly on this processor")


def relative(found: Tensor, wanted: Tensor) -> float:
    """Root mean square error over that of the output."""
    return sqrt(float((found - wanted).square().mean() / wanted.square().mean()))


# Weights of 16 bits


def convolution(inputs: int = 40, outputs: int = 24, size: int = 3, **options: Any) -> nn.Conv2d:
    layer: nn.Conv2d = built(lambda: nn.Conv2d(inputs, outputs, size, **options))
    return layer


CONVOLUTIONS: dict[str, Callable[[], nn.Conv2d]] = {
    "3x3": lambda: convolution(padding=1),
    "strided": lambda: convolution(13, 7, stride=2, padding=(1, 2), bias=False),
    "1x1": lambda: convolution(size=1),
    "several groups": lambda: convolution(300, 8, padding=1),
    "dilated": lambda: convolution(padding=2, dilation=2),
}


def full(layer: nn.Conv2d | nn.Linear) -> None:
    """Low digits of ±127 and high ones of 0 in the first outputs, both at their largest in the others."""
    top = torch.full_like(layer.weight, 32639.0)
    top[: len(top) // 2] = 127.0
    top[: len(top) // 2].flatten(1)[:, 0] = 32639.0  # which sets the scale
    layer.weight.copy_(top * random(*top.shape, seed=1).sign() / 32639)


def reference(products: WideProducts, x: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], unit: Tensor) -> Tensor:
    """The definition with sums in float64, which holds them, and single operations in float32, ``(n, out, ...)``."""
    whole = (x * unit.reciprocal()).round().long()
    high = (whole + 128) >> 8
    digits = [high, whole - 256 * high]
    assert max(int(digit.abs().max()) for digit in digits) <= 128
    weights = weight_digits(products.weight)
    total = torch.zeros(())

    def summed(plane: Tensor, weight: Tensor, part: slice) -> Tensor:
        found = multiply(plane[:, part].double(), weight[:, part].double())
        assert float(found.abs().max()) < LIMIT
        return found.float()

    for part in products.splits[1]:
        total = total + summed(digits[0], weights[1], part)
    for part in products.splits[0]:
        total = (256 * summed(digits[0], weights[0], part) + summed(digits[1], weights[0], part)) + total
    shape = (1, -1, *(1,) * (total.ndim - 2))
    return total * unit * products.scale.view(shape) + products.bias.view(shape)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_wide_convolution_equals_integers_up_to_the_bound(name: str, path: Literal["integer", "float32"]) -> None:
    if path == "integer" and not exact_on_bytes(CPU):
        pytest.skip("bytes are not multiplied exactly on this processor")
    for at_bound in (False, True):
        layer = CONVOLUTIONS[name]()
        if at_bound:
            full(layer)
        exact = ExactWideConvolution(layer)
        geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        x = random(3, layer.in_channels, 9, 12) * torch.tensor([1.0, 1e-3, 50.0])[:, None, None, None]
        for same in (x, x.sign() * 7.3, x * torch.tensor([0.0, 1e-20, 1e30])[:, None, None, None]):
            unit = same.abs().amax((1, 2, 3), keepdim=True).clamp_min(2.0**-100) / 32639

            def multiply(a: Tensor, w: Tensor, geometry: dict[str, Any] = geometry) -> Tensor:
                return nn.functional.conv2d(a, w, None, **geometry)

            with convolving(path):
                found = exact(same)
            assert torch.equal(found, reference(exact.products, same, multiply, unit))
        assert relative(exact(x)[:1], layer(x)[:1]) < 3e-4
    if name == "several groups":
        assert min(len(parts) for parts in exact.products.splits) > 1


@pytest.mark.parametrize("path", PATHS)
def test_a_wide_linear_layer_equals_integers_and_has_a_unit_for_each_token(
    path: Literal["integer", "float32"],
) -> None:
    if path == "integer" and not exact_on_bytes(CPU):
        pytest.skip("bytes are not multiplied exactly on this processor")
    for at_bound in (False, True):
        layer: nn.Linear = built(lambda: nn.Linear(3000, 40))
        if at_bound:
            full(layer)
        exact = ExactWideLinear(layer)
        assert min(len(parts) for parts in exact.products.splits) > 1
        tokens = random(7, 3000) * 10.0 ** torch.arange(-3.0, 4.0)[:, None]
        for x in (tokens, tokens.sign()):
            unit = x.abs().amax(1, keepdim=True) / 32639
            with convolving(path):
                found = exact(x)
                assert torch.equal(exact(x[None, :, None]), found[None, :, None])
                assert torch.equal(torch.cat([exact(one[None]) for one in x]), found)
            assert torch.equal(found, reference(exact.products, x, lambda a, w: a @ w[..., 0].T, unit))
        assert max(relative(one, layer(token)) for one, token in zip(exact(tokens), tokens, strict=True)) < 2e-3


def test_every_group_of_wide_weights_stays_within_the_bound_and_is_needed() -> None:
    """Of raw bytes up to 255 and digits within ±128 each; one group less would exceed it."""
    layer = convolution(300, 8, padding=1)
    full(layer)
    products = ExactWideConvolution(layer).products
    for digits, parts in zip(weight_digits(products.weight), products.splits, strict=True):
        sums = digits.double().flatten(2)
        positive, negative = sums.clamp_min(0).sum(2), (-sums).clamp_min(0).sum(2)
        rows = torch.cat([positive * 255, negative * 255, (positive + negative) * 128])
        assert all(float(rows[:, part].sum(1).max()) < LIMIT for part in parts)
        assert max(float(part.sum(1).max()) for part in rows.tensor_split(len(parts) - 1, 1)) >= LIMIT


def test_wide_weights_are_balanced_bytes() -> None:
    whole = torch.arange(-32639, 32640, dtype=torch.int16)
    high, low = weight_digits(whole)
    assert torch.equal(256 * high.int() + low.int(), whole.int())
    for digits in (high, low):
        assert (int(digits.min()), int(digits.max())) in ((-127, 127), (-128, 127))
    assert FORM.top == 32639
    weight = random(5, 70)
    found, scale = wide_weights(weight)
    assert torch.equal(found.abs().amax(1), torch.full((5,), 32639, dtype=torch.int16))
    assert float((found * scale[:, None] - weight).abs().max()) < 0.51 * float(scale.max())


@needs_bytes
def test_large_calls_of_wide_layers_are_the_same_on_both_paths() -> None:
    """More than a piece; after a change of the weights, and in inference mode."""
    linear, image = ExactWideLinear(built(lambda: nn.Linear(64, 32))), random(1, 2 * PIECE // 64, 64)
    both = ExactWideConvolution(convolution(padding=1)), random(2, 40, 64, 72)
    for layer, x in ((linear, image), both):
        for change in (lambda w: w, torch.neg):
            layer.products.weight.copy_(change(layer.products.weight))
            found = []
            for path in PATHS:
                with convolving(path), torch.inference_mode():
                    found.append(layer(x))
            assert torch.equal(*found)


def test_wide_layers_are_nearer_by_far() -> None:
    layer, x = convolution(64, 64, padding=1), random(2, 64, 16, 16)
    assert relative(ExactWideConvolution(layer)(x), layer(x)) * 20 < relative(ExactConvolution(layer)(x), layer(x))
    flat: nn.Linear = built(lambda: nn.Linear(64, 64))
    tokens = random(2, 50, 64)
    assert relative(ExactWideLinear(flat)(tokens), flat(tokens)) * 20 < relative(
        ExactLinear(flat)(tokens), flat(tokens)
    )


# Norms, activations, attention


def numpy_norm(exact: ExactLayerNorm, x: Tensor) -> Tensor:
    """Sums in Python integers, then NumPy's float64 and float32."""
    tokens = x.numpy()
    count = tokens.shape[1]
    whole, unit = numpy_units(tokens, (1,), (1 << moment_bits(count)) - 1)
    mean = np.array([[sum(map(int, token))] for token in whole], float) / count
    square = np.array([[sum(int(i) ** 2 for i in token)] for token in whole], float) / count
    scale = unit.astype(np.float64)
    root = (1 / np.sqrt((square - mean * mean) * (scale * scale) + exact.eps)).astype(np.float32)
    y = (tokens - (mean * scale).astype(np.float32)) * (root * exact.weight.numpy()) + exact.bias.numpy()
    return torch.as_tensor(y)


def test_a_layer_norm_equals_integers_where_its_sums_reach_the_bound() -> None:
    """8191 numbers of full magnitude, and tokens of many sizes, more than are held at a time."""
    exact = ExactLayerNorm(built(lambda: nn.LayerNorm(8191)))
    assert (1 << 52) < 8191 * ((1 << moment_bits(8191)) - 1) ** 2 < (1 << 53)
    signs = torch.where(torch.arange(8191) % 3 == 0, 1.0, -1.0)
    x = torch.cat([torch.stack([signs, -signs]) * 3.7, random(9, 8191) * 10.0 ** torch.arange(-4.0, 5.0)[:, None]])
    assert x.numel() > PART
    assert torch.equal(exact(x), numpy_norm(exact, x))
    assert torch.equal(exact(x[None, :, None])[0, :, 0], exact(x))


def test_a_layer_norm_is_close() -> None:
    for options in ({}, {"elementwise_affine": False}, {"bias": False}):
        layer = built(partial(nn.LayerNorm, 40, **options))
        x = random(3, 5, 40) + 2
        torch.testing.assert_close(ExactLayerNorm(layer)(x), layer(x), rtol=1e-5, atol=1e-5)
    constant = built(lambda: nn.LayerNorm(8))
    assert torch.equal(ExactLayerNorm(constant)(torch.zeros(1, 8))[0], constant.bias)
    with pytest.raises(ValueError, match=r"LayerNorm\(\(2, 8\).* has no exact form, a norm over one dimension has"):
        ExactLayerNorm(nn.LayerNorm((2, 8)))


def test_quick_gelu_is_single_operations_and_close() -> None:
    x = torch.linspace(-40, 40, 80001)
    y = x.numpy()
    wanted = y * (np.float32(1) / (numpy_exponential(-(y * np.float32(1.702))) + np.float32(1)))
    assert torch.equal(ExactQuickGELU()(x), torch.as_tensor(wanted))
    assert float(((ExactQuickGELU()(x) - QuickGELUActivation()(x.double())).abs() / x.abs().clamp_min(1)).max()) < 5e-7


def test_gated_layers_are_their_parts_and_close() -> None:
    layer, x = built(lambda: GEGLU(16, 12)), random(2, 5, 16)
    exact = ExactGEGLU(ExactWideLinear(layer.proj))
    value, gate = exact.proj(x).chunk(2, -1)
    assert torch.equal(exact(x), value * gelu(gate))
    assert relative(exact(x), layer(x)) < 1e-3
    for approximate in ("none", "tanh"):
        plain = built(partial(GELU, 16, 12, approximate))
        found = ExactProjectedGELU(ExactWideLinear(plain.proj), tanh=approximate == "tanh")(x)
        assert 0 < relative(found, plain(x)) < 1e-3


def numpy_causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Scores, weights and sums in 64-bit integers, a query at a time over the keys that it sees."""
    (q, q_unit), (k, k_unit), (v, v_unit) = (numpy_units(t.numpy(), (2, 3), 32767) for t in (query, key, value))
    unit, one = q_unit.astype(np.float64) * k_unit * scale, np.float32(1 << weight_bits(key.shape[2]))
    found: NDArray[np.float64] = np.zeros(query.shape)
    for place in range(query.shape[2]):
        scores = np.einsum("bhd,bhkd->bhk", q[:, :, place], k[:, :, : place + 1])
        below = ((scores - scores.max(2, keepdims=True)) * unit[:, :, 0]).astype(np.float32)
        weights = np.rint(numpy_exponential(below) * one).astype(np.int64)
        mean = np.einsum("bhk,bhkd->bhd", weights, v[:, :, : place + 1]) / weights.sum(2, keepdims=True)
        found[:, :, place] = mean * v_unit.astype(np.float64)[:, :, 0]
    return torch.as_tensor(found.astype(np.float32))


def test_causal_attention_equals_integers_and_does_not_see_later_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (random(2, 3, 50, 8, seed=seed) * 3 for seed in range(3))
    whole = attend(query, key, value, 0.4, causal=True)
    assert torch.equal(whole, numpy_causal(query, key, value, 0.4))
    monkeypatch.setattr("pscx.exact.attention.SCORES", 2 * 3 * 50 * 7)
    assert torch.equal(attend(query, key, value, 0.4, causal=True), whole)
    plain = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.4)
    assert relative(whole, plain) < 1e-3


def test_masks_other_than_the_causal_one_are_refused() -> None:
    config = tiny_text_encoder().config
    layer = CLIPAttention(config).eval().requires_grad_(False)
    exact, x = ExactCausalAttention(layer, ExactWideLinear), random(1, 6, 8)
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    hiding = torch.zeros(1, 1, 6, 6).masked_fill(~seen, torch.finfo(torch.float32).min)
    for mask in (None, seen, hiding):
        assert torch.equal(exact(x, attention_mask=mask)[0], exact(x)[0])
    for wrong in (torch.ones(6, 6, dtype=torch.bool), hiding * 0, seen[:, :5]):
        with pytest.raises(ValueError, match="attention that hides some tokens has no exact form"):
            exact(x, attention_mask=wrong)


def test_sizes_and_guidance_are_embedded_by_the_true_sines() -> None:
    layer = Timesteps(9, True, 0)
    sizes = torch.tensor([0, 1, 1024, 65535, 1024])
    angles = sizes.numpy()[:, None] * 10000.0 ** (-np.arange(4) / 4)
    wanted = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((5, 1))], 1)
    assert np.abs(ExactSizes(layer)(sizes).numpy() - wanted).max() <= 2.0**-25 + 2e-11
    with pytest.raises(ValueError, match=r"sizes as integers, got torch\.float32"):
        ExactSizes(layer)(sizes.float())
    torch.testing.assert_close(exact_guidance_waves(7.5, 16, CPU), guidance_waves(7.5, 16, CPU), rtol=0, atol=2e-3)


# Networks


def text(kind: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = clip(width=12, projected=6, layers=3) if kind == "projected" else tiny_text_encoder()
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", ["plain", "projected"])
def test_a_text_encoder_has_an_exact_form_that_is_close(kind: str, activation: str) -> None:
    """Root mean square error over that of the answer; all that priors take of it."""
    plain = text(kind)
    plain.config.hidden_act = activation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = type(plain)(plain.config).eval().requires_grad_(False)
    exact = deepcopy(plain)
    make_exact(exact, wide=True)
    ids = torch.tensor([[52, 3, 20, 53, 53, 53, 53, 53, 53, 53, 53, 53]])
    assert ids.shape[1] == TOKENS
    found, wanted = exact(ids, output_hidden_states=True), plain(ids, output_hidden_states=True)
    assert 0 < relative(found[0], wanted[0]) < 1e-3
    assert 0 < relative(found.hidden_states[-2], wanted.hidden_states[-2]) < 1e-3
    kinds = {type(module) for module in exact.modules()}
    assert not kinds & {nn.Linear, nn.LayerNorm, CLIPAttention, QuickGELUActivation}


def test_a_conditional_network_has_an_exact_form_that_is_close() -> None:
    """At 16 bits a fiftieth of the error at 8; and a sample does not see its batch."""
    for make in (tiny_unet, sdxl_unet):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            plain = make().eval().requires_grad_(False)
        options: dict[str, Any] = {"encoder_hidden_states": random(3, TOKENS, plain.config.cross_attention_dim, seed=1)}
        wide, narrow = deepcopy(plain), deepcopy(plain)
        if make is sdxl_unet:
            sizes = torch.tensor([[512, 512, 0, 0, 512, 640]] * 3)
            options["added_cond_kwargs"] = {"text_embeds": random(3, 6, seed=2), "time_ids": sizes}
            for network in (wide, narrow):
                network.add_time_proj = ExactSizes(network.add_time_proj)
        make_exact(wide, wide=True)
        make_exact(narrow)
        x, steps = random(3, 4, 8, 12), torch.tensor([0, 500, 999])
        wanted, found, rough = (network(x, steps, **options).sample for network in (plain, wide, narrow))
        assert 0 < relative(found, wanted) < 1e-3
        assert relative(found, wanted) * 20 < relative(rough, wanted)
        one = {"encoder_hidden_states": options["encoder_hidden_states"][1:2]}
        if make is sdxl_unet:
            one["added_cond_kwargs"] = {key: value[1:2] for key, value in options["added_cond_kwargs"].items()}
        assert torch.equal(wide(x[1:2], steps[1:2], **one).sample[0], found[1])


# Priors

KINDS: dict[str, Callable[..., LatentPrior]] = {"stable_diffusion": StableDiffusion, "sdxl": SDXL}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("exact")
    return {
        "stable_diffusion": save_stable_diffusion(root / "stable_diffusion"),
        "sdxl": save_pipeline("sdxl", root / "sdxl"),
    }


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_exact_latent_prior_denoises_as_the_float_one(kind: str, folders: dict[str, str]) -> None:
    """Error of the noise over the noise, with and without a caption; other fingerprint, same fingerprint twice."""
    plain, exact = KINDS[kind](folders[kind]), KINDS[kind](folders[kind], exact=True)
    torch.testing.assert_close(exact.levels, plain.levels, rtol=1e-6, atol=0)
    x = random(5, 4, 8, 4).double()
    for caption in ("", "a cat"):
        one, other = (prior.conditioned(caption) if caption else prior for prior in (plain, exact))
        for sigma in plain.levels[[5, 300, 900]].tolist():
            noisy = x * (1 + sigma**2) ** 0.5
            wanted, found = (prior.denoise(noisy, sigma) for prior in (one, other))
            assert 0 < relative(noisy - found, noisy - wanted) < 2e-3
            assert found.dtype == torch.float64
            assert torch.equal(other.denoise(noisy[1:2], sigma)[0], found[1])
    assert plain.fingerprint() != exact.fingerprint() == KINDS[kind](folders[kind], exact=True).fingerprint()
    exact.network.get_buffer("conv_in.products.weight").view(-1)[0] += 1
    assert exact.fingerprint() != KINDS[kind](folders[kind], exact=True).fingerprint()


def test_samples_go_through_an_exact_network_a_few_at_a_time(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = StableDiffusion(folders["stable_diffusion"], exact=True)
    x = random(5, 4, 8, 4).double()
    together, large = prior.denoise(x, 1.0), prior.memory((4, 64, 64), 8)
    calls: list[int] = []
    prior.network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    monkeypatch.setattr("pscx.priors.latent.CALL", 70)
    assert torch.equal(prior.denoise(x, 1.0), together)
    assert calls == [2, 2, 1]
    assert prior.memory((4, 64, 64), 8) < large


def test_guidance_is_two_evaluations_and_single_operations(folders: dict[str, str]) -> None:
    """``o + guidance (c - o)`` in float64, written out with NumPy."""
    prior = StableDiffusion(folders["stable_diffusion"], exact=True, guidance=3.3).conditioned("a cat")
    x, sigma = random(2, 4, 4, 4).double(), float(StableDiffusion(folders["stable_diffusion"]).levels[300])
    root = (sigma * sigma + 1) ** 0.5
    assert prior.caption is not None
    with prior.computing(CPU):
        told, plain = (prior.predict((1 / root) * x, 300, text).numpy() for text in (prior.caption, prior.empty))
    wanted = x.numpy() + -sigma * (plain + 3.3 * (told - plain))
    np.testing.assert_array_equal(prior.denoise(x, sigma).numpy(), wanted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "bf16"}, "prior.dtype must be fp32: prior.exact is true, got bf16"),
        ({"speed": Speed(channels_last=True)}, "prior.speed must be null: prior.exact is true"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_options_that_cannot_apply(kind: str, options: dict[str, Any], words: str, folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=words):
        KINDS[kind](folders[kind], exact=True, **options)


def test_networks_in_other_numbers_are_refused(folders: dict[str, str]) -> None:
    prior = StableDiffusion(folders["stable_diffusion"], exact=True).double()
    with pytest.raises(PscxError, match="an exact prior computes in float32, and its network was turned into"):
        prior.denoise(torch.zeros(1, 4, 4, 4), 1.0)
    with pytest.raises(PscxError, match="an exact prior computes in float32"):
        prior.conditioned("a cat")


def test_samplers_that_take_gradients_are_refused(folders: dict[str, str]) -> None:
    for kind, make in KINDS.items():
        with pytest.raises(PscxError, match="takes gradients through the network, and an exact prior has none"):
            denoise_with_pullback(make(folders[kind], exact=True), torch.zeros(1, 4, 4, 4), 1.0)


def change(folder: str, part: str, **values: Any) -> None:
    file = Path(folder, part)
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_schedule_without_an_exact_form(tmp_path: Path) -> None:
    folder = save_stable_diffusion(tmp_path / "x")
    change(folder, "scheduler/scheduler_config.json", trained_betas=[0.001 * (i + 1) for i in range(20)])
    StableDiffusion(folder)
    with pytest.raises(ValueError, match="exact must be false: the schedule of PNDMScheduler with betas scaled_linear"):
        StableDiffusion(folder, exact=True)


@torch.no_grad()
def test_a_network_that_is_told_the_guidance(tmp_path: Path) -> None:
    """A latent consistency model: its guidance is waves from decimal arithmetic."""
    folder = save_stable_diffusion(tmp_path / "x")
    config = {**json.loads(Path(folder, "unet", "config.json").read_text()), "time_cond_proj_dim": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel.from_config(config).save_pretrained(Path(folder, "unet"))
    plain, exact = (StableDiffusion(folder, exact=exact).conditioned("a cat") for exact in (False, True))
    assert exact.evaluations == 1
    x = random(2, 4, 8, 4).double()
    assert 0 < relative(x - exact.denoise(x, 1.0), x - plain.denoise(x, 1.0)) < 2e-3


def test_a_part_without_an_exact_form_is_named(tmp_path: Path) -> None:
    folder = save_stable_diffusion(tmp_path / "x")
    change(folder, "unet/config.json", act_fn="mish")
    words = r"exact must be false: the denoiser\.time_embedding\.act is a Mish, which has no exact form"
    with pytest.raises(ValueError, match=words):
        StableDiffusion(folder, exact=True)
    change(folder, "unet/config.json", act_fn="silu")
    change(folder, "text_encoder/config.json", hidden_act="tanh")
    words = r"exact must be false: the text encoder\..*encoder\.layers\.0\.mlp\.activation_fn is a Tanh"
    with pytest.raises(ValueError, match=words):
        StableDiffusion(folder, exact=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: setattr(block(n), "norm_type", "ada_norm"), r"ada_norm has no exact form \(mid_block\.attentions"),
        (lambda n: setattr(n.mid_block.attentions[0], "is_input_continuous", False), "of tokens or patches"),
        (lambda n: setattr(block(n), "fuser", nn.Bilinear(2, 2, 2)), r"fuser is a Bilinear, which has no exact form"),
        (lambda n: setattr(n, "encoder_hid_proj", nn.PReLU()), "encoder_hid_proj is a PReLU, which has no exact form"),
    ],
)
def test_parts_of_a_conditional_network_that_are_refused(change: Callable[[Any], None], words: str) -> None:
    network = tiny_unet()
    change(network)
    with pytest.raises(ValueError, match=f"^exact must be false: .*{words}"):
        make_exact(network, wide=True)
    assert type(network.conv_in) is nn.Conv2d


def block(network: Any) -> Any:
    return network.mid_block.attentions[0].transformer_blocks[0]


def test_transposed_convolutions_have_no_wide_form() -> None:
    with pytest.raises(ValueError, match=r"no exact form with weights of 16 bits \(0\)"):
        make_exact(nn.Sequential(nn.ConvTranspose2d(2, 2, 2)), wide=True)


def test_schedules_are_those_of_torch() -> None:
    """Within the last bit, which torch's own has from the instruction set."""
    for steps in (1, 2, 7, 1000):
        for start, end in ((0.00085, 0.012), (1e-4, 0.02)):
            wanted = torch.linspace(start, end, steps)
            torch.testing.assert_close(linear(steps, start, end), wanted, rtol=1.2e-7, atol=1e-10)
            wanted = torch.linspace(start**0.5, end**0.5, steps) ** 2
            torch.testing.assert_close(scaled_linear(steps, start, end), wanted, rtol=2.5e-7, atol=1e-10)


# Streams and settings of the machine

LEVEL = 0.5
SHORT: dict[str, Any] = {
    "sampler": {"name": "ddrm", "steps": 2},
    "rows": {"name": "dct", "block": 4},
    "quantizer": {"name": "uniform", "step": 0.2},
    "coder": "posterior",
    "restoration": {"name": "mean", "samples": 1},
    "samples": 2,
    "iterations": 2,
}
SETTINGS = machine_settings(4, 1, 2)
CODE = """
import hashlib, json, os, sys, warnings
from pathlib import Path
import numpy as np, torch, pscx
from pscx.format.container import unpack
from pscx.priors import SDXL, StableDiffusion
from pscx.priors.latent import LatentPrior

def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]

class Seen(LatentPrior):
    latents = []

def to_image(prior, signal, plain=LatentPrior.to_image):
    Seen.latents.append(signal.numpy())
    return plain(prior, signal)

LatentPrior.to_image = to_image
folders, stream, short = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
batch = int(os.environ["PSCX_TEST_BATCH"])
x = torch.as_tensor(np.random.default_rng(0).standard_normal((4, 4, 8, 4)))
for kind, cls in (("stable_diffusion", StableDiffusion), ("sdxl", SDXL)):
    for exact in (True, False) if kind == "stable_diffusion" else (True,):
        prior = cls(folders[kind], exact=exact).conditioned("a cat")
        found = [prior.fingerprint(), prior.empty["encoder_hidden_states"].numpy().tobytes()]
        for sigma in prior.levels[[3, 500]].tolist():
            found.append(torch.cat([prior.denoise(part, sigma) for part in x.split(batch)]).numpy().tobytes())
        print(digest(np.frombuffer(b"".join(found), np.uint8)))
pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)[:, :27]
prior = {"name": "stable_diffusion", "path": folders["stable_diffusion"], "exact": True, "guidance": 3.0}
codec = pscx.load_codec(prior=prior, restoration_sampler=short["sampler"], batch=batch, **short)
if not stream.exists():
    stream.write_bytes(codec.compress(pixels, caption="a cat"))
data = stream.read_bytes()
LatentPrior.to_signal = None  # a decoder has no image to encode
shown = pscx.Decompressor(prior_path=folders["stable_diffusion"]).decompress(data)
print(digest(Seen.latents.pop()), pscx.stream_info(data)["arithmetic"], len(Seen.latents))
"""


def test_every_setting_gives_the_same_numbers_and_decodes_one_stream_to_the_same_latents(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """The stream is made in the first process; and float networks differ, else this would show nothing."""
    found = {}
    for name, setting in SETTINGS.items():
        given = [json.dumps(folders), str(tmp_path / "x.pscx"), json.dumps(SHORT)]
        command = [sys.executable, "-W", "error", "-c", CODE, *given]
        done = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found[name] = done.stdout.splitlines()
    assert all(len(lines) == 4 for lines in found.values())
    exact = {(lines[0], *lines[2:]) for lines in found.values()}
    assert len(exact) == 1, found
    assert next(iter(exact))[2].endswith(" None 0")
    assert len({lines[1] for lines in found.values()}) > 1, found


def latent_codec(path: str, **options: Any) -> pscx.Codec:
    prior = {"name": "stable_diffusion", "path": path, "exact": True, "guidance": 3.0}
    return pscx.load_codec(prior=prior, **{**SHORT, **options})


FAMILIES: dict[str, Callable[[StableDiffusion], SignalCodec]] = {
    "turbo_ddcm": lambda prior: TurboDDCM(prior, level=LEVEL, steps=4),
    "diffc": lambda prior: DiffC(prior, level=LEVEL, steps=3, chunk=8, candidates=10),
}


@pytest.mark.parametrize("family", ["psc", *FAMILIES])
def test_nothing_that_a_decoder_follows_depends_on_the_autoencoder(
    family: str, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An autoencoder whose pixels are noise, and which encodes nothing: the same latents of the same streams."""
    path = folders["stable_diffusion"]
    prior = StableDiffusion(path, exact=True, guidance=3.0)
    codec = latent_codec(path) if family == "psc" else pscx.Codec(FAMILIES[family](prior))
    pixels = np.random.default_rng(1).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    data = codec.compress(pixels, caption="a cat")
    latents: list[Tensor] = []
    for noise in (False, True):

        def to_image(prior: LatentPrior, signal: Tensor, noise: bool = noise) -> Tensor:
            latents.append(signal)
            return torch.rand(1, 3, 16, 24) if noise else torch.zeros(1, 3, 16, 24)

        monkeypatch.setattr(LatentPrior, "to_image", to_image)
        monkeypatch.setattr(LatentPrior, "to_signal", None)
        pscx.Decompressor(prior_path=path).decompress(data)
    assert len(latents) == 2
    assert torch.equal(*latents)


def test_what_a_stream_says_of_an_exact_latent_prior(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That it is exact; and streams of the float prior say what they said before."""
    codec = latent_codec(folders["stable_diffusion"])
    assert codec.signal_codec.exact
    assert codec_spec(codec.signal_codec)["prior"]["exact"] is True
    plain = pscx.load_codec(prior={"name": "stable_diffusion", "path": folders["stable_diffusion"]}, **SHORT)
    assert "exact" not in codec_spec(plain.signal_codec)["prior"]
    assert not plain.signal_codec.exact
    (tmp_path / "x.pscx").write_bytes(codec.compress(np.zeros((16, 16, 3), np.uint8)))
    assert main(["info", str(tmp_path / "x.pscx")]) == 0
    assert "arithmetic      the same on every machine up to the latents; pixels may" in capsys.readouterr().out


def test_configurations_name_the_option(folders: dict[str, str]) -> None:
    prior = {"name": "stable_diffusion", "path": folders["stable_diffusion"], "exact": True, "dtype": "fp16"}
    with pytest.raises(ConfigError, match=r"prior\.dtype must be fp32: prior\.exact is true, got fp16"):
        pscx.load_codec(prior=prior, **SHORT)
