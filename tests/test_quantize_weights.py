"""Rounding of a prior's weights to eight bits."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import Tensor, nn

from pscx.networks import NoiseExperts
from pscx.priors.denoiser import PixelDenoiser
from pscx.training import QuantizeWeights
from pscx.training.quantize_weights import convolutions, patches
from pscx.training.second_order import round_weights

TOP = 127


def layer_and_inputs(correlation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(8, 200)``, their scale, and the second moments of inputs that are correlated along the row."""
    draws = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 200, generator=draws)
    scale = weights.abs().amax(1) / 7
    place = torch.arange(200.0)
    return weights, scale, correlation ** (place[:, None] - place).abs()


def error(weights: Tensor, scale: Tensor, whole: Tensor, moments: Tensor) -> float:
    off = weights.double() - scale.double()[:, None] * whole
    return float(((off @ moments.double()) * off).sum())


def test_inputs_that_are_not_correlated_leave_rounding_to_the_nearest() -> None:
    weights, scale, _ = layer_and_inputs(0.5)
    moments = torch.diag(torch.rand(200, generator=torch.Generator().manual_seed(1)) + 0.1)
    whole = round_weights(weights, scale, moments, TOP)
    assert torch.equal(whole, (weights.double() / scale.double()[:, None]).round())


def test_correlated_inputs_err_less_than_rounding_to_the_nearest() -> None:
    weights, scale, moments = layer_and_inputs(0.9)
    nearest = (weights.double() / scale.double()[:, None]).round()
    whole = round_weights(weights, scale, moments, TOP)
    assert torch.equal(whole, whole.round())
    assert error(weights, scale, whole, moments) < 0.35 * error(weights, scale, nearest, moments)


def test_one_row_is_as_good_as_the_best_of_all_roundings() -> None:
    """Of three weights the eight roundings up or down can be tried; the damping may cost a little."""
    weights, scale, moments = torch.tensor([[0.4, 0.45, 2.3]]), torch.ones(1), torch.full((3, 3), 0.95)
    moments.fill_diagonal_(1.0)
    low = weights.floor()
    tried = [low + torch.tensor([[float(i & 1), float(i >> 1 & 1), float(i >> 2)]]) for i in range(8)]
    best = min(error(weights, scale, whole.double(), moments) for whole in tried)
    assert error(weights, scale, round_weights(weights, scale, moments, TOP), moments) <= best * 1.01


def test_inputs_that_are_always_zero_are_no_error() -> None:
    weights, scale, _ = layer_and_inputs(0.5)
    whole = round_weights(weights, scale, torch.zeros(200, 200), TOP)
    assert torch.equal(whole, (weights.double() / scale.double()[:, None]).round())


def test_integers_stay_within_the_largest() -> None:
    weights, _, moments = layer_and_inputs(0.99)
    whole = round_weights(weights, torch.full((8,), 0.1), moments, 3)
    assert whole.abs().max() == 3


def test_products_with_patches_are_what_a_layer_computes() -> None:
    given = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    for layer in (nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 2, 2)):
        found = layer.weight.flatten(1) @ patches(layer, given)
        wanted = nn.functional.conv2d(given, layer.weight, None, layer.stride, layer.padding)
        torch.testing.assert_close(found, wanted.movedim(1, 0).flatten(1))
    turned = nn.ConvTranspose2d(3, 4, 2, 2)
    found = turned.weight.permute(1, 2, 3, 0).flatten(0, 2) @ patches(turned, given)  # (out * 4, batch * positions)
    wanted = nn.functional.conv_transpose2d(given, turned.weight, None, 2)
    blocks = wanted.reshape(2, 4, 6, 2, 8, 2).permute(1, 3, 5, 0, 2, 4)
    torch.testing.assert_close(found, blocks.reshape(16, -1))


def test_layers_that_no_crop_went_through_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    """Of two experts one is asked; ranks that saw different ones still add up the same layers."""
    network = NoiseExperts(block_out_channels=(8, 8), blocks=(1, 1), switch=0.5)
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    PixelDenoiser(network, schedule).save(tmp_path / "given")
    module = QuantizeWeights(str(tmp_path / "given"))
    before = copy.deepcopy(module.denoiser.network)
    module.on_train_start()
    names = [name for name, _ in convolutions(before)]
    assert list(module.moments) == names
    module.denoiser.denoise(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 0.1)
    assert [name for name, moments in module.moments.items() if moments.any()] == [n for n in names if "low" in n]
    module._trainer = SimpleNamespace(world_size=1, is_global_zero=True, default_root_dir=tmp_path)  # type: ignore[assignment]
    module.on_train_end()
    stored = load_file(tmp_path / "prior" / "unet" / "diffusion_pytorch_model.safetensors")
    weight, scale = before.get_parameter("high.body.0.first.weight"), stored["high.body.0.first.weight_scale"]
    assert torch.equal(stored["high.body.0.first.weight"], (weight / scale[:, None, None, None]).round().to(torch.int8))
    assert {stored[f"{name}.weight"].dtype for name in names} == {torch.int8}
