"""Convolutions on bytes: the same bits by oneDNN's operator and in float32, and files of 8-bit weights."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.exact import ExactConvolution, convolving, exact_on_bytes, make_exact
from pscx.exact.convolution import LIMIT, integers_of, whole_weights
from pscx.exact.integer import Packed, full_weight
from pscx.exact.network import check_digits
from pscx.exact.planes import PIECE, byte_planes, digits
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.base import WEIGHTS
from pscx.networks.whole_weights import output_axis
from pscx.priors import DDPM
from pscx.priors.denoiser import PixelDenoiser

CPU = torch.device("cpu")
PATHS: tuple[Literal["integer", "float32"], ...] = ("integer", "float32")
Convolution = nn.Conv2d | nn.ConvTranspose2d
needs_bytes = pytest.mark.skipif(not exact_on_bytes(CPU), reason="bytes are not multiplied exactly on this processor")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(make: Callable[[], Convolution]) -> Convolution:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().requires_grad_(False)


LAYERS: dict[str, Callable[[], Convolution]] = {
    "3x3": lambda: nn.Conv2d(40, 24, 3, padding=1),
    "odd channels": lambda: nn.Conv2d(13, 7, 3, padding=1, bias=False),
    "strided 2x2": lambda: nn.Conv2d(40, 16, 2, 2),
    "strided 3x3": lambda: nn.Conv2d(40, 16, 3, 2, padding=(1, 2)),
    "transposed": lambda: nn.ConvTranspose2d(40, 24, 2, 2),
    "transposed 1x3": lambda: nn.ConvTranspose2d(40, 24, (1, 3), (1, 3)),
    "1x1": lambda: nn.Conv2d(40, 24, 1),
    "several groups": lambda: nn.Conv2d(300, 8, 3, padding=1),
    "float32 alone": lambda: nn.ConvTranspose2d(40, 24, 3, 2, padding=1, output_padding=1),
    "dilated": lambda: nn.Conv2d(40, 8, 3, padding=2, dilation=2),
}


def sign_weights(layer: Convolution, seed: int = 1) -> None:
    """Weights of one magnitude, so that all integers are ±127."""
    layer.weight.copy_(random(*layer.weight.shape, seed=seed).sign() * 0.3)


def inputs(channels: int, height: int = 9, width: int = 13) -> dict[str, Tensor]:
    x = random(3, channels, height, width)
    return {
        "magnitudes": x * torch.tensor([1.0, 1e-3, 50.0])[:, None, None, None],
        "huge and tiny": x.clamp(-3, 3) * torch.tensor([1e38, 1e-25, 2.0**-100])[:, None, None, None],
        "a zero sample": x * torch.tensor([0.0, 1.0, 0.0])[:, None, None, None],
        "at the bound": x.sign() * 7.3,
        "one sample, channels first": x[:1].contiguous(),
        "more than a piece": random(1, channels, 64, 2 * PIECE // (64 * channels)),
    }


def both(exact: ExactConvolution, x: Tensor) -> tuple[Tensor, Tensor]:
    with convolving("integer"):
        found = exact(x)
    with convolving("float32"):
        return found, exact(x)


@needs_bytes
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_both_paths_give_the_same_bits(name: str, rectified: bool) -> None:
    for signs in (False, True):
        layer = built(LAYERS[name])
        if signs:
            sign_weights(layer)
        exact = ExactConvolution(layer, rectified=rectified)
        for x in inputs(layer.in_channels).values():
            bytes_, floats = both(exact, x.abs() if rectified else x)
            assert torch.equal(bytes_, floats)
            assert bytes_.is_contiguous(memory_format=torch.channels_last)
    if name == "several groups":
        assert len(exact.splits) > 1


def reference(exact: ExactConvolution, layer: Convolution, x: Tensor) -> Tensor:
    """The layer's definition in float64 sums and float32 steps, digit by digit."""
    assert exact.digits
    unit = x.abs().amax((1, 2, 3), keepdim=True).clamp_min(2.0**-100) / float(exact.digits.top)
    whole = (x * unit.reciprocal()).round().long()
    planes = [whole]
    if exact.digits.count == 2:
        high = (whole + 128) >> 8
        planes = [high, whole - 256 * high]
        assert max(int(plane.abs().max()) for plane in planes) <= 128
    weight = exact.weight.double()
    geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    total = torch.zeros(())
    for number, part in enumerate(exact.splits):
        own = weight[part] if exact.transposed else weight[:, part]
        operation = nn.functional.conv_transpose2d if exact.transposed else nn.functional.conv2d
        if isinstance(layer, nn.ConvTranspose2d):
            geometry["output_padding"] = layer.output_padding
        sums = [operation(plane[:, part].double(), own, **geometry) for plane in planes]
        assert max(float(one.abs().max()) for one in sums) < LIMIT
        group = sums[0].float()
        if len(sums) == 2:
            group = 256 * group + sums[1].float()
        total = group + total if number else group
    return total * (unit * exact.scale[:, None, None]) + exact.bias[:, None, None]


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_bytes_is_its_definition(name: str, rectified: bool) -> None:
    """On whichever path this processor takes, with sums that reach the bound."""
    layer = built(LAYERS[name])
    sign_weights(layer)
    exact = ExactConvolution(layer, rectified=rectified)
    for x in list(inputs(layer.in_channels).values())[:4]:
        x = x.abs() if rectified else x
        assert torch.equal(exact(x), reference(exact, layer, x))


