"""The families ddcm, turbo_ddcm and diffc: closed forms on a Gaussian prior, streams, damage, rate control."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from oracles import one_thread, rate  # noqa: F401  # the first is a fixture that applies by itself
from PIL import Image
from sealing import resealed
from tiny import save_prior
from torch import Tensor

import pscx
from pscx import PscxError, StreamError
from pscx.cli.main import main
from pscx.codecs import CODECS, DDCM, Account, DiffC, PathCodec, TurboDDCM
from pscx.codecs.paths.sides import Reader
from pscx.config.layers import split_options
from pscx.config.sources import Sources
from pscx.format.container import pack, unpack
from pscx.metrics import psnr
from pscx.priors import Gaussian

Pixels = NDArray[np.uint8]
PRIOR = Gaussian(correlation=0.9, color=0.8, deviation=0.5)
SIDE, LEVEL = 24, 0.2
COVARIANCE = PRIOR.covariance(SIDE, SIDE)
SPECTRUM = torch.linalg.eigvalsh(COVARIANCE).clamp_min(1e-12)
SEALS = 12 * 3 + 5  # bits of checksums
SMALL: dict[str, dict[str, Any]] = {
    "ddcm": {"entries": 8, "group": 9},
    "turbo_ddcm": {"steps": 12},
    "diffc": {"steps": 8, "chunk": 8, "candidates": 10},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *SMALL.items(),
    ("ddcm", {"schedule": "even", "steps": 20, "weight_bits": 2, "atoms": 3, "entries": 6, "codebook": "gaussian"}),
    ("turbo_ddcm", {"schedule": "even", "steps": 5, "atoms": 7, "group": 8, "flow": 3}),
    ("turbo_ddcm", {"schedule": "kl", "steps": 5, "codebook": "gaussian", "entries": 5, "seed": 7}),
    ("diffc", {"steps": 4, "chunk": 4, "candidates": 6, "codebook": "gaussian"}),
]


def signals(count: int) -> list[Tensor]:
    """Draws from the Gaussian prior."""
    root = torch.linalg.cholesky(COVARIANCE + 1e-9 * torch.eye(len(COVARIANCE)))
    source = torch.Generator().manual_seed(3)
    draws = [root @ torch.randn(len(root), generator=source, dtype=torch.float64) for _ in range(count)]
    return [draw.view(3, SIDE, SIDE) for draw in draws]


def information(precision: float) -> float:
    """Bits that the state at a precision has of the image: the integral of error / 2 nats over precisions."""
    return float(torch.log1p(SPECTRUM * precision).sum()) / 2 / log(2)


def denoised(precision: float) -> float:
    """Squared error of the best estimate from the state at a precision."""
    return float((SPECTRUM / (1 + SPECTRUM * precision)).sum())


def measured(family: type[PathCodec], count: int = 4, **options: Any) -> tuple[float, float]:
    """Bits and squared error, means over draws; ideal bits of DiffC are those of :meth:`DiffC.ideal`."""
    ideal = options.pop("ideal", False)
    bits, error = [], []
    for seed, signal in enumerate(signals(count)):
        codec: Any = family(PRIOR, level=LEVEL, seed=seed, **options)
        found = codec.ideal(signal) if ideal else codec.encode(signal)
        bits.append(found[0] if ideal else 8.0 * len(found[0]))
        error.append(float((codec.restore(found[1], tuple(signal.shape)) - signal).square().sum()))
    return float(np.mean(bits)), float(np.mean(error))


@pytest.mark.parametrize("schedule", ["kl", "least"])
def test_ideal_diffc_costs_its_divergence_and_ends_at_the_best_estimate(schedule: str) -> None:
    bits, error = measured(DiffC, 6, ideal=True, steps=400, schedule=schedule)
    assert bits == pytest.approx(information(1 / LEVEL**2), rel=0.03)
    assert error == pytest.approx(denoised(1 / LEVEL**2), rel=0.03)


def test_the_least_schedule_costs_less_than_equal_divergence() -> None:
    """Of few steps; both end at the same state, so at the same error."""
    least, _ = measured(DiffC, ideal=True, steps=8, schedule="least")
    equal, _ = measured(DiffC, ideal=True, steps=8, schedule="kl")
    assert information(1 / LEVEL**2) < least < 0.95 * equal


@pytest.mark.parametrize(
    ("family", "options", "factor"),
    [
        (DDCM, {"group": 11}, 1.9),
        (TurboDDCM, {"group": 11}, 2.0),
        (DiffC, {"group": 11, "chunk": 8, "candidates": 12}, 2.4),
    ],
)
def test_bits_lie_between_the_rate_distortion_function_and_a_factor_of_it(
    family: type[PathCodec], options: dict[str, Any], factor: float
) -> None:
    bits, error = measured(family, **options)
    assert error < 1.3 * denoised(1 / LEVEL**2)
    assert rate(SPECTRUM, error) < bits < factor * rate(SPECTRUM, error)


@pytest.mark.parametrize("family", [DDCM, TurboDDCM])
def test_hadamard_and_gaussian_codebooks_are_equal_within_noise(family: type[PathCodec]) -> None:
    found = [measured(family, 2, entries=4, group=11, codebook=name) for name in ("hadamard", "gaussian")]
    (bits, error), (other_bits, other_error) = found
    assert bits == pytest.approx(other_bits, rel=0.08)
    assert error == pytest.approx(other_error, rel=0.2)


def codec_of(folder: Path, name: str, prior: Any, **options: Any) -> pscx.Codec:
    """A codec by its config file, as users have it."""
    path = folder / "codec.yaml"
    path.write_text(yaml.safe_dump({"model": {"codec": {"name": name, "prior": prior, **options}}}))
    return pscx.load_codec(path)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"name": "ddpm", "path": save_prior(tmp_path_factory.mktemp("prior"), 1), "exact": True}


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_round_trip(name: str, options: dict[str, Any], tmp_path: Path, astronaut: Pixels) -> None:
    codec = codec_of(tmp_path, name, "gaussian", level=0.3, **options)
    photo = astronaut[20:45, 40:71]
    done = codec.simulate(photo)
    assert np.array_equal(pscx.Decompressor().decompress(done.data), done.pixels)
    account = done.account
    assert len(account.segment_bits) == codec.signal_codec.segments
    assert 0 < account.evaluations <= codec.signal_codec.evaluations(0)
    assert sum(account.segment_bits) == pytest.approx(8 * len(unpack(done.data)[1]), abs=16)


DECODE = """
import sys
import numpy as np
import torch
import pscx
folder, path, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
from pathlib import Path
for stream in sorted(Path(folder).glob("*.pscx")):
    np.save(stream.with_suffix(".npy"), pscx.Decompressor(prior_path=path).decompress(stream.read_bytes()))
