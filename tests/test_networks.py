"""Networks of pscx as files: the layout of a diffusers model, written and read without diffusers."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pscx.exact import make_exact
from pscx.networks import Network, NoiseExperts, ResidualUNet
from pscx.priors.denoiser import load_denoiser

SHAPE: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "block_out_channels": (8, 12), "blocks": (1, 2)}
MAKE: tuple[Callable[[], Network], ...] = (
    lambda: ResidualUNet(**SHAPE),
    lambda: NoiseExperts(**SHAPE, switch=0.5, low_blocks=(1, 1)),
)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def made(make: Callable[[], Network]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
    return network.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("make", MAKE)
def test_a_saved_network_is_what_it_was(make: Callable[[], Network], dtype: torch.dtype, tmp_path: Path) -> None:
    network = made(make).to(dtype)
    network.save_pretrained(tmp_path / "new" / "folder")
    state = torch.get_rng_state()
    again = type(network).from_pretrained(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.dtype == dtype
    assert again.state_dict().keys() == network.state_dict().keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
        assert (tensor.dtype, tensor.device.type) == (dtype, "cpu")
    assert json.dumps(again.config) == json.dumps(network.config)
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([-3.0, 1.0])
    assert torch.equal(again.float()(x, t).sample, network.float()(x, t).sample)


@pytest.mark.parametrize("make", MAKE)
def test_the_layout_is_that_of_diffusers(make: Callable[[], Network], tmp_path: Path) -> None:
    """Keys of the configuration as the released prior has them, weights under their names."""
    made(make).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert list(config) == sorted(config)
    assert config["_class_name"] == type(made(make)).__name__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", WEIGHTS]
    if isinstance(made(make), NoiseExperts):
        released = json.loads(Path("pscx/priors/embedded/unet/config.json").read_text())
        assert config.keys() == released.keys()
        assert "low.head.weight" in load_file(tmp_path / WEIGHTS)


def test_a_network_is_copied_with_its_options() -> None:
    network = made(MAKE[1])
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.config == network.config
        assert other.config.switch == 0.5
        assert not hasattr(other.config, "sample_size")


def test_number_format_of_an_exact_network() -> None:
    """Its layers hold their weights as buffers."""
    network = made(MAKE[0]).eval()
    make_exact(network)
    assert not list(network.parameters())
    assert network.dtype == torch.float32
    assert network.double().dtype == torch.float64


def test_weights_in_several_files_and_pickled(tmp_path: Path) -> None:
    network = made(MAKE[0])
    for folder in ("shards", "pickled"):
        network.save_pretrained(tmp_path / folder)
        (tmp_path / folder / WEIGHTS).unlink()
    weights = network.state_dict()
    names = sorted(weights)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: weights[name] for name in part}, tmp_path / "shards" / file)
    places = {name: file for file, part in files.items() for name in part}
    (tmp_path / "shards" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    torch.save(weights, tmp_path / "pickled" / "diffusion_pytorch_model.bin")
    for folder in ("shards", "pickled"):
        again = ResidualUNet.from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(again[name], weights[name]) for name in names)


def change_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def change_config(folder: Path, **options: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: change_weights(f, lambda w: w.pop("tail.bias")), "has no weights for tail.bias"),
    "unknown": (lambda f: change_weights(f, lambda w: w.update(more=w["tail.bias"] + 0)), "unknown weights for more"),
    "shape": (
        lambda f: change_weights(f, lambda w: w.update({"tail.bias": torch.ones(4)})),
        r"shape \(3,\), got \(4,\)",
    ),
    "option": (lambda f: change_config(f, depth=3), "cannot be made from config.json: .*'depth'"),
    "value": (lambda f: change_config(f, blocks=[1]), "network.blocks must hold one number for each"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "cut": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "cannot be read"),
    "index": (
        lambda f: (f / WEIGHTS).rename(f / f"{WEIGHTS}.index.json").write_text("[]"),
        "index.json' must hold weight_map, the file of each weight",
    ),
    "list": (
        lambda f: torch.save([torch.ones(1)], (f / WEIGHTS).rename(f / "diffusion_pytorch_model.bin")),
        "diffusion_pytorch_model.bin' cannot be read: it must hold tensors by name",
    ),
    "pickle": (
        lambda f: (f / WEIGHTS).rename(f / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n."),
        "diffusion_pytorch_model.bin' cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_network_is_one_sentence(damage: str, tmp_path: Path) -> None:
    made(MAKE[0]).save_pretrained(tmp_path / "unet")
    change, part = DAMAGE[damage]
    change(tmp_path / "unet")
    with pytest.raises((ValueError, OSError), match=part):
        ResidualUNet.from_pretrained(tmp_path / "unet")
    with pytest.raises(FileNotFoundError, match=part) as caught:
        load_denoiser(tmp_path)
    assert "\n" not in str(caught.value)
