"""Exact layers: integers within the bound, close to the layers they stand for, the same bits in every setting."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from machine_settings import INSTRUCTION_SETS
from torch import Tensor, nn

from pscx.data.folder import BUNDLED
from pscx.errors import PscxError
from pscx.exact import ExactConvolution, ExactResidualBlock, convolving, ordered_mean, plain_convolutions, square_root
from pscx.exact.convolution import LIMIT, splits, whole_weights
from pscx.exact.network import check_convolutions, int64_convolution
from pscx.images import read_image, to_tensor
from pscx.networks import NoiseExperts, ResidualUNet
from pscx.networks.residual_unet import ResidualBlock
from pscx.priors import DDPM
from pscx.priors.denoiser import PixelDenoiser


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers() -> list[nn.Conv2d | nn.ConvTranspose2d]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            nn.Conv2d(40, 24, 3, padding=1),
            nn.Conv2d(40, 16, 2, 2),
            nn.Conv2d(40, 8, 3, padding=2, dilation=2, bias=False),
            nn.ConvTranspose2d(40, 24, 2, 2),
            nn.ConvTranspose2d(40, 24, 3, 2, padding=1, output_padding=1),
        ]


@pytest.mark.parametrize("layer", layers(), ids=str)
def test_an_exact_layer_is_the_layer_on_rounded_numbers(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Against the formula in float64, where integers of this size are exact as well."""
    layer = layer.requires_grad_(False)
    exact = ExactConvolution(layer, weight_bits=9, activation_bits=11)
    assert len(exact.splits) > 1
    x = random(3, 40, 9, 12) * torch.tensor([1.0, 1e-3, 50.0])[:, None, None, None]
    output = 1 if exact.transposed else 0
    whole, scale = whole_weights(layer.weight.double(), output, 9)
    unit = x.abs().amax((1, 2, 3), keepdim=True) / 1023
    rounded = (x * unit.reciprocal()).round().double()
    weights = [whole[part] if exact.transposed else whole[:, part] for part in exact.splits]
    sums = [exact.convolve(rounded[:, part], own) for part, own in zip(exact.splits, weights, strict=True)]
    assert max(float(one.abs().max()) for one in sums) < LIMIT
    total = sums[0].float()
    for one in sums[1:]:
        total = total + one.float()
    bias = torch.zeros(len(scale)) if layer.bias is None else layer.bias
    assert torch.equal(exact(x), total * (unit * scale.float()[:, None, None]) + bias[:, None, None])
    error = (exact(x) - layer(x)).square().mean((1, 2, 3)) / layer(x).square().mean((1, 2, 3))
    assert float(error.max()) < 2e-5


def hardest(exact: ExactConvolution, part: slice) -> Tensor:
    """One image whose activations follow the signs of the largest output channel's weights, ``(1, part, k, k)``."""
    weight = exact.weight.movedim(1, 0) if exact.transposed else exact.weight
    worst = weight[:, part].abs().flatten(1).sum(1).argmax()
    return (weight[worst, part].sign() * exact.top)[None]


