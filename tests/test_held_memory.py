"""What holds memory: nothing of a prior outlives it, and nothing is loaded, captioned or computed twice."""

from __future__ import annotations

import gc
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import EXACT, psc_of, save_prior, write_codec
from tiny_latent import save_stable_diffusion
from torch import nn

import pscx.priors.ddpm
from pscx import load_codec
from pscx.captioners import Fixed
from pscx.cli.main import main
from pscx.priors import Gaussian, Prior, StableDiffusion
from pscx.priors.denoiser import PixelDenoiser
from pscx.priors.edm_denoiser import EDMDenoiser, load_pixels
from pscx.priors.kept import kept_by_prior
from pscx.rows.block_transform import prior_variances
from pscx.rows.local import klt

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior"), 1)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_stable_diffusion(tmp_path_factory.mktemp("latent") / "prior")


@pytest.mark.parametrize("rows", ["dct", "learned", "local", "pca", "tweedie", "random"])
@pytest.mark.parametrize("prior", ["exact", "float"])
def test_a_codec_that_is_gone_leaves_no_prior(
    rows: str, prior: str, folder: str, astronaut: Pixels, tmp_path: Path
) -> None:
    text = EXACT.format(path=folder).replace("exact: true", f"exact: {str(prior == 'exact').lower()}")
    options = {} if rows == "learned" else {"name": rows}
    step = {"step": 1.0} if rows == "tweedie" else {}
    block = {"block": 8} if rows in ("dct", "local") else {}
    codec = load_codec(write_codec(tmp_path, text), rows={**options, **block, **step} or "learned", iterations=2)
    codec.decompress(codec.compress(astronaut[:16, :16]))
    alive = weakref.ref(psc_of(codec).prior)
    del codec
    gc.collect()
    assert alive() is None


def test_a_captioned_prior_that_is_gone_leaves_nothing(latent: str, astronaut: Pixels) -> None:
    """Neither itself nor its network; and all captions of a prior share what follows from the prior alone."""
    options: dict[str, Any] = {"samples": 2, "iterations": 2, "sampler": {"steps": 1}}
    codec = load_codec("paper-pixel", prior={"name": "stable_diffusion", "path": latent}, rows="local", **options)
    prior = psc_of(codec).prior
    assert isinstance(prior, StableDiffusion)
    for caption in ("cat", "a cat", "c", "at", "t"):
        codec.compress(astronaut[:16, :16], caption=caption)
    own = klt(prior, 8, 12)
    captioned = prior.conditioned("cat")
    assert klt(captioned, 8, 12)[0] is own[0]
    alive = [weakref.ref(one) for one in (prior, prior.network, captioned)]
    del codec, prior, captioned
    gc.collect()
    assert [one() for one in alive] == [None] * 3


def test_what_a_prior_keeps_is_computed_once_and_bounded() -> None:
    prior, other, calls = Gaussian(), Gaussian(), []

    @kept_by_prior(4)
    def found(prior: Prior, number: int) -> list[int]:
        calls.append(number)
        return [number]

    assert [found(prior, 3) for _ in range(3)] == [[3]] * 3
    assert found(prior, 3) is found(prior, 3)
    assert calls == [3]
    found(other, 3)
    assert calls == [3, 3]
    for number in range(10, 20):
        assert found(prior, number) == [number]
    assert [len(results) for results in prior.kept.values()] == [4]
    assert found(prior, 3) == [3]
    assert calls.count(3) == 3


def test_priors_that_differ_keep_apart() -> None:
    first, second = Gaussian(correlation=0.9), Gaussian(correlation=0.5)
    assert not prior_variances(first, 8).equal(prior_variances(second, 8))
    assert prior_variances(first, 8) is prior_variances(first, 8)
    assert prior_variances(first, 4).shape != prior_variances(first, 8).shape


@pytest.mark.parametrize("simulate", ["true", "false"])
def test_an_image_is_captioned_once(
    simulate: str, latent: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ``test``, whether its result is made or kept from before."""
    asked: list[int] = []

    def counted(self: Fixed, image: Pixels, source: str = "") -> str:
        asked.append(image.size)
        return self.text

    monkeypatch.setattr(Fixed, "caption", counted)
    config = tmp_path / "codec.yaml"
    config.write_text(
        "recipe: paper-pixel\nmodel:\n  codec:\n    samples: 2\n    iterations: 1\n    sampler: {steps: 1}\n"
        f"    prior: {{name: stable_diffusion, path: {latent}}}\n  caption: {{name: fixed, text: cat}}\n"
    )
    run = ["test", "--config", str(config), "--data.root", str(image_folder), "--model.simulate", simulate]
    for times in (1, 2):
        assert main([*run, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0
        assert len(asked) == 3 * times


def test_a_report_loads_a_prior_once(
    folder: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all streams of all runs, from ``--prior`` as from the runs' own configurations."""
    pytest.importorskip("plotly", reason="the extra 'report' is not installed")
    config, runs = write_codec(tmp_path, EXACT.format(path=folder)), [tmp_path / "a", tmp_path / "b"]
    for run, step in zip(runs, ("0.2", "0.4"), strict=True):
        where = ["--data.root", str(image_folder), "--trainer.default_root_dir", str(run)]
        assert main(["test", "--config", config, "--model.codec.quantizer.step", step, *where]) == 0
    loaded: list[str] = []
    plain = load_pixels

    def counted(path: str) -> PixelDenoiser | EDMDenoiser:
        loaded.append(path)
        return plain(path)

    monkeypatch.setattr(pscx.priors.ddpm, "load_pixels", counted)
    for times, options in enumerate(([], ["--prior", folder]), 1):
        output = tmp_path / f"page-{times}.html"
        assert main(["report", *map(str, runs), "-o", str(output), *options]) == 0
        assert loaded == [folder] * times


def test_no_cache_of_the_process_holds_a_module(folder: str, astronaut: Pixels, tmp_path: Path) -> None:
    """What functools keeps for the life of the process, after a codec was used: no network is a key or a value."""
    codec = load_codec(write_codec(tmp_path, EXACT.format(path=folder)), rows="learned", iterations=2)
    codec.decompress(codec.compress(astronaut[:16, :16]))
    wrappers: list[Any] = [one for one in gc.get_objects() if type(one) is type(prior_cache)]
    ours = [one for one in wrappers if one.__module__.startswith("pscx.")]
    assert len(ours) > 8
    assert not [one.__qualname__ for one in ours if holds_module(one)]
    prior_cache(psc_of(codec).prior)
    assert holds_module(prior_cache)
    prior_cache.cache_clear()


@lru_cache(1)
def prior_cache(prior: Prior) -> None:
    """A cache as it must not be."""


def holds_module(cache: Any) -> bool:
    """Whether a module is within a few steps of a cache."""
    near: list[object] = [cache]
    for _ in range(4):
        near = [one for one in gc.get_referents(*near) if type(one) in (dict, tuple, list) or is_link_or_module(one)]
        if any(issubclass(type(one), nn.Module) for one in near):
            return True
    return False


def is_link_or_module(one: object) -> bool:
    """Whether it is an entry of a cache of functools, or a module."""
    return type(one).__name__ == "_lru_list_elem" or issubclass(type(one), nn.Module)
