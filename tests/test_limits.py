"""What a stream may ask for: foretold from its parts, refused before it is spent, and no less than what is taken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import save_prior, write_codec
from tiny_latent import save_stable_diffusion
from torch.utils.flop_counter import FlopCounterMode

from pscx import Codec, Decompressor, PscxError, StreamError, load_codec
from pscx.cli.main import main
from pscx.codecs import PSC, DiffC
from pscx.codecs.paths.codebooks import STEPS, GaussianCodebook, Place
from pscx.codecs.psc.loop import finite
from pscx.coders import Posterior
from pscx.format.container import pack, unpack
from pscx.format.limits import SMALL_IMAGE, Limits
from pscx.priors import Gaussian, StableDiffusion
from pscx.quantizers import Uniform
from pscx.restorations import Mean, Restoration, Sample
from pscx.rows import DCT, PCA, Learned, Local, Random, RowRule, Tweedie
from pscx.rows.orthonormal import eigen_work
from pscx.runtime.memory import machine_memory
from pscx.samplers import DDRM, DPS, Nested, PiGDM, Sampler
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

Pixels = NDArray[np.uint8]
PRIOR = Gaussian()
SHAPE = (3, 16, 16)
IMAGE = PRIOR.draw(16, 16, torch.Generator().manual_seed(5))[0]


def made(sampler: Sampler | None = None, rows: RowRule | None = None, restoration: Restoration | None = None) -> PSC:
    parts = (Uniform(0.1), Posterior(), restoration or Mean(3))
    return PSC(PRIOR, sampler or DDRM(2), rows or PCA(5), *parts, DDRM(3), samples=4, iterations=3)


@pytest.mark.parametrize("sampler", [DDRM(4), DPS(3), PiGDM(3), Nested(2, 3)])
@pytest.mark.parametrize("restoration", [Mean(3), Sample()])
def test_evaluations_are_those_that_are_made(sampler: Sampler, restoration: Restoration) -> None:
    psc = made(sampler, restoration=restoration)
    _, outcome = psc.encode(IMAGE)
    for count in range(3):
        assert outcome.account.evaluations <= psc.evaluations(count)
        assert outcome.account.evaluations > 0.6 * psc.evaluations(count)  # the steps of few may fall together
        psc.restore(outcome, SHAPE, count)


def test_evaluations_of_a_row_rule_are_foretold() -> None:
    """All of them but the samples of the first iteration, which this rule does without."""
    psc = made(DDRM(4), Tweedie(3, extra=1, passes=2, corrections=1))
    _, outcome = psc.encode(IMAGE)
    unmeasured = 1 + 4 * 2  # nothing to correct for
    assert outcome.account.evaluations == unmeasured + 2 * (1 + 4 * 2 * 2 + 4 * 4)
    assert psc.evaluations(0) == 3 * (1 + 4 * 2 * 2 + 4 * 4)


ROWS = [
    PCA(5),
    Local(8),
    Local(16, per_iteration=20),
    Random(6, 8),
    Random(6),
    DCT(8),
    Learned(8),
    Tweedie(6, passes=1),
]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: type(rows).__name__)
def test_memory_holds_the_measurements_and_the_samples(rows: RowRule) -> None:
    psc = made(rows=rows)
    _, outcome = psc.encode(IMAGE)
    tensors = [value for value in vars(outcome.measurements).values() if isinstance(value, torch.Tensor)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert held + 4 * IMAGE.numel() * 8 < rows.memory(SHAPE, 4, 3) < psc.memory(SHAPE)
    assert rows.memory(SHAPE, 400, 3) > 20 * 8 * 400 * IMAGE.numel() / 10
    assert psc.memory((3, 320, 320)) > 3.5 * psc.memory((3, 160, 160))


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return load_codec(write_codec(tmp_path))


@pytest.fixture
def photo(astronaut: Pixels) -> Pixels:
    return astronaut[20:44, 30:60]


def hostile(codec: Codec, photo: Pixels, change: Callable[[dict[str, Any]], object], **header: Any) -> bytes:
    before, payload = unpack(codec.compress(photo))
    spec = json.loads(before.spec)
    change(spec)
    return pack(replace(before, spec=json.dumps(spec), **header), payload)


@pytest.mark.parametrize(
    ("change", "header", "part"),
    [
        (
            lambda spec: spec.update(samples=4096, iterations=4096),
            {},
            "asks for .* denoiser evaluations of .* over 1048576 evaluations",
        ),
        (lambda spec: spec["sampler"].update(steps=4096, samples=1), {}, "has no option 'samples'"),
        (lambda spec: [spec["sampler"].update(steps=4096), spec.update(samples=100)], {}, "denoiser evaluations"),
        (lambda spec: spec["restoration"].update(samples=4096, name="mean"), {}, None),
        (lambda spec: spec.update(samples=4096), {"height": 1000, "width": 1000}, "takes about .* GB of memory"),
        (
            lambda spec: spec.update(rows={"name": "tweedie", "passes": 4096, "corrections": 40}),
            {},
            "over 1048576 evaluations",
        ),
        (lambda spec: spec.update(rows={"name": "tweedie", "extra": 4096}), {"height": 500, "width": 500}, "GB of"),
        (lambda spec: spec.update(samples=500, batch=1), {"height": 2000, "width": 2000}, "GB of memory"),
        (lambda spec: spec["rows"].update(per_iteration=4096.0), {"height": 2000, "width": 2000}, "GB of memory"),
        (
            lambda spec: spec.update(rows={"name": "random", "block": None, "per_iteration": 4096}),
            {"height": 500, "width": 500},
            "GB of memory",
        ),
        (lambda spec: spec.update(rows={"name": "pca", "per_iteration": 4000}, samples=2000), {}, None),
        (
            lambda spec: spec.update(rows={"name": "tweedie", "passes": 4096, "corrections": 4096}),
            {},
            "asks for .* denoiser evaluations of .* over 1048576 evaluations",
        ),
        (lambda spec: None, {"height": 65535, "width": 16}, "takes sides of at most 2048 pixels, got 16x65536"),
        (lambda spec: spec.update(rows={"name": "random", "block": 0}), {}, "rows.block must be at least 2 or none"),
        (lambda spec: spec.update(rows={"name": "random", "block": 4096}), {}, "blocks of 4096 pixels; at most 1024"),
    ],
)
def test_what_is_too_much_is_refused_before_any_work(
    change: Callable[[dict[str, Any]], object],
    header: dict[str, Any],
    part: str | None,
    codec: Codec,
    photo: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = hostile(codec, photo, change, **header)
    monkeypatch.setattr(PSC, "decode", lambda *_, **__: pytest.fail("work began"))
    decoder = Decompressor(limits=Limits(pixel_evaluations=1 << 40, memory=1 << 33))
    if part is None:  # much, and not too much
        with pytest.raises(pytest.fail.Exception, match="work began"):
            decoder.decompress(data)
    else:
        with pytest.raises(PscxError, match=part):
            decoder.decompress(data)


DENSE = [
    (PCA(100), 100, 4),
    (Random(200), 3, 4),
    (Random(40, 16), 3, 4),
    (Tweedie(30, extra=4, passes=2, corrections=1), 2, 4),
    (Local(16, per_iteration=60, growth=1, depth=200, floor=0), 3, 4),
    (Local(16, per_iteration=100, growth=1, depth=200, floor=0, candidates=768), 5, 3),
]


@pytest.mark.parametrize(("rows", "samples", "iterations"), DENSE, ids=lambda value: type(value).__name__)
def test_work_beside_the_evaluations_is_foretold(rows: RowRule, samples: int, iterations: int) -> None:
    """Against the multiply-adds of all matrix products; QR and eigenvectors are not among these."""
    parts = (Uniform(4.0), Posterior(), Mean(1))
    psc = PSC(PRIOR, DDRM(1), rows, *parts, samples=samples, iterations=iterations)
    image = PRIOR.draw(32, 32, torch.Generator().manual_seed(1))[0]
    with FlopCounterMode(display=False) as counted:
        psc.encode(image)
    products = counted.get_total_flops() / 2
    assert 0.7 * products < psc.work((3, 32, 32), 0) < 10 * products + eigen_work(3 * 16**2)


LARGE = {"block": 32, "per_iteration": 4096.0, "depth": 4096, "candidates": 4096, "floor": 0.0}


def test_rows_that_take_days_without_evaluations_are_refused(
    codec: Codec, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eigenvectors of blocks of 3072 numbers, 4096 times over: fewer evaluations than many an honest stream takes."""

    def change(spec: dict[str, Any]) -> None:
        spec.update(rows={"name": "local", **LARGE}, samples=1, iterations=4096)
        spec["sampler"].update(steps=1)

    data = hostile(codec, photo, change)
    monkeypatch.setattr(PSC, "decode", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(
        StreamError, match=r"multiply-adds beside its .* roughly \d+ days .* \(--budget [^)]+\)$"
    ) as told:
        Decompressor(limits=Limits(memory=1 << 33)).decompress(data)
    budget = float(str(told.value).split("--budget ")[1].rstrip(")"))
    with pytest.raises(pytest.fail.Exception, match="work began"):
        Decompressor(limits=Limits.of(budget, 1 << 33)).decompress(data)


def test_many_chunks_that_take_next_to_no_bits_are_refused() -> None:
    limits = Limits(memory=1 << 33)
    limits.check(DiffC(PRIOR), 1024, 1024, (3, 1024, 1024), 1)
    with pytest.raises(StreamError, match=r"multiply-adds beside its .* roughly \d+ hours"):
        limits.check(DiffC(PRIOR, steps=4096, chunk=1), 1024, 1024, (3, 1024, 1024), 1)


def test_atoms_cost_nothing_for_all_the_others_of_their_codebook() -> None:
    """A stream may name 2^24 Gaussian atoms in each of a million places: only those that it sends are touched."""
    book = GaussianCodebook(Noise(3), 8, 1 << 40)
    one, none = book.sums([{7: -2.0}, {}], Place(1), torch.device("cpu"))
    assert torch.equal(one, -2.0 * Noise(3).normal((8,), iteration=STEPS + 1, sample=0, step=7))
    assert not none.any()


def test_pixels_times_evaluations_are_bounded(codec: Codec, photo: Pixels) -> None:
    data = codec.compress(photo)
    evaluations = 2 * 3 * 2 + 2 * 2
    assert codec.signal_codec.evaluations(1) == evaluations
    Decompressor(limits=Limits(evaluations, evaluations * SMALL_IMAGE)).decompress(data)  # the image is smaller
    with pytest.raises(StreamError, match=r"asks for 16 denoiser evaluations of 720 pixels.*budget of 2\.62e\+05"):
        Decompressor(limits=Limits(evaluations, evaluations * SMALL_IMAGE - 1)).decompress(data)
    with pytest.raises(StreamError, match=r"asks for 20 denoiser evaluations of 720 pixels.*over 16 evaluations"):
        Decompressor(limits=Limits(evaluations)).decompress_samples(data, 2)
    large = replace(unpack(data)[0], height=200, width=300)
    with pytest.raises(StreamError, match=r"16 denoiser evaluations of 60000 pixels.*budget of 9\.6e\+05"):
        Decompressor(limits=Limits(evaluations, evaluations * 60000 - 1)).decompress(pack(large, b""))


def test_a_large_image_of_the_default_recipe_is_told_its_memory(tmp_path: Path, photo: Pixels) -> None:
    """A few bytes may ask for 2^28 pixels: not with 16 GB."""
    path = save_prior(tmp_path / "prior", 1)
    header, payload = unpack(load_codec("default", prior={"path": path}).compress(photo))
    data = pack(replace(header, height=1 << 14, width=1 << 14), payload)
    with pytest.raises(StreamError, match=r"takes about \d+\.\d GB of memory and 16\.0 GB may be taken: .*--memory GB"):
        Decompressor(prior_path=path, limits=Limits(1 << 20, 1 << 40, 16_000_000_000)).decompress(data)


def test_a_large_image_of_a_latent_prior_is_told_its_memory(tmp_path: Path) -> None:
    """The decoder works at the image's size, whatever that of the latent is."""
    path = save_stable_diffusion(tmp_path / "sd")
    prior, tiled = StableDiffusion(path), StableDiffusion(path, vae_tiling=True)
    small, large = (prior.signal_shape(side, side) for side in (256, 1 << 14))
    channels = prior.vae.config.block_out_channels[0]
    assert prior.memory(large, 1) >= 4 * channels * (1 << 28)
    assert tiled.memory(small, 1) < prior.memory(small, 1)
    assert prior.memory(small, 64) > prior.memory(small, 1)
    half = StableDiffusion(path, dtype="fp16")
    assert half.memory(large, 1) == prior.memory(large, 1)  # a CPU's convolutions of halves keep copies in order
    half.vae.to("meta")
    assert 2 * half.memory(large, 1) == prior.memory(large, 1)
    psc = PSC(prior, DDRM(2), Local(4), Uniform(0.1), Posterior(), Mean(3), samples=4, iterations=3)
    assert psc.memory(large) > prior.memory(large, 1)


def test_published_settings_are_within_the_limits() -> None:
    """Elata et al. 2025: 16 samples of 50 steps, 256 iterations, nested restoration; twice that with a caption."""
    psc = PSC(
        *(PRIOR, DDRM(50), PCA(12), Uniform(0.1), Posterior(), Sample()), Nested(50, 10), samples=16, iterations=256
    )
    assert psc.evaluations(1) == 16 * 50 * 256 + 500
    assert 2 * psc.evaluations(1) < Limits().evaluations
    Limits(memory=1 << 32).check(psc, 192, 192, (4, 24, 24), 1)
    with pytest.raises(StreamError, match=r"roughly 4 days on two CPU cores: over the budget.*\(--budget 5\.4e\+10\)$"):
        Limits(memory=1 << 32).check(psc, 512, 512, (4, 64, 64), 1)
    Limits.of(5.4e10, 1 << 32).check(psc, 512, 512, (4, 64, 64), 1)


def test_the_command_takes_a_limit(
    codec: Codec, photo: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pscx").write_bytes(codec.compress(photo))
    assert main(["decompress", str(tmp_path / "x.pscx"), "--memory", "0.0001"]) == 2
    assert "0.0 GB may be taken" in capsys.readouterr().err
    assert main(["decompress", str(tmp_path / "x.pscx"), "--memory", "1"]) == 0


def test_memory_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_memory() > 1 << 28
    monkeypatch.delattr(os, "sysconf", raising=False)  # as on Windows
    assert machine_memory() == 1 << 34


def test_a_partition_needs_blocks() -> None:
    with pytest.raises(ValueError, match="block must be at least 1 or none, got 0"):
        Partition(3, 16, 16, 0)


def test_what_diverges_is_a_sentence() -> None:
    psc = made(DPS(4, 1e200, normalize=False))
    with pytest.raises(PscxError, match=r"the samples of iteration [12] are not finite numbers: the sampler diverges"):
        psc.encode(IMAGE)
    with pytest.raises(PscxError, match="the restored values are not finite"):
        finite(torch.tensor([1.0, torch.nan]), "the restored values")
