"""The typical error of a path: learnt errors against those of a Gaussian prior in closed form, and ``pscx fit``."""

from __future__ import annotations

import csv
from math import inf, log, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import write_codec

import pscx
from pscx.cli.main import main
from pscx.codecs import DDCM, DiffC, PathCodec, TurboDDCM
from pscx.codecs.paths.curve import COARSEST, ERRORS, SMALLEST, ErrorCurve, curve_of, levels, nats
from pscx.codecs.specs import codec_spec
from pscx.data.folder import BUNDLED
from pscx.errors import ImageError
from pscx.format.container import unpack
from pscx.priors import Gaussian
from pscx.training import FitCurve
from pscx.training.fit_curve import falling, read_errors
from pscx.training.over_images import arrays_file, read_arrays

Pixels = NDArray[np.uint8]
SIDE = 16
TURBO = """\
model:
  codec:
    name: turbo_ddcm
    prior: gaussian
    steps: 6
    level: 0.4
"""


def silent(done: int, of: int) -> None:
    """No bar."""


def seen(prior: Gaussian, draws: int, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Errors and errors by band, means over draws from the prior itself."""
    module = FitCurve(TurboDDCM(prior))
    found = []
    for seed in range(draws):
        signal = prior.draw(SIDE, SIDE, torch.Generator().manual_seed(seed))[0]
        (folder / "one.npz").write_bytes(module.observe(TurboDDCM(prior), signal, "key", silent))
        one = read_errors(folder / "one.npz", "key")
        assert one is not None
        found.append(one)
    return np.mean([one.errors for one in found], 0), np.mean([one.bands for one in found], 0)


def test_any_damage_to_a_kept_file_is_noticed(tmp_path: Path) -> None:
    """Each byte in turn: also those by which a file says that it is encrypted, or compressed in some other way."""
    file, errors = tmp_path / "one.npz", np.arange(3.0)
    whole = arrays_file("key", errors=errors)
    for place in range(len(whole)):
        for change in (1, 255):
            damaged = bytearray(whole)
            damaged[place] ^= change
            file.write_bytes(damaged)
            found = read_arrays(file, "key", ("errors",))
            assert found is None or np.array_equal(found[0], errors)
    file.write_bytes(whole)
    assert np.array_equal((read_arrays(file, "key", ("errors",)) or [])[0], errors)


def test_levels_fall_from_64_to_the_finest() -> None:
    assert (levels()[0], levels()[-1]) == (64.0, 2.0**-7)
    assert [1 / level**2 for level in levels()] == pytest.approx([COARSEST * 2.0**place for place in range(27)])


def test_errors_are_those_of_the_exact_posterior(tmp_path: Path) -> None:
    prior = Gaussian(correlation=0.6, color=0.3, deviation=0.5)
    spectrum = torch.linalg.eigvalsh(prior.covariance(SIDE, SIDE))
    expected = [float((spectrum / (1 + spectrum / level**2)).mean()) for level in levels()]
    errors, _ = seen(prior, 24, tmp_path)
    assert errors.tolist() == pytest.approx(expected, rel=0.1)
    assert np.mean(errors / expected) == pytest.approx(1, abs=0.03)


def test_errors_of_bands_are_those_of_the_exact_posterior(tmp_path: Path) -> None:
    """Pixels that do not correlate have the same variance in all bands, and another on each axis of colours."""
    prior = Gaussian(correlation=0.0, color=0.5, deviation=0.5)
    variance = torch.linalg.eigvalsh(prior.block_covariance(1)).flip(0)
    _, bands = seen(prior, 24, tmp_path)
    assert bands.shape == (27, 3, 8)
    squares = torch.tensor(levels())[:, None] ** 2
    ratios = bands / (variance / (1 + variance / squares)).numpy()[..., None]
    assert ratios[..., 1:].mean(0) == pytest.approx(np.ones((3, 7)), abs=0.15)
    assert ratios.mean((0, 2)) == pytest.approx(np.ones(3), abs=0.05)


def test_a_rising_error_counts_as_the_largest_after_it() -> None:
    errors = [*ERRORS[:10], 0.06, *ERRORS[11:]]
    assert falling(errors).errors == (*ERRORS[:8], ERRORS[8], 0.06, 0.06, *ERRORS[11:])
    assert falling([error * (1 + 1e-9) for error in ERRORS]).errors == ERRORS
    assert falling([0.0] * len(ERRORS)).errors == (SMALLEST,) * len(ERRORS)


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ([0.1], "curve must be 27 numbers, got 1"),
        ([0.0] * 27, r"curve must lie in 1e-12..4096, got 0.0"),
        ([float("nan")] * 27, "curve must lie in 1e-12..4096, got nan"),
        ([0.1] * 26 + [0.2], "curve must not rise towards lower levels, got 0.2 after 0.1"),
    ],
)
def test_a_curve_is_checked(curve: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TurboDDCM(Gaussian(), curve=curve)


@pytest.mark.parametrize("family", [DDCM, DiffC, TurboDDCM])
def test_the_curve_that_ships_is_not_stored(family: type[PathCodec]) -> None:
    make: Any = family
    assert make(Gaussian(), curve=[*ERRORS]).curve is None
    assert "curve" not in codec_spec(make(Gaussian()))
    mine = [2 * error for error in ERRORS]
    assert codec_spec(make(Gaussian(), curve=mine))["curve"] == mine
    assert make(Gaussian(), curve=mine).with_parameter(0.5).curve == mine


def test_steps_of_equal_divergence_follow_the_curve() -> None:
    """Of an error that is ``1 / (4 + p)`` at the precision ``p``: the integral to ``p`` is ``log(1 + p / 4)``."""
    curve = tuple(1 / (4 + 1 / level**2) for level in levels())
    found = TurboDDCM(Gaussian(), level=0.25, steps=5, schedule="kl", curve=[*curve]).precisions()
    parts = [log((4 + p) / (4 + COARSEST)) for p in found]
    assert parts == pytest.approx([parts[-1] * part / 5 for part in range(1, 6)], rel=0.01)
    assert found != TurboDDCM(Gaussian(), level=0.25, steps=5, schedule="kl").precisions()


def test_the_cost_of_small_steps_is_the_integral() -> None:
    curve = curve_of(tuple(1 / (4 + 1 / level**2) for level in levels()))
    steps = [COARSEST, *curve.divided(COARSEST, 64.0, 4000, nats)]
    assert curve.cost(steps) == pytest.approx(log(68 / (4 + COARSEST)) / 2, rel=0.01)
    assert ErrorCurve().cost([COARSEST, 1.0]) == pytest.approx((1 - COARSEST) * ERRORS[0] / 2)


def fit(folder: Path, *options: str, config: str = "") -> Path:
    """The folder of a fit on the bundled photographs."""
    where = ["--data.root", "bundled", "--data.crop", "32", "--trainer.default_root_dir", str(folder / "fit")]
    path = config or write_codec(folder, f"{TURBO}  name: fit_curve\n", "fit.yaml")
    assert main(["fit", "--config", path, *where, *options]) == 0
    return folder / "fit"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_config_of_the_repository_writes_a_codec(tmp_path: Path, astronaut: Pixels) -> None:
    root = fit(tmp_path, "--model.codec.prior", "gaussian", config="configs/fit_curve.yaml")
    learnt = [float(row["learned"]) for row in rows(root / "curve.csv")]
    assert yaml.safe_load((root / "curve.yaml").read_text()) == {"model": {"codec": {"curve": learnt}}}
    assert [float(row["before"]) for row in rows(root / "curve.csv")] == [*ERRORS]
    assert learnt == sorted(learnt, reverse=True)
    photos = [np.load(file)["errors"] for file in sorted((root / "observations").glob("*.npz"))]
    assert len(photos) == len(list(BUNDLED.glob("*.*")))
    assert learnt[-1] == pytest.approx(np.mean(photos[:-1], 0)[-1], rel=1e-5)  # the fifth is held out
    assert len(rows(root / "bands.csv")) == 27 * 3
    assert [row["curve"] for row in rows(root / "costs.csv")] == ["before", "learned"]
    codec = pscx.load_codec(root / "codec.yaml", level=0.5)
    done = codec.simulate(astronaut[:24, :24])
    assert '"curve"' in (unpack(done.data)[0].spec or "")
    assert np.array_equal(pscx.Decompressor().decompress(done.data), done.pixels)


def test_a_run_goes_on_from_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (fit(tmp_path) / "curve.csv").read_text()
    monkeypatch.setattr(Gaussian, "denoise", None)  # not called again
    options = ["--model.held_out", "null", "--model.codec.steps", "9", "--model.codec.level", "0.7"]
    root = fit(tmp_path, *options)
    assert not (tmp_path / "fit-1").exists()
    assert (root / "curve.csv").read_text() != first


def test_the_curve_is_learnt_for_codecs_of_a_path_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.codec", "psc", "--trainer.default_root_dir", str(tmp_path / "fit")]
    assert main(["fit", "--config", "configs/fit_curve.yaml", *options]) == 2
    assert capsys.readouterr().err.endswith("cannot be 'psc': choose from ddcm, diffc, turbo_ddcm\n")


def test_a_signal_without_a_whole_block_is_refused() -> None:
    """As is a latent of a small image."""
    codec = TurboDDCM(Gaussian())
    with pytest.raises(ImageError, match="a signal must be at least 8 numbers high and wide"):
        FitCurve(codec).observe(codec, torch.zeros(3, 7, 16), "key", silent)


@pytest.mark.parametrize(("factor", "said"), [(inf, "(inf|nan)"), (nan, "nan"), (3.0, "[0-9.]+")])
def test_a_denoiser_that_diverges_is_told_of(monkeypatch: pytest.MonkeyPatch, factor: float, said: str) -> None:
    """One that triples noise of level 64 has an error over what a curve may hold."""
    codec = TurboDDCM(Gaussian())
    monkeypatch.setattr(Gaussian, "denoise", lambda self, x, sigma: x * factor)
    with pytest.raises(ImageError, match=f"the denoiser diverges: its squared error is {said}, and may be"):
        FitCurve(codec).observe(codec, torch.ones(3, 8, 8), "key", silent)