@pytest.mark.parametrize("rectified", [False, True])
def test_bytes_hold_the_bound(rectified: bool) -> None:
    """Of raw bytes up to 255 and of digits within ±128; and one group less would exceed it."""
    layer = built(LAYERS["several groups"])
    sign_weights(layer)
    exact = ExactConvolution(layer, rectified=rectified)
    sums = exact.weight.flatten(2)
    positive, negative = sums.clamp_min(0).sum(2), (-sums).clamp_min(0).sum(2)
    rows = torch.cat([positive * 255, negative * 255, *([] if rectified else [(positive + negative) * 128])])
    assert all(float(rows[:, part].sum(1).max()) < LIMIT for part in exact.splits)
    fewer = rows.tensor_split(len(exact.splits) - 1, 1)
    assert max(float(part.sum(1).max()) for part in fewer) >= LIMIT


def test_bytes_are_balanced_digits_of_the_nearest_integer() -> None:
    check_digits(CPU)
    x = torch.tensor([0.0, -0.0, 0.5, 1.5, -0.5, -1.5, 127.5, 128.5, 32639.0, -32639.0]).view(1, 1, -1, 1)
    high, low = byte_planes(x, torch.ones(1, 1, 1), digits(16, False)).flatten().view(2, -1).long() - 128
    assert (256 * high + low).tolist() == [0, 0, 0, 2, 0, -2, 128, 128, 32639, -32639]
    assert digits(16, False).top == 32639
    assert (digits(8, False).top, digits(8, False).count) == (127, 1)
    assert (digits(16, True).top, digits(6, True).top) == (255, 63)
    bordered = byte_planes(x, torch.ones(1, 1, 1), digits(16, False), (1, 2))
    assert bordered.shape == (2, 1, 3, 14)
    assert bool((bordered[:, :, 0] == 128).all())
    assert bool((bordered[:, :, :, :2] == 128).all())
    assert torch.equal(bordered[:, :, 1, 2:-2].flatten().view(2, -1).long() - 128, torch.stack([high, low]))


@pytest.mark.parametrize("name", ["3x3", "transposed", "several groups"])
def test_what_follows_in_the_same_pass_changes_no_bit(name: str) -> None:
    layer = built(LAYERS[name])
    exact = ExactConvolution(layer)
    for x in inputs(layer.in_channels).values():
        wanted = exact(x)
        shortcut = random(*wanted.shape, seed=3)
        for form in (torch.contiguous_format, torch.channels_last):
            found = exact(x, rectify=True, shortcut=shortcut.contiguous(memory_format=form))
            assert torch.equal(found, wanted.relu() + shortcut)
        assert torch.equal(exact(x, rectify=True), wanted.relu())
        assert torch.equal(exact(x, shortcut=shortcut), wanted + shortcut)


@needs_bytes
@pytest.mark.parametrize("bits", [(8, 8), (7, 12), (5, 4)])
def test_fewer_bits_give_the_same_bits_on_both_paths(bits: tuple[int, int]) -> None:
    for rectified in (False, True):
        exact = ExactConvolution(built(LAYERS["3x3"]), *bits, rectified=rectified)
        x = inputs(40)["magnitudes"]
        assert torch.equal(*both(exact, x.abs() if rectified else x))


@needs_bytes
def test_packed_weights_follow_the_weights() -> None:
    """Changed in place, replaced, copied, pickled, moved: no result of old weights."""
    exact, x = ExactConvolution(built(LAYERS["3x3"])), inputs(40)["magnitudes"]
    first = both(exact, x)[0]
    exact.weight.neg_()
    found = both(exact, x)
    assert torch.equal(*found)
    assert not torch.equal(found[0], first)
    for other in (copy.deepcopy(exact), pickle.loads(pickle.dumps(exact)), exact.to("cpu")):
        assert torch.equal(both(other, x)[0], found[0])
    exact.weight = exact.weight * 0
    assert torch.equal(*both(exact, x))
    with torch.inference_mode():
        exact.weight = exact.weight + 1
        before = both(exact, x)[0]
        exact.weight += 1
        found = both(exact, x)
        assert torch.equal(*found)
        assert not torch.equal(found[0], before)
    assert "packs" not in dict(exact.state_dict())


