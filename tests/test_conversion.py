"""Converted ADM and EDM networks, against ADM written out (:mod:`adm`); the layout of ``google/ddpm-*``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adm import Draw, edm, guided_diffusion
from diffusers import DDPMScheduler, EDMEulerScheduler, UNet2DModel
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from safetensors.torch import load_file, save_file
from torch import Tensor

import pscx
from pscx.cli.main import main
from pscx.priors import DDPM
from pscx.priors.conversion.edm import main as convert_edm
from pscx.priors.conversion.guided_diffusion import main as convert_adm
from pscx.priors.denoiser import load_denoiser

SMALL: dict[str, Any] = {"widths": (32, 64), "blocks": 1, "attention": (1,), "head": 16}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "imagenet 256": (SMALL, []),
    "three levels": ({"widths": (32, 32, 64), "blocks": 2, "attention": (1, 2), "head": 16}, []),
    "new order, classes": (
        {**SMALL, "new_order": True, "classes": 5, "label": 3},
        ["--new-attention-order", "--label", "3", "--schedule", "cosine"],
    ),
    "convolutions resample": ({**SMALL, "updown": False}, []),
}
WIDE: dict[str, Any] = {"side": 8, "widths": (128, 128), "blocks": 1, "attention": (1,)}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_adm(case: str, tmp_path: Path) -> None:
    """``E[x0 | x]`` from the noise that the published network predicts, at the step of the level."""
    network, options = CASES[case]
    draw, x, step = Draw(1), random(2, 3, 8, 16), 400
    guided_diffusion(draw, x.float(), torch.tensor([step, step]), **network)
    torch.save(draw.weights, tmp_path / "adm.pt")
    assert convert_adm([str(tmp_path / "adm.pt"), str(tmp_path / "adm"), "--head-channels", "16", *options]) == 0
    prior = DDPM(str(tmp_path / "adm"))
    sigma = prior.levels[step].item()
    noise = guided_diffusion(draw, (x / (1 + sigma**2) ** 0.5).float(), torch.tensor([step, step]), **network)[:, :3]
    wanted = x - sigma * noise.double()
    torch.testing.assert_close(prior.denoise(x, sigma), wanted, rtol=0, atol=1e-4 * sigma)
    assert prior.stride == 2 ** (len(network["widths"]) - 1)
    betas = "squaredcos_cap_v2" if "cosine" in options else "linear"
    shares = DDPMScheduler(beta_schedule=betas).alphas_cumprod.double()
    torch.testing.assert_close(prior.levels, ((1 - shares) / shares).sqrt(), rtol=1e-6, atol=0)


def save_edm(folder: Path, network: dict[str, Any], **about: Any) -> list[str]:
    """What EDM's own code base would write, with random weights; returns the converter's arguments."""
    draw = Draw(2)
    edm(draw, torch.zeros(1, 3, 8, 8), torch.zeros(1), **network)
    save_file({key: value.contiguous() for key, value in draw.weights.items()}, folder / "edm.safetensors")
    options = {"class": "EDMPrecond", "options": {"model_type": "DhariwalUNet", "img_resolution": 8}, **about}
    (folder / "edm.json").write_text(json.dumps(options))
    return [str(folder / "edm.safetensors"), str(folder / "edm.json"), str(folder / "edm")]


@pytest.mark.parametrize("label", [None, 4])
def test_edm(label: int | None, tmp_path: Path) -> None:
    """``D = c_skip x + c_out F(c_in x, ln(sigma) / 4)``, and one step of diffusers' own scheduler of EDM."""
    network = WIDE if label is None else {**WIDE, "classes": 7, "label": label}
    args = save_edm(tmp_path, network)
    assert convert_edm(args if label is None else [*args, "--label", str(label)]) == 0
    prior = DDPM(str(tmp_path / "edm"))
    draw, x = Draw(2), random(2, 3, 8, 8)
    draw.weights = load_file(tmp_path / "edm.safetensors")
    for sigma in (0.03, 1.7, 20.0):
        power = sigma**2 + 0.25
        told = torch.full((2,), np.log(sigma) / 4, dtype=torch.float32)
        output = edm(draw, (x / power**0.5).float(), told, **network).double()
        wanted = 0.25 / power * x + 0.5 * sigma / power**0.5 * output
        torch.testing.assert_close(prior.denoise(x, sigma), wanted, rtol=0, atol=2e-5)
    assert prior.continuous
    assert (prior.levels[0].item(), prior.levels[-1].item()) == pytest.approx((0.002, 80.0))
    assert not hasattr(prior, "label")


