"""Codecs on a device that is not the CPU: the same streams and pixels, computed there, with few transfers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_streams import golden_image, golden_photograph
from numpy.typing import NDArray
from pretend_device import OnTheCPU, alone, computed, crossed
from tiny import save_prior, tiny_network
from tiny_latent import save_stable_diffusion
from torch import Tensor

from pscx import Codec, load_codec
from pscx.format.container import unpack
from pscx.priors import DDPM
from pscx.priors.denoiser import PixelDenoiser
from pscx.samplers import DDRM
from pscx.samplers.base import Problem
from pscx.signal.noise import Noise
from pscx.signal.philox import philox

LATENT = {"name": "stable_diffusion", "guidance": 2.0}
SHORT: dict[str, Any] = {"sampler": {"steps": 2}, "samples": 3, "iterations": 2}


def photograph() -> NDArray[np.uint8]:
    """An eye: 32 by 32 pixels."""
    return golden_photograph()[8:40, 16:48]


def moved(codec: Codec, device: torch.device) -> Codec:
    network = codec.signal_codec.network
    assert network is not None
    network.to(device)
    assert codec.signal_codec.device == device
    return codec


def both(device: torch.device, config: str, pixels: NDArray[np.uint8], caption: str = "", **options: Any) -> list[Any]:
    """What the codec makes of an image on the CPU and on the device: streams, and the pixels of a decoder.

    There, all layers of its networks are computed.
    """
    said = caption or None
    found, layers = [], []
    for place in (None, device):
        codec = load_codec(config, **options)
        if place is not None:
            moved(codec, place)
            computed.clear()
        with OnTheCPU() as watched:
            data = codec.compress(pixels, caption=said)
            found.append((data, codec.decompress(data)))
        layers.append(watched.layers)
    assert not layers[1]
    assert all(computed[f"aten::{name}"] >= count for name, count in layers[0].items())
    return found


@pytest.fixture(scope="module")
def pixel_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior"), seed=0)


@pytest.fixture(scope="module")
def latent_prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_stable_diffusion(tmp_path_factory.mktemp("latent"))


@pytest.mark.parametrize(("recipe", "options"), [("default", {"iterations": 6}), ("fast", {"iterations": 5})])
def test_a_recipe_of_an_exact_prior_is_the_cpus(recipe: str, options: dict[str, Any], standin: torch.device) -> None:
    """Bytes and pixels, of a photograph, with the prior that ships."""
    (data, pixels), (there, shown) = both(standin, recipe, photograph(), **options)
    assert there == data
    assert np.array_equal(shown, pixels)
    assert computed["aten::convolution"] > 1000


def test_the_recipes_of_floating_point_are_close(pixel_prior: str, standin: torch.device) -> None:
    """The CPU computes here as there, so close is equal; a GPU's sums have another order."""
    prior = {"name": "ddpm", "path": pixel_prior}
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 24), prior=prior, **SHORT)
    assert_alike(data, there)
    assert np.array_equal(shown, pixels)
    assert computed["aten::convolution"] > 0


def test_stable_diffusion_under_a_caption(latent_prior: str, standin: torch.device) -> None:
    prior = {**LATENT, "path": latent_prior}
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 24), "a cat", prior=prior, **SHORT)
    assert_alike(data, there)
    assert np.array_equal(shown, pixels)


def test_an_exact_latent_prior_is_the_cpus_under_a_caption(latent_prior: str, standin: torch.device) -> None:
    """Bytes and, as the stand-in's autoencoder computes as the CPU's does, pixels."""
    options: dict[str, Any] = {
        **SHORT,
        "prior": {**LATENT, "path": latent_prior, "exact": True},
        "rows": {"name": "dct", "block": 4},
    }
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 24), "a cat", **options)
    assert there == data
    assert np.array_equal(shown, pixels)


@pytest.mark.parametrize("name", ["pigdm", "dps"])
@alone
def test_samplers_that_take_gradients(name: str, pixel_prior: str, standin: torch.device) -> None:
    options: dict[str, Any] = {
        **SHORT,
        "prior": {"name": "ddpm", "path": pixel_prior},
        "sampler": {"name": name, "steps": 3},
    }
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 16), **options)
    assert_alike(data, there)
    assert np.array_equal(shown, pixels)