@needs_bytes
def test_the_shipped_prior_is_the_same_on_both_paths() -> None:
    """Both of its networks, batches, odd sizes in its stride, and the fingerprint."""
    prior = DDPM(exact=True)
    mark = prior.fingerprint()
    for level in (0.05, 1.0):
        x = random(2, 3, 5 * prior.stride, 2 * prior.stride)
        found = []
        for path in PATHS:
            with convolving(path):
                found.append(prior.denoise(x, level))
        assert torch.equal(*found)
        assert torch.equal(prior.denoise(x, level), found[0])
    assert prior.fingerprint() == mark == DDPM(exact=True).fingerprint()


CODE = """
import hashlib, torch
from pscx.exact import exact_on_bytes
from pscx.priors import DDPM
x = torch.randn(2, 3, 80, 32, generator=torch.Generator().manual_seed(0))
prior = DDPM(exact=True)
found = torch.cat([prior.denoise(x, level) for level in (0.05, 1.0)])
print(exact_on_bytes(torch.device("cpu")), hashlib.sha256(found.numpy().tobytes()).hexdigest())
"""


def run(isa: str) -> list[str]:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_bytes
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_processors_that_saturate_are_found_and_give_the_same_bits(isa: str) -> None:
    exact, mark = run(isa)
    prior, x = DDPM(exact=True), random(2, 3, 80, 32)
    found = torch.cat([prior.denoise(x, level) for level in (0.05, 1.0)])
    assert exact == "False"
    assert mark == hashlib.sha256(found.numpy().tobytes()).hexdigest()


@pytest.fixture
def afresh() -> Iterator[None]:
    exact_on_bytes.cache_clear()
    yield
    exact_on_bytes.cache_clear()


@needs_bytes
@pytest.mark.usefixtures("afresh")
def test_sums_that_saturate_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``vpmaddubsw`` does: products of adjacent channels are added in 16 bits."""
    plain = Packed.__call__

    def saturating(self: Packed, plane: Tensor) -> Tensor:
        return plain(self, plane).clamp(-(2.0**15) * 28, 2.0**15 * 28)

    monkeypatch.setattr(Packed, "__call__", saturating)
    assert not exact_on_bytes(CPU)
    with pytest.raises(PscxError, match="convolutions of bytes are not exact on this processor"), convolving("integer"):
        pass


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_without_the_operator_float32_does_it(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise error("no such operator")

    monkeypatch.setattr(Packed, "__init__", missing)
    assert not exact_on_bytes(CPU)
    exact, x = ExactConvolution(built(LAYERS["3x3"])), inputs(40)["magnitudes"]
    found = exact(x)
    with convolving("float32"):
        assert torch.equal(exact(x), found)


def test_weights_of_the_check_reach_the_bound_and_stay_within_it() -> None:
    for inputs_, size in ((13, 3), (96, 3), (192, 3)):
        weight = full_weight(inputs_, 16, size)
        assert set(weight.unique().tolist()) <= {-127, 0, 127}
        assert int(weight.abs().flatten(1).sum(1).max()) * 255 < LIMIT
        pairs = weight[:, : inputs_ // 2 * 2].unflatten(1, (-1, 2))
        assert bool(((pairs == 127).all(2)).any())
        assert bool(((pairs == -127).all(2)).any())


def test_a_path_must_have_a_name() -> None:
    with pytest.raises(ValueError, match="must be integer or float32, got bytes"), convolving("bytes"):  # type: ignore[arg-type]
        pass


# Files


def quantized(folder: Path) -> dict[str, Tensor]:
    """A network on disk whose convolutions but the first are int8, not all of which reach 127; its tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NoiseExperts(block_out_channels=(16, 24), blocks=(1, 1), switch=0.5)
        for expert in (network.low, network.high):
            nn.init.normal_(expert.tail.weight, std=0.05)
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(network, schedule).save(folder)
    weights = load_file(folder / "unet" / WEIGHTS)
    layers = dict(network.named_modules())
    for name, tensor in list(weights.items()):
        if name.endswith(".weight") and "head" not in name:
            whole, scale = whole_weights(tensor.double(), output_axis(layers[name.removesuffix(".weight")]), 8)
            weights |= {name: (whole / 1.3).round().to(torch.int8), f"{name}_scale": scale.float()}
    save_file(weights, folder / "unet" / WEIGHTS)
    return weights