@pytest.mark.parametrize("layer", layers(), ids=str)
def test_every_group_of_channels_stays_within_the_bound_and_is_needed(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    exact = ExactConvolution(layer.requires_grad_(False), 9, 11)
    weight = exact.weight.movedim(1, 0) if exact.transposed else exact.weight
    for part in exact.splits:
        assert float(weight[:, part].abs().flatten(1).sum(1).max()) * 1023 < LIMIT
    assert len(exact.splits) > 1
    assert float(weight.abs().flatten(1).sum(1).max()) * 1023 >= LIMIT


@pytest.mark.parametrize("layer", layers(), ids=str)
def test_worst_inputs_agree_with_integers(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Sums that come as near to 2^24 as the weights allow, against float64, which holds integers up to 2^53."""
    exact = ExactConvolution(layer.requires_grad_(False), 9, 11)
    for part in exact.splits:
        whole = torch.zeros(17, 40, *exact.weight.shape[2:])
        whole[:, part] = hardest(exact, part)
        whole -= torch.arange(17.0)[:, None, None, None] * whole.sign()
        whole = whole.contiguous(memory_format=torch.channels_last)
        found = exact.convolved(whole[:, part], part)
        weight = exact.weight[part] if exact.transposed else exact.weight[:, part]
        assert torch.equal(found.double(), exact.convolve(whole[:, part].double(), weight.double()))
        if exact.transposed or layer.dilation[0] > 1:
            continue
        assert float(found.abs().max()) == float(weight.abs().flatten(1).sum(1).max()) * 1023


def test_behind_a_relu_each_sign_of_the_weights_has_the_bound_to_itself() -> None:
    """Activations at the top for the positive weights of an output alone, then for the negative alone."""
    layer = layers()[0].requires_grad_(False)
    exact, plain = ExactConvolution(layer, 9, 11, rectified=True), ExactConvolution(layer, 9, 11)
    assert 1 < len(exact.splits) < len(plain.splits)
    sums = []
    for part in exact.splits:
        weight = exact.weight[:, part]
        for signed in (weight.clamp_min(0), (-weight).clamp_min(0)):
            worst = signed.flatten(1).sum(1).argmax()
            whole = (signed[worst] > 0)[None] * exact.top
            found = exact.convolved(whole, part)
            assert torch.equal(found.double(), exact.convolve(whole.double(), weight.double()))
            sums.append(float(found.abs().max()))
            assert sums[-1] == float(signed.flatten(1).sum(1).max()) * 1023 < LIMIT
    assert max(sums) > LIMIT / 2
    x = random(2, 40, 9, 12).relu()
    error = (exact(x) - layer(x)).square().mean() / layer(x).square().mean()
    assert float(error) < 2e-5


def test_a_residual_block_is_its_layers_one_after_another() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = ResidualBlock(24).requires_grad_(False)
    exact, x = ExactResidualBlock(block), random(2, 24, 8, 8)
    before = x.clone()
    expected = x + exact.second(exact.first(x).relu())
    assert torch.equal(exact(x), expected)
    assert torch.equal(x, before)
    error = (exact(x) - block(x)).square().mean() / block(x).square().mean()
    assert float(error) < 1e-4


@pytest.mark.parametrize(("transposed", "stride"), [(False, 1), (False, 2), (True, 2)])
def test_the_integer_reference_is_a_convolution(transposed: bool, stride: int) -> None:
    """Against torch's own in float64; without this the check of a machine would compare with nothing."""
    image, weight = (random(2, 3, 6, 7) * 50).round(), (random(3, 3, 2, 2, seed=1) * 50).round()
    plain = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
    expected = plain(image.double(), weight.double(), stride=stride)
    assert torch.equal(int64_convolution(image, weight, stride, transposed).double(), expected)


def test_splits_are_the_fewest_that_fit_and_cover_every_channel() -> None:
    sizes = torch.full((2, 10), 3.0)
    assert splits(sizes * ((LIMIT - 1) // 30)) == [slice(0, 10)]
    assert splits(sizes * (LIMIT // 30 + 1)) == [slice(0, 5), slice(5, 10)]
    assert splits(sizes * (LIMIT // 10)) == [slice(0, 2), slice(2, 5), slice(5, 7), slice(7, 10)]
    with pytest.raises(ValueError, match="sums over one channel's weights alone reach"):
        splits(sizes * (LIMIT // 3 + 1))


def test_a_sample_does_not_see_its_batch() -> None:
    exact = ExactConvolution(layers()[0].requires_grad_(False))
    x = random(5, 40, 8, 8) * torch.arange(1.0, 6.0)[:, None, None, None]
    together = exact(x)
    for i in range(5):
        assert torch.equal(exact(x[i : i + 1])[0], together[i])
    assert torch.equal(exact(x.to(memory_format=torch.channels_last)), together)
    zero = exact(torch.zeros(1, 40, 8, 8))
    assert torch.equal(zero, exact.bias[:, None, None].expand_as(zero[0])[None])


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("least", [1, 16])
def test_convolutions_that_round_are_found(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either kind of layer, and where a library rounds large batches alone."""
    plain = getattr(nn.functional, name)

    def rounding(x: Tensor, weight: Tensor, **geometry: object) -> Tensor:
        result: Tensor = plain(x.bfloat16().float() if len(x) >= least else x, weight, **geometry)
        return result

    check_convolutions.cache_clear()
    check_convolutions(torch.device("cpu"))
    check_convolutions.cache_clear()
    monkeypatch.setattr(nn.functional, name, rounding)
    with pytest.raises(PscxError, match="float32 convolutions of integers are not exact on cpu"):
        check_convolutions(torch.device("cpu"))
    check_convolutions.cache_clear()


def test_no_library_that_rounds_may_convolve(residual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a layer by itself and in a prior; until the last to ask for it is done, whatever happens."""
    plain, flags, seen, switched = nn.functional.conv2d, torch.backends.nnpack.flags, [], []

    def watched(x: Tensor, weight: Tensor, **geometry: Any) -> Tensor:
        seen.append(torch.backends.cudnn.enabled)
        return plain(x, weight, **geometry)

    def counted(enabled: bool) -> AbstractContextManager[None]:
        switched.append(enabled)
        return flags(enabled)

    monkeypatch.setattr(torch.backends.nnpack, "flags", counted)
    monkeypatch.setattr(nn.functional, "conv2d", watched)
    layer, prior = ExactConvolution(layers()[0].requires_grad_(False)), DDPM(str(residual), exact=True)
    with convolving("float32"):
        layer(random(1, 40, 8, 8))
        assert len(seen) == 2 * len(layer.splits)
        prior.denoise(torch.zeros(1, 3, 16, 16), 0.1)
        switched.clear()
        prior.denoise(torch.zeros(1, 3, 16, 16), 0.1)
    assert len(seen) > 10
    assert switched == [False]  # once for all layers
    assert not any(seen)
    assert torch.backends.cudnn.enabled
    with plain_convolutions():
        with pytest.raises(ZeroDivisionError), plain_convolutions():
            raise ZeroDivisionError
        assert not torch.backends.cudnn.enabled
    with pytest.raises(ZeroDivisionError), plain_convolutions():
        raise ZeroDivisionError
    assert torch.backends.cudnn.enabled
    with plain_convolutions():
        assert not torch.backends.cudnn.enabled


def test_no_thread_switches_them_on_for_another() -> None:
    """One enters, another enters, the first leaves: they stay off until the other has left."""
    entered, leave = threading.Event(), threading.Event()
    states: list[bool] = []

    def other() -> None:
        with plain_convolutions():
            entered.set()
            leave.wait(60)
            with plain_convolutions():
                states.append(torch.backends.cudnn.enabled)
            states.append(torch.backends.cudnn.enabled)

    thread = threading.Thread(target=other)
    with plain_convolutions():
        thread.start()
        assert entered.wait(60)
    assert not torch.backends.cudnn.enabled
    leave.set()
    thread.join(60)
    assert states == [False, False]
    assert torch.backends.cudnn.enabled


def test_a_prior_checks_the_machine_before_it_computes(residual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.functional.conv2d
    prior = DDPM(str(residual), exact=True)
    check_convolutions.cache_clear()
    monkeypatch.setattr(nn.functional, "conv2d", lambda x, w, **kw: plain(x.bfloat16().float(), w, **kw))
    with pytest.raises(PscxError, match="not exact on cpu"):
        prior.denoise(torch.zeros(1, 3, 16, 16), 0.1)
    check_convolutions.cache_clear()


def test_options_out_of_range() -> None:
    wrong: list[dict[str, Any]] = [{"weight_bits": 1}, {"activation_bits": 17}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"exact\.\w+ must lie in 2\.\.16"):
            ExactConvolution(layers()[0], **options)
    with pytest.raises(ValueError, match="one group of channels"):
        ExactConvolution(nn.Conv2d(4, 4, 3, groups=2))


def test_ordered_mean_does_not_depend_on_how_it_is_cut() -> None:
    parts = random(7, 100, seed=3).double()
    whole = ordered_mean([parts])
    assert torch.equal(whole, ordered_mean([parts[:3], parts[3:4], parts[4:]]))
    torch.testing.assert_close(whole, parts.mean(0), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="at least one part"):
        ordered_mean([])


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual prior with random weights that do something at every noise level."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ResidualUNet(block_out_channels=(32, 48), blocks=(1, 2))
        nn.init.normal_(network.tail.weight, std=0.05)
    folder = tmp_path_factory.mktemp("residual")
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(network, schedule).save(folder)
    return folder


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, each for its own noise levels, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = NoiseExperts(block_out_channels=(32, 48), blocks=(1, 2), switch=0.5)
        for expert in (network.low, network.high):
            nn.init.normal_(expert.tail.weight, std=0.05)
    folder = tmp_path_factory.mktemp("experts")
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(network, schedule).save(folder)
    return folder


@pytest.mark.parametrize("name", ["residual", "experts"])
def test_an_exact_prior_is_close_to_the_float_one_and_known_by_its_fingerprint(
    name: str, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(name))
    plain, exact = DDPM(folder), DDPM(folder, exact=True)
    x = random(2, 3, 16, 24).double()
    for sigma in plain.levels[[5, 300, 900]].tolist():
        noisy = x * (1 + sigma**2) ** 0.5
        expected = plain.denoise(noisy, sigma)
        error = (exact.denoise(noisy, sigma) - expected).square().mean() / (expected - x).square().mean()
        assert 0 < float(error) < 1e-3
    assert plain.fingerprint() != exact.fingerprint()


@pytest.mark.parametrize("level", [0.02, 0.05, 0.1, 0.2, 0.5, 1.5])
def test_the_shipped_prior_denoises_as_well_when_it_is_exact(level: float) -> None:
    """Squared error on photographs at most 1.5 % larger."""
    plain, exact = DDPM(), DDPM(exact=True)
    images = torch.cat([to_tensor(read_image(file)[32:96, 32:96]) for file in sorted(BUNDLED.glob("*.png"))])
    x = (images + level * random(*images.shape)).float()
    expected, found = (float((prior.denoise(x, level) - images).square().mean()) for prior in (plain, exact))
    assert expected != found
    assert found < 1.015 * expected


SETTINGS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, samples one by one": {"OMP_NUM_THREADS": "2", "PSCX_TEST_BATCH": "1"},
    "no vectors": INSTRUCTION_SETS["SSE41"],
    "avx2": {**INSTRUCTION_SETS["AVX2"], "PSCX_TEST_BATCH": "3"},
}
CODE = """
import os, sys, numpy as np, pscx, hashlib
from pscx.format.container import unpack
pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8).repeat(4, 0).repeat(4, 1)[:, :41]
batch = int(os.environ.get("PSCX_TEST_BATCH", "4"))
options = dict(sampler={"steps": 3}, restoration_sampler={"steps": 3}, iterations=4, batch=batch)
prior = {"name": "ddpm", "path": sys.argv[1], "exact": sys.argv[2] == "exact"}
codec = pscx.load_codec(prior=prior, **options)
simulation = codec.simulate(pixels)
payload = unpack(simulation.data)[1]  # the header names the batch
print(hashlib.sha256(payload).hexdigest(), hashlib.sha256(simulation.pixels.tobytes()).hexdigest())
"""


def outcomes(residual: Path, mode: str, settings: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in settings:
        command = [sys.executable, "-c", CODE, str(residual), mode]
        environment = {**os.environ, **SETTINGS[name]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
        found[name] = done.stdout
    return found


def test_every_setting_of_the_machine_gives_the_same_stream_and_pixels(residual: Path) -> None:
    found = outcomes(residual, "exact", SETTINGS)
    assert len(set(found.values())) == 1, found


def test_floats_differ_between_settings(residual: Path) -> None:
    """Else the test above would show nothing."""
    assert len(set(outcomes(residual, "float", ["one thread", "no vectors"]).values())) > 1


def test_square_roots_are_rounded_correctly() -> None:
    """As the mathematical library of C does it, which IEEE 754 binds."""
    values = torch.arange(1, 2000, dtype=torch.float64) * 12345.0 / 2**40
    for value, root in zip(values.tolist(), square_root(values).tolist(), strict=True):
        assert root == math.sqrt(value)
    assert square_root(torch.tensor(2.0, dtype=torch.float64)).shape == ()
