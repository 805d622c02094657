"""The recipes for latents: how often they ask the denoiser, counted in the network, and their headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny_latent import save_stable_diffusion
from torch import Tensor

import pscx
from pscx.format.container import unpack
from pscx.priors import StableDiffusion

Pixels = NDArray[np.uint8]
ROUND_TRIP = {"latent-fast": 60, "latent": 300, "latent-rows": 300}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of signals in each call of the network, which answers nothing of use."""
    calls: list[int] = []

    def output(self: StableDiffusion, x: Tensor, times: Tensor, text: Any) -> Tensor:
        calls.append(len(x))
        return x * 0.1

    monkeypatch.setattr(StableDiffusion, "output", output)
    return calls


@pytest.mark.parametrize(
    ("recipe", "side", "caption"),
    [("latent-fast", 256, "cat"), ("latent-fast", 128, ""), ("latent", 128, ""), ("latent-rows", 128, "")],
)
def test_evaluations_of_a_round_trip(
    recipe: str, side: int, caption: str, model: str, asked: list[int], rocket: Pixels
) -> None:
    """To compress and to decompress; a caption with guidance counts twice. No iteration is saved at a fine step.

    The count does not depend on the size of an image.
    """
    prior: dict[str, Any] = {"path": model, **({"guidance": 3.0} if caption else {})}
    fine: dict[str, Any] = {"quantizer": {"step": 0.02}} if recipe == "latent-rows" else {}
    codec = pscx.load_codec(recipe, prior=prior, **fine)
    data = codec.compress(np.tile(rocket, (4, 6, 1))[:side, :side], caption=caption)
    encoded = sum(asked)
    assert codec.decompress(data).shape == (side, side, 3)
    times = 2 if caption else 1
    bound = codec.signal_codec.evaluations(0) + codec.signal_codec.evaluations(1)
    assert 0 < encoded < sum(asked)
    assert sum(asked) <= times * bound
    assert 0.6 * ROUND_TRIP[recipe] < 2 * sum(asked) / times <= ROUND_TRIP[recipe]
    if not caption:
        header, payload = unpack(data)
        assert header.recipe == {"latent": 7, "latent-fast": 8, "latent-rows": 9}[recipe]
        assert len(data) - len(payload) == 22


def test_the_published_recipe_asks_for_thousands_of_times_as_many(model: str) -> None:
    codec = pscx.load_codec("paper-latent", prior={"path": model}).signal_codec
    assert codec.evaluations(0) + codec.evaluations(1) >= 5000 * ROUND_TRIP["latent-fast"]


def test_a_recipe_decodes_in_a_tiny_pipeline(model: str, astronaut: Pixels, tmp_path: Path) -> None:
    for recipe in ROUND_TRIP:
        done = pscx.load_codec(recipe, prior={"path": model}).simulate(astronaut[:40, :72])
        assert np.array_equal(pscx.Decompressor(prior_path=model).decompress(done.data), done.pixels)