"""


def test_streams_decode_in_a_new_process_with_other_threads_and_in_batches(
    network: dict[str, Any], tmp_path: Path, astronaut: Pixels, cat: Pixels
) -> None:
    photos = [photo[30:46, 40:56] for photo in (astronaut, cat)]
    streams, expected = [], []
    for name, options in SMALL.items():
        codec = codec_of(tmp_path, name, network, level=1.5, **{**options, "steps": 8})  # a random network errs much
        assert codec.signal_codec.exact
        done = [codec.simulate(photo) for photo in photos]
        together = codec.simulate_many(photos, batch=2)
        assert [one.data for one in together if isinstance(one, pscx.api.Simulation)] == [one.data for one in done]
        streams += [one.data for one in done]
        expected += [one.pixels for one in done]
    for number, data in enumerate(streams):
        (tmp_path / f"{number}.pscx").write_bytes(data)
    subprocess.run([sys.executable, "-c", DECODE, tmp_path, network["path"], "2"], check=True, timeout=300)
    for number, pixels in enumerate(expected):
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), pixels)
    decoded = pscx.Decompressor(prior_path=network["path"]).decompress_many(streams, batch=6)
    for one, pixels in zip(decoded, expected, strict=True):
        assert isinstance(one, np.ndarray)
        assert np.array_equal(one, pixels)


@pytest.mark.parametrize("name", list(SMALL))
def test_a_cut_stream_shows_the_segments_before_the_cut(name: str, tmp_path: Path, astronaut: Pixels) -> None:
    """Segments never fall with the bytes, some streams show a part, and the error falls with the segments."""
    codec = codec_of(tmp_path, name, "gaussian", level=0.3, **SMALL[name])
    photo = astronaut[20:44, 40:64]
    data = codec.compress(photo)
    header = len(data) - len(unpack(data)[1])
    found: dict[int, float] = {}
    before = 0
    for size in range(header, len(data), 9):
        try:
            done = codec.decode(data[:size], partial=True)
        except StreamError:
            continue
        assert done.cut
        assert before <= done.segments < codec.signal_codec.segments
        before = done.segments
        found[before] = psnr(photo, done.images[0])
    assert len(found) >= 3
    assert found[max(found)] > found[min(found)] + 1
    with pytest.raises(StreamError, match="damaged or cut short"):
        codec.decompress(data[:-1])


@pytest.mark.parametrize("name", list(SMALL))
def test_damage_of_a_payload_with_a_right_checksum_is_found(name: str, tmp_path: Path, astronaut: Pixels) -> None:
    """At the first bad segment or, seldom, the one after; eight in ten thousand pass all of them."""
    codec = codec_of(tmp_path, name, "gaussian", level=0.4, **SMALL[name])
    data = codec.compress(astronaut[20:36, 40:56])
    header, payload = unpack(data)
    refused = 0
    for place in range(len(payload)):
        changed = bytearray(payload)
        changed[place] ^= 1 << place % 8
        try:
            codec.decompress(pack(header, bytes(changed)))
        except StreamError:
            refused += 1
    assert refused >= len(payload) - 1


@pytest.mark.parametrize("name", list(SMALL))
def test_random_payloads_are_refused_or_decoded_in_bounded_time(name: str, tmp_path: Path) -> None:
    codec = codec_of(tmp_path, name, "gaussian", level=0.05, **SMALL[name])
    header = codec.header(16, 16)
    source = np.random.default_rng(5)
    for size in (0, 1, 7, 60, 200):
        for _ in range(4):
            with pytest.raises(StreamError):
                codec.decompress(pack(header, source.bytes(size)))


class Denoises(Gaussian):
    """A prior whose estimates are multiplied by a factor."""

    factor = 1.0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return super().denoise(x, sigma) * self.factor


@pytest.mark.parametrize("family", [DDCM, TurboDDCM, DiffC])
@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e200])
def test_a_denoiser_that_diverges_is_one_sentence(family: Any, factor: float) -> None:
    prior = Denoises()
    prior.factor = factor
    with pytest.raises(PscxError, match="the estimate in step 1 has numbers that are not finite: the denoiser div"):
        family(prior, level=0.3, steps=4).encode(torch.zeros(3, 16, 16))


class Asked(Reader):
    """Counts how often it is asked."""

    asked = 0

    def word(self, value: int, count: int) -> int:
        self.asked += 1
        return super().word(value, count)


def test_a_step_is_given_up_as_soon_as_the_payload_has_ended() -> None:
    """A few bytes cannot ask for the 12,000 atoms of a step."""
    codec = DDCM(PRIOR, level=0.3, steps=1, atoms=255, weight_bits=1, group=4, entries=4)
    shape = (3, 16, 16)
    reader = Asked(b"\x80" * 4)
    outcome = codec.path(shape).walk(reader, shape, Account())
    assert str(outcome.cut) == "the payload ends"
    assert reader.asked < 20


def test_a_hostile_spec_is_refused_before_it_costs_anything(tmp_path: Path, astronaut: Pixels) -> None:
    codec = codec_of(tmp_path, "turbo_ddcm", "gaussian", level=0.3, steps=2)
    data = codec.compress(astronaut[:16, :16])
    header, payload = unpack(data)
    for key, value in (
        ("entries", 99),
        ("group", 2),
        ("steps", 0),
        ("codebook", "random"),
        ("flow", 65),
        ("curve", [1.0]),
    ):
        spec = yaml.safe_load(header.spec) | {key: value}
        text = str(spec).replace("'", '"').replace("None", "null")
        changed = pack(type(header)(**{**header.__dict__, "spec": text}), payload)
        with pytest.raises(StreamError, match=key):
            codec.decompress(resealed(changed))


@pytest.mark.parametrize("name", list(SMALL))
def test_rate_control(name: str, tmp_path: Path, astronaut: Pixels) -> None:
    codec = codec_of(tmp_path, name, "gaussian", **SMALL[name])
    photo = astronaut[10:42, 30:62]
    data = codec.compress(photo, bpp=3.0)
    assert 0.96 * 3.0 < 8 * len(data) / photo[..., 0].size <= 3.0
    assert psnr(photo, codec.decompress(codec.compress(photo, psnr=22.0))) == pytest.approx(22.0, abs=0.4)
    sizes = [len(codec.compress(photo, quality=quality)) for quality in (10, 30)]
    assert sizes == sorted(sizes)


def test_a_walk_that_stops_early_is_as_good_as_its_atoms(tmp_path: Path, astronaut: Pixels) -> None:
    codec = codec_of(tmp_path, "ddcm", "gaussian", level=0.3, **SMALL["ddcm"]).signal_codec
    signal = codec.to_signal(torch.from_numpy(astronaut[:24, :24] / 127.5 - 1.0).permute(2, 0, 1)[None])[0]
    sizes, errors = [], []
    for keep in (0, 20, 60, None):
        payload, outcome = codec.encode(signal, keep=keep)
        again = codec.decode(payload, tuple(signal.shape))
        restored = codec.restore(again, tuple(signal.shape))
        assert torch.equal(restored, codec.restore(outcome, tuple(signal.shape)))
        sizes.append(len(payload))
        errors.append(float((restored - signal).square().mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[0] < 10


def test_the_flow_ends_nearer_to_the_prior_than_the_denoised_state() -> None:
    """Its end has more of the variance that denoising removes, and a larger error."""
    (signal,) = signals(1)
    one, many = (TurboDDCM(PRIOR, level=0.5, flow=flow) for flow in (1, 6))
    _, outcome = one.encode(signal)
    shape = tuple(signal.shape)
    mean, end = one.restore(outcome, shape), many.restore(outcome, shape)
    assert (end - signal).square().sum() > (mean - signal).square().sum()
    assert end.square().sum() > mean.square().sum()


@pytest.mark.parametrize(
    ("family", "options", "sentence"),
    [
        (DDCM, {"schedule": "least"}, "schedule of ddcm must be even or kl, got 'least'"),
        (DDCM, {"atoms": 0}, "atoms must lie in 1..255, got 0"),
        (DDCM, {"weight_bits": 9}, "weight_bits must lie in 0..8, got 9"),
        (TurboDDCM, {"schedule": "odd"}, "schedule must be one of even, kl and least, got 'odd'"),
        (TurboDDCM, {"codebook": "hadamart"}, "did you mean 'hadamard'"),
        (TurboDDCM, {"level": 0.0}, "level must lie in"),
        (TurboDDCM, {"level": 64.0}, "level must lie in"),
        (TurboDDCM, {"steps": 0}, "steps must lie in 1..4096, got 0"),
        (DiffC, {"chunk": 17}, "chunk must lie in 1..16, got 17"),
        (DiffC, {"candidates": 13}, "candidates must lie in 14..24, got 13"),
    ],
)
def test_options_are_checked(family: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        family(PRIOR, **options)


def test_the_users_view(tmp_path: Path, astronaut: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    photo, stream, back = (str(tmp_path / name) for name in ("photo.png", "photo.pscx", "back.png"))
    Image.fromarray(astronaut[:16, :24]).save(photo)
    assert main(["compress", photo, "-o", stream, "--recipe", "turbo", "--quality", "40"]) == 0
    assert main(["decompress", stream, "-o", back]) == 0
    capsys.readouterr()
    assert main(["info", stream]) == 0
    shown = capsys.readouterr().out
    assert "turbo" in shown
    assert "level" in shown
    assert psnr(astronaut[:16, :24], pscx.read_image(back)) > 20


def test_families_are_tested_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on the command line: the options of another family are left behind."""
    args = ["test", "--model.codec", "ddcm", "--model.codec.prior", "gaussian", "--model.codec.level", "1.0"]
    args += ["--data.root", "bundled", "--data.crop", "32", "--data.subset", "1"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "summary.csv").exists()


