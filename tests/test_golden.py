"""Stored streams: what is encoded today is what was encoded then, and shows the same pixels; see golden_streams.py."""

from __future__ import annotations

import json
from hashlib import sha256
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from golden_streams import (
    FACTS,
    GOLDEN,
    PHOTOGRAPH_FACTS,
    PHOTOGRAPHS,
    SHIPPED,
    SMALL,
    STREAMS,
    compress_photograph,
    facts_of,
    golden_codec,
    golden_image,
    photograph_facts,
    save_golden_prior,
)
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from reference_decoder import Decoder
from reference_decoder import Prior as ReferencePrior

from pscx import Decompressor, StreamError, load_codec, stream_info
from pscx.networks import NoiseExperts
from pscx.priors import DDPM
from pscx.priors.ddpm import EMBEDDED
from pscx.priors.denoiser import PixelDenoiser
from pscx.priors.schedules import log_levels, signal_shares


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_golden_prior(tmp_path_factory.mktemp("golden"))


def test_there_are_as_many_as_are_told_of() -> None:
    facts = json.loads(FACTS.read_text())
    assert facts.keys() == STREAMS.keys() == {file.stem for file in GOLDEN.glob("*.pscx")}
    assert all(one["bytes"] <= 1024 for one in facts.values())


@pytest.mark.parametrize("name", list(STREAMS))
def test_a_golden_stream_is_encoded_and_decoded_as_ever(name: str, prior: str) -> None:
    facts = json.loads(FACTS.read_text())[name]
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    assert sha256(data).hexdigest() == facts["stream"]
    assert facts_of(data, Decompressor(prior_path=prior).decompress(data)) == facts
    codec, image = golden_codec(name, prior)
    assert codec.signal_codec.exact
    assert codec.compress(image) == data
    assert stream_info(data)["arithmetic"] is None


@pytest.mark.parametrize("recipe", SHIPPED)
def test_a_photograph_under_a_shipped_recipe_is_coded_as_ever(recipe: str) -> None:
    """The shipped prior and the whole recipe: bytes and pixels are those that were stored."""
    facts = json.loads(PHOTOGRAPH_FACTS.read_text())[recipe]
    data = (PHOTOGRAPHS / f"{recipe}.pscx").read_bytes()
    assert stream_info(data)["recipe"] == recipe
    assert compress_photograph(recipe) == data
    assert photograph_facts(data, Decompressor().decompress(data)) == facts


@pytest.mark.parametrize(
    "name",
    [
        "uniform_posterior",
        "learned_posterior",
        "pyramid_posterior",
        "weighted_posterior",
        "coarse_posterior",
        "statistics_pyramid",
        "statistics_prior",
        "trellis_posterior",
        "trellis4_posterior",
    ],
)
def test_a_second_decoder_shows_the_same_pixels(name: str, prior: str) -> None:
    """One that shares no code with this one: docs/format.md says all that is needed."""
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    pixels = Decoder(data, Path(prior)).image()
    assert facts_of(data, np.ascontiguousarray(pixels)) == json.loads(FACTS.read_text())[name]


def test_a_second_decoder_shows_the_same_pixels_with_the_prior_that_ships() -> None:
    """The default recipe, made short; its samples pass through both networks."""
    options: dict[str, Any] = {**SMALL, "rows": {"block": 8, "per_iteration": 4.0}}
    codec = load_codec("default", restoration={"samples": 2}, **options)
    done = codec.simulate(golden_image(16, 16))
    decoder = Decoder(done.data, EMBEDDED)
    low = decoder.prior.table[decoder.times(decoder.spec["sampler"])] <= decoder.prior.border
    assert low.tolist() == [False, False, True]
    assert np.array_equal(decoder.image(), done.pixels)


def test_a_second_decoder_changes_networks_at_the_same_step(tmp_path: Path) -> None:
    """One whose level is not over ``switch`` only as its logarithm is rounded, and then equal to it."""
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    level = float(log_levels(signal_shares(schedule))[300])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NoiseExperts(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            blocks=(1, 1),
            switch=exp(level - 0.4 / 4096),
            low_block_out_channels=(12, 16),
            low_blocks=(2, 1),
        )
        for expert in (network.low, network.high):
            torch.nn.init.normal_(expert.tail.weight, std=0.1)
        x = torch.randn(3, 16, 16, dtype=torch.float64)
    PixelDenoiser(network, schedule).save(tmp_path)
    prior, second = DDPM(str(tmp_path), exact=True), ReferencePrior(tmp_path)
    assert second.fingerprint() == prior.fingerprint()
    assert second.table[300] == second.border
    grid = prior.levels[[0, 299, 300, 301, 999]].tolist()
    for sigma in (*grid, 0.9995 * grid[2]):  # the last between two levels
        noisy = x * (1 + sigma)
        assert np.array_equal(second.denoise(noisy.numpy(), sigma), prior.denoise(noisy[None], sigma)[0].numpy())


def test_the_border_between_networks_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    network = NoiseExperts(in_channels=3, out_channels=3, block_out_channels=(8,), blocks=(1,), switch=0.25)
    PixelDenoiser(network, schedule).save(tmp_path)
    before = DDPM(str(tmp_path), exact=True).fingerprint()
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "switch": 0.2501}))
    after = DDPM(str(tmp_path), exact=True).fingerprint()
    assert after == ReferencePrior(tmp_path).fingerprint()
    assert after != before


def test_another_version_is_refused_by_its_number(prior: str) -> None:
    data = bytearray((GOLDEN / "float8_raw.pscx").read_bytes())
    data[3] = data[3] & 15 | 1 << 4
    with pytest.raises(StreamError, match="version 1 of the stream format; this program reads version 2"):
        Decompressor(prior_path=prior).decompress(bytes(data))