@pytest.mark.parametrize("rows", ["local", "tweedie", "random", "dct", {"name": "dct", "evenness": 0.625}])
def test_row_rules(rows: object, pixel_prior: str, standin: torch.device) -> None:
    options: dict[str, Any] = {
        "prior": {"path": pixel_prior, "exact": True},
        "rows": rows,
        "samples": 2,
        "iterations": 3,
    }
    sampler = {"steps": 2, "eta": 0.5, "start": 20.0, "stop": 0.1, "noise_aware": True}
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 32), sampler=sampler, **options)
    assert_alike(data, there)
    assert np.array_equal(shown, pixels)


def test_the_gaussian_prior_follows(standin: torch.device) -> None:
    (data, pixels), (there, shown) = both(standin, "paper-pixel", golden_image(16, 16), prior="gaussian", **SHORT)
    assert_alike(data, there)
    assert np.array_equal(shown, pixels)


def assert_alike(one: bytes, other: bytes) -> None:
    """The payloads; the headers say of what arithmetic they are."""
    assert unpack(one)[1] == unpack(other)[1]


def test_no_transfer_inside_a_sampler_and_four_a_segment(
    standin: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = moved(load_codec("default", iterations=5), standin)
    codec.compress(photograph())  # what is made once is made
    sample, inside = DDRM.sample, list[int]()

    def watched(self: DDRM, problem: Problem, indices: range) -> Tensor:
        before = crossed.total()
        answer = sample(self, problem, indices)
        inside.append(crossed.total() - before)
        return answer

    monkeypatch.setattr(DDRM, "sample", watched)
    marks: list[int] = []
    codec.encode(photograph(), watch=lambda codec, segment: marks.append(crossed.total()))
    assert len(inside) == 4
    assert set(inside) == {0}
    spent = [later - before for before, later in pairwise(marks)]
    assert len(spent) == 4
    assert max(spent) <= 4


def test_an_exact_network_with_norms_and_attention_asks_for_nothing(standin: torch.device, tmp_path: Path) -> None:
    from diffusers import DDPMScheduler

    PixelDenoiser(tiny_network(), DDPMScheduler(prediction_type="epsilon")).save(tmp_path)
    prior = DDPM(str(tmp_path), exact=True)
    x = Noise(0).normal((2, 3, 16, 16), iteration=0, sample=0, step=0)
    wanted = prior.denoise(x, 1.0)
    prior.to(standin)
    there = x.to(standin)
    prior.denoise(there, 1.0)  # checks the device
    crossed.clear()
    answer = prior.denoise(there, 1.0)
    assert crossed.total() == 0
    assert answer.device == standin
    assert torch.equal(answer.cpu(), wanted)


@pytest.mark.parametrize("seed", [0, 7, (1 << 64) - 1])
def test_noise_is_the_same_bits(seed: int, standin: torch.device) -> None:
    for shape, address in (((3, 5, 7), (0, 0, 0)), ((1, 33), (1 << 63, (1 << 64) - 1, 5)), ((70000,), (4, 1, 2))):
        named = dict(zip(("iteration", "sample", "step"), address, strict=True))
        here, there = (Noise(seed).normal(shape, **named, device=place) for place in ("cpu", standin))
        assert there.device == standin
        assert torch.equal(there.cpu(), here)


def test_words_are_numpys() -> None:
    """With all bits of key and counter in use."""
    key, counter = (0xDEADBEEF12345678, 0x9000000000000001), (0xFFFFFFFFFFFFFFFF, 0x8000000000000000, 3)
    wanted = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, *counter], np.uint64)).random_raw(4000)
    assert np.array_equal(philox(1000, counter, key, torch.device("cpu")).numpy().view(np.uint64), wanted)


def test_the_device_refuses_what_lies_elsewhere(standin: torch.device) -> None:
    with pytest.raises(RuntimeError, match="all tensors must be on"):
        torch.ones(2, device=standin) + torch.ones(2)
    assert (torch.ones(2, device=standin) + torch.tensor(1.0)).tolist() == [2, 2]
    assert crossed == {"down": 1}