@pytest.mark.parametrize(
    ("options", "prior"),
    [
        (["--model.codec", "ddcm"], {"name": "ddpm", "exact": True}),
        (["--model.codec", "{name: diffc, chunk: 9}"], {"name": "ddpm", "exact": True}),
        (["--model.codec", "ddcm", "--model.codec.prior", "gaussian"], {"name": "gaussian"}),
        (["--model.codec", "{name: ddcm, prior: gaussian}"], {"name": "gaussian"}),
    ],
)
def test_another_family_keeps_the_prior_of_the_config(options: list[str], prior: dict[str, Any]) -> None:
    """``docs/families.md`` begins with this; the other options of the recipe's codec are left behind."""
    layers, rest = split_options(["--config", "configs/quickstart.yaml", *options, "--model.codec.level", "0.2"])
    assert not rest
    codec = Sources(layers).tree()["model"]["codec"]
    kept = codec["prior"] if isinstance(codec["prior"], dict) else {"name": codec["prior"]}
    assert {key: value for key, value in kept.items() if key in prior} == prior
    assert codec["level"] == "0.2"
    assert "quantizer" not in codec


def test_the_family_of_the_docs_is_short_and_codes(
    tmp_path: Path, forget_plugins: Callable[[], None], astronaut: Pixels
) -> None:
    forget_plugins()
    (text,) = re.findall(r"^```python\n(.*?)^```", Path("docs/families.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) < 80
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "coin.py").write_text(text)
    pscx.load_plugins(tmp_path / "mine")
    codec = codec_of(tmp_path, "coin", "gaussian", level=1.5)
    photo = astronaut[20:36, 40:56]
    done = codec.simulate(photo)
    assert np.array_equal(codec.decompress(done.data), done.pixels)
    grey = np.full_like(photo, 128)
    assert psnr(photo, done.pixels) > psnr(photo, grey) + 2


def test_the_names() -> None:
    assert {name: CODECS.get(name) for name in SMALL} == {"ddcm": DDCM, "turbo_ddcm": TurboDDCM, "diffc": DiffC}