def test_a_step_of_edms_scheduler(tmp_path: Path) -> None:
    """From the same state, the state that diffusers' Euler step reaches is that of our ``x0``."""
    assert convert_edm(save_edm(tmp_path, WIDE)) == 0
    prior, x = DDPM(str(tmp_path / "edm")), random(1, 3, 8, 8)
    scheduler = EDMEulerScheduler.from_pretrained(tmp_path / "edm" / "scheduler")
    network = UNet2DModel.from_pretrained(tmp_path / "edm" / "unet", low_cpu_mem_usage=False)
    scheduler.set_timesteps(4)
    sigma, after = scheduler.sigmas[0].item(), scheduler.sigmas[1].item()
    x = sigma * x
    t = scheduler.timesteps[0]
    with torch.no_grad():
        output = network(scheduler.scale_model_input(x, t).float(), t).sample
    wanted = scheduler.step(output, t, x).prev_sample
    x0 = prior.denoise(x, sigma)
    torch.testing.assert_close(x + (after - sigma) / sigma * (x - x0), wanted.double(), rtol=0, atol=1e-3)


def test_a_converted_network_in_a_codec(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    """Both kinds: compressed, and decompressed by another object from the folder; ``test`` by the command line."""
    torch.save(drawn(SMALL), tmp_path / "adm.pt")
    assert convert_adm([str(tmp_path / "adm.pt"), str(tmp_path / "adm"), "--head-channels", "16"]) == 0
    assert convert_edm(save_edm(tmp_path, WIDE)) == 0
    one: dict[str, Any] = {"name": "ddrm", "steps": 1}
    short: dict[str, Any] = {
        "sampler": one,
        "restoration_sampler": one,
        "rows": {"name": "dct", "block": 8},
        "samples": 2,
    }
    for kind in ("adm", "edm"):
        prior = {"name": "ddpm", "path": str(tmp_path / kind)}
        done = pscx.load_codec("paper-pixel", prior=prior, iterations=1, **short).simulate(astronaut[:16, :17])
        found = pscx.Decompressor(prior_path=str(tmp_path / kind)).decompress(done.data)
        np.testing.assert_array_equal(found, done.pixels)
    (tmp_path / "photos").mkdir()
    pscx.write_image(tmp_path / "photos" / "a.png", astronaut[:16, :16])
    run = ["test", "--recipe", "paper-pixel", "--data.root", str(tmp_path / "photos"), "--model.codec.iterations", "1"]
    run += ["--model.codec.prior", f"{{name: ddpm, path: {tmp_path / 'adm'}}}", "--model.codec.sampler.steps", "1"]
    assert main([*run, "--model.codec.samples", "2", "--trainer.default_root_dir", str(tmp_path / "run")]) == 0


def drawn(network: dict[str, Any]) -> dict[str, Tensor]:
    draw = Draw(1)
    guided_diffusion(draw, torch.zeros(1, 3, 8, 8), torch.zeros(1), **network)
    return draw.weights


@pytest.mark.parametrize("old", [False, True])
def test_the_layout_of_google_ddpm(old: bool, tmp_path: Path) -> None:
    """Both configs and the weights at the root, those of attention under their first names."""
    network = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ).eval()
    network.save_pretrained(tmp_path)
    DDPMScheduler(beta_schedule="linear", variance_type="fixed_small").save_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    if old:
        file = tmp_path / "diffusion_pytorch_model.safetensors"
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        weights = load_file(file)
        for new, first in names.items():
            weights = {key.replace(f".{new}.", f".{first}."): value for key, value in weights.items()}
        save_file(weights, file, {"format": "pt"})
        change(tmp_path / "config.json", _diffusers_version="0.1.1")
    prior, x = DDPM(str(tmp_path)), random(1, 3, 16, 16)
    sigma = prior.levels[300].item()
    with torch.no_grad():
        noise = network((x / (1 + sigma**2) ** 0.5).float(), 300).sample.double()
    torch.testing.assert_close(prior.denoise(x, sigma), x - sigma * noise, rtol=0, atol=1e-5)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_what_is_refused_of_adm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each, exit code 2."""
    weights = drawn(SMALL)
    classes = drawn({**SMALL, "classes": 5, "label": 0})
    missing = {key: value for key, value in weights.items() if key != "middle_block.2.out_layers.3.bias"}
    cases: list[tuple[object, list[str], str]] = [
        ({"weights": Evil()}, [], "is damaged or holds more than tensors, and is not read"),
        ([1], [], "must hold a state dictionary of tensors"),
        ({"a": torch.zeros(1)}, [], "has no weights of guided-diffusion's network"),
        (weights, ["--head-channels", "24"], "head channels must divide the 32 channels of a level, got 24"),
        (weights, ["--label", "1"], "--label must be left out: the network knows no classes"),
        (classes, [], "--label must be in 0..4, as the network is told a class, got None"),
        (classes, ["--label", "5"], "--label must be in 0..4, as the network is told a class, got 5"),
        (missing, [], "the weights are not those of an ADM network: Missing key(s)"),
        ({k: v for k, v in weights.items() if k != "out.2.weight"}, [], "the file has no weights for 'out.2.weight'"),
        ({**weights, "time_embed.2.weight": torch.zeros(64, 64)}, [], "must be 4 times as wide as the first level"),
    ]
    for content, options, words in cases:
        torch.save(content, tmp_path / "adm.pt")
        assert convert_adm([str(tmp_path / "adm.pt"), str(tmp_path / "x"), "--head-channels", "16", *options]) == 2
        message = capsys.readouterr()
        assert message.err.startswith("pscx: ")
        assert words in message.err
        assert message.err.count("\n") == 1
        assert message.out == ""
    (tmp_path / "adm.pt").write_bytes(pickle.dumps("text"))
    assert convert_adm([str(tmp_path / "adm.pt"), str(tmp_path / "x")]) == 2
    assert convert_adm([str(tmp_path / "none.pt"), str(tmp_path / "x")]) == 2


def test_what_is_refused_of_edm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = save_edm(tmp_path, {**WIDE, "classes": 7, "label": 0})
    assert convert_edm(args) == 2
    assert "--label must be in 0..6, as the network is told a class, got None" in capsys.readouterr().err
    for about, words in (
        ({"class": "VPPrecond"}, "must hold the class EDMPrecond and its options, got 'VPPrecond'"),
        ({"options": {"model_type": "SongUNet"}}, "options.model_type must be DhariwalUNet"),
    ):
        assert convert_edm(save_edm(tmp_path, WIDE, **about)) == 2
        assert words in capsys.readouterr().err
    save_file({"a": torch.zeros(1)}, args[0])
    save = json.dumps({"class": "EDMPrecond", "options": {}})
    Path(args[1]).write_text(save)
    assert convert_edm(args) == 2
    assert "the weights are not those of a DhariwalUNet" in capsys.readouterr().err
    Path(args[0]).write_bytes(b"no tensors")
    assert convert_edm(args) == 2
    assert "holds no safetensors" in capsys.readouterr().err


def test_edm_networks_are_neither_exact_nor_trained_on(tmp_path: Path) -> None:
    assert convert_edm(save_edm(tmp_path, WIDE)) == 0
    folder = str(tmp_path / "edm")
    with pytest.raises(ValueError, match=r"prior.exact must be false: the network is told any noise level"):
        DDPM(folder, exact=True)
    with pytest.raises(FileNotFoundError, match="its scheduler is a EDMEulerScheduler, which has no variance-preserv"):
        load_denoiser(folder)
    change(tmp_path / "edm" / "scheduler" / "scheduler_config.json", sigma_data="x")
    with pytest.raises(FileNotFoundError, match=r"scheduler.sigma_data must be a number, got 'x'"):
        DDPM(folder)
    change(tmp_path / "edm" / "scheduler" / "scheduler_config.json", sigma_data=0.5, prediction_type="v_prediction")
    with pytest.raises(FileNotFoundError, match=r"scheduler.prediction_type of EDM must be epsilon"):
        DDPM(folder)