def test_whole_weights_are_loaded_used_and_written_as_they_are(tmp_path: Path) -> None:
    stored = quantized(tmp_path / "one")
    network = NoiseExperts.from_pretrained(tmp_path / "one" / "unet")
    name = "low.grow.0.weight"
    wanted = stored[name].float() * stored[f"{name}_scale"][None, :, None, None]
    assert torch.equal(network.get_parameter(name), wanted)
    assert network.dtype == torch.float32
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.to("cpu")):
        made = copy.deepcopy(other)
        make_exact(made)
        for key in ("low.grow.0", "high.tail", "low.body.0.first"):
            assert torch.equal(made.get_buffer(f"{key}.weight"), stored[f"{key}.weight"].float())
            assert torch.equal(made.get_buffer(f"{key}.scale"), stored[f"{key}.weight_scale"])
    denoiser = DDPM(str(tmp_path / "one")).denoiser
    assert isinstance(denoiser, PixelDenoiser)
    denoiser.save(tmp_path / "two")
    again = load_file(tmp_path / "two" / "unet" / WEIGHTS)
    assert again.keys() == stored.keys()
    assert all(again[key].dtype == stored[key].dtype and torch.equal(again[key], stored[key]) for key in stored)
    marks = {DDPM(str(tmp_path / place), exact=True).fingerprint() for place in ("one", "two")}
    assert len(marks) == 1
    if exact_on_bytes(CPU):
        prior, x, found = DDPM(str(tmp_path / "one"), exact=True), random(1, 3, 16, 16), []
        for path in PATHS:
            with convolving(path):
                found.append(prior.denoise(x, 0.3))
        assert torch.equal(*found)


def test_weights_that_were_trained_are_written_as_before(tmp_path: Path) -> None:
    quantized(tmp_path)
    network = NoiseExperts.from_pretrained(tmp_path / "unet")
    with torch.no_grad():
        network.low.tail.weight[0, 0, 0, 0] += 1e-6
    network.save_pretrained(tmp_path / "trained")
    weights = load_file(tmp_path / "trained" / WEIGHTS)
    assert weights["low.tail.weight"].dtype == torch.float32
    assert "low.tail.weight_scale" not in weights
    assert weights["high.tail.weight"].dtype == torch.int8
    whole, scale = integers_of(network.low.tail, 8)
    assert torch.equal(whole, whole_weights(network.low.tail.weight.detach().double(), 0, 8)[0])
    assert len(scale) == 12


def without(*names: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: [weights.pop(name) for name in names]


def becomes(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda weights: weights.update({name: change(weights[name]).contiguous()})


TAIL = "low.tail.weight"
DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no scale": (without(f"{TAIL}_scale"), "low.tail.weight are of 8 bits and need low.tail.weight_scale, which is"),
    "no weight": (without(TAIL), "has no weights for low.tail.weight"),
    "short": (
        becomes(f"{TAIL}_scale", lambda s: s[:-1]),
        r"weight_scale must be of shape \(12,\) float32, got \(11,\)",
    ),
    "half": (
        becomes(f"{TAIL}_scale", lambda s: s.half()),
        r"weight_scale must be of shape \(12,\) float32, got .* float16",
    ),
    "zero": (becomes(f"{TAIL}_scale", lambda s: s * 0), "weight_scale must hold numbers over 0 that are finite"),
    "infinite": (becomes(f"{TAIL}_scale", lambda s: s / 0), "weight_scale must hold numbers over 0 that are finite"),
    "beyond": (becomes(TAIL, lambda w: w * 0 - 128), "low.tail.weight must lie within ±127, got -128"),
    "bias": (
        becomes("low.tail.bias", lambda b: b.to(torch.int8)),
        "low.tail.bias must not be of 8 bits: only those of",
    ),
    "shape": (becomes(TAIL, lambda w: w[:, :-1]), r"low.tail.weight in .* must be of shape \(12, 16, 3, 3\), got"),
    "axes": (becomes(TAIL, lambda w: w.flatten(1)), r"low.tail.weight must be of shape \(12, 16, 3, 3\), got \(12,"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whole_weights_that_are_wrong_are_one_sentence(damage: str, tmp_path: Path) -> None:
    weights = quantized(tmp_path)
    change, part = DAMAGE[damage]
    change(weights)
    save_file(weights, tmp_path / "unet" / WEIGHTS)
    with pytest.raises(FileNotFoundError, match=part) as caught:
        DDPM(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_network_without_whole_weights_is_written_as_before(tmp_path: Path) -> None:
    network = ResidualUNet(block_out_channels=(8,), blocks=(1,)).half()
    network.save_pretrained(tmp_path)
    weights, state = load_file(tmp_path / WEIGHTS), network.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
