"""The second decoder of the path families shows the pixels that pscx shows; see reference_paths.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_streams import FACTS, GOLDEN, facts_of, golden_image, save_golden_prior
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from reference_paths import PathDecoder

from pscx import load_codec, stream_info
from pscx.priors.ddpm import EMBEDDED


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_golden_prior(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", ["ddcm", "turbo_ddcm", "diffc"])
def test_it_shows_the_pixels_of_a_golden_stream(name: str, prior: str) -> None:
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    pixels = PathDecoder(data, Path(prior)).image()
    assert facts_of(data, np.ascontiguousarray(pixels)) == json.loads(FACTS.read_text())[name]


CURVE = [0.3 - 0.01 * place for place in range(27)]
OPTIONS: dict[str, dict[str, Any]] = {
    "turbo_ddcm, a curve of its own": {"schedule": "kl", "group": 8, "entries": 6, "curve": CURVE},
    "turbo_ddcm, groups without an atom": {"level": 2.0, "group": 6, "flow": 3, "seed": 9},
    "turbo_ddcm, more than a block of groups": {"group": 5, "schedule": "even", "level": 0.5},
    "turbo_ddcm, one codebook": {"atoms": 5, "group": 7, "entries": 6, "schedule": "even"},
    "turbo_ddcm, all atoms of a Gaussian codebook": {"atoms": 9, "group": 6, "entries": 3, "codebook": "gaussian"},
    "ddcm, signed Gaussian atoms": {
        "atoms": 2,
        "group": 7,
        "entries": 4,
        "codebook": "gaussian",
        "seed": 5,
        "level": 4.0,
        "steps": 60,
    },
    "ddcm, signs on the prior's levels": {"atoms": 3, "group": 6, "schedule": "even", "flow": 2, "level": 0.25},
    "ddcm, as published": {
        **{"atoms": 3, "entries": 5, "weight_bits": 3, "codebook": "gaussian"},
        **{"group": 16, "schedule": "even", "level": 0.0078125},
    },
    "ddcm, pursuit as long as atoms are worth": {
        "atoms": 2,
        "weight_bits": 1,
        "group": 5,
        "level": 2.0,
        "curve": CURVE,
    },
    "diffc, chunks of few numbers": {"chunk": 3, "candidates": 7, "schedule": "kl", "flow": 2},
    "diffc, several codebooks a chunk": {"chunk": 8, "candidates": 10, "group": 5, "schedule": "even", "level": 0.125},
    "diffc, Gaussian candidates": {"chunk": 5, "candidates": 6, "group": 8, "codebook": "gaussian", "seed": 3},
    "diffc, as many chunks as there may be": {"chunk": 1, "candidates": 2, "curve": CURVE, "level": 0.25},
}
"""By the family's name, a comma and what it is for."""


@pytest.mark.parametrize("name", OPTIONS)
def test_it_knows_all_options_of_a_path(name: str, prior: str, tmp_path: Path) -> None:
    form = {"name": "ddpm", "path": prior, "exact": True}
    codec = {"name": name.partition(",")[0], "level": 1.0, "steps": 14, **OPTIONS[name], "prior": form}
    (tmp_path / "codec.yaml").write_text(json.dumps({"model": {"codec": codec}}))
    done = load_codec(tmp_path / "codec.yaml").simulate(golden_image(16, 18))
    decoder = PathDecoder(done.data, Path(prior))
    assert np.array_equal(decoder.image(), done.pixels)
    assert decoder.step > 3
    assert decoder.sent > 3


def test_it_shows_the_pixels_of_the_recipe_turbo() -> None:
    """With the prior that ships, so the header names the recipe alone."""
    done = load_codec("turbo", level=2.0).simulate(golden_image(16, 16))
    assert stream_info(done.data)["recipe"] == "turbo"
    assert np.array_equal(PathDecoder(done.data, EMBEDDED).image(), done.pixels)
