"""``pscx fit --config configs/fit_latent.yaml``: what it learns, an interrupted run, and the recipe that it writes."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from PIL import Image
from tiny_latent import no_hub, save_stable_diffusion  # noqa: F401  # a fixture

import pscx
from pscx import ImageError, StreamError
from pscx.cli.main import main
from pscx.config.recipes import folders
from pscx.format.container import unpack
from pscx.priors import StableDiffusion
from pscx.training import FitLatent
from pscx.training.fit_latent import compared

Pixels = NDArray[np.uint8]
SMALL = ["--model.codec.iterations", "3", "--model.codec.rows.block", "4", "--data.crop", "32"]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_named", {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_stable_diffusion(tmp_path_factory.mktemp("model"), prediction="v_prediction")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six smooth pictures."""
    folder, source = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(source.integers(0, 256, (5, 5, 3), np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def fit(root: Path, model: str, images: Path, *options: str) -> int:
    where = ["--data.root", str(images), "--model.codec.prior.path", model, "--trainer.default_root_dir", str(root)]
    return main(["fit", "--config", "configs/fit_latent.yaml", *where, *SMALL, *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str, images: Path) -> Path:
    root = tmp_path_factory.mktemp("whole") / "run"
    assert fit(root, model, images) == 0
    return root


def fitted(root: Path) -> dict[str, Any]:
    codec: dict[str, Any] = yaml.safe_load((root / "recipes" / "fitted.yaml").read_text())["model"]["codec"]
    return codec


def table(root: Path) -> list[dict[str, str]]:
    with (root / "fit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_config_of_the_repository_learns_all_there_is(whole: Path, model: str, images: Path) -> None:
    codec = fitted(whole)
    assert codec["rows"]["name"] == "learned"
    assert [len(codec["rows"][name]) for name in ("weights", "pyramid", "statistics")] == [30, 14, 4 * (5 + 5)]
    assert len(codec["coder"]["gains"]) == 3
    assert [row["codec"] for row in table(whole)] == [
        *(f"{name}, step {step}" for step in (0.2, 0.35, 0.6) for name in ("before", "fitted")),
        "saved at equal error",
    ]
    prior = StableDiffusion(model)
    signals = []
    for number in (0, 1, 2, 3, 5):  # the fifth is held out
        pixels = np.asarray(Image.open(images / f"{number}.png"))[4:36, 4:36]
        signals.append(prior.to_signal(torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)[None])[0])
    means = torch.stack(signals).double().mean((0, 2, 3))
    assert codec["rows"]["statistics"][:4] == pytest.approx(means.tolist(), abs=1e-4)


class KilledError(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("after", [9, 14])
def test_a_killed_run_goes_on_and_ends_alike(
    after: int, whole: Path, model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the pass over rows, and in that over gains: what was seen is not looked at again."""
    seen: list[str] = []
    observe = FitLatent.observe

    def counted(self: FitLatent, *args: Any) -> bytes:
        if len(seen) == after:
            raise KilledError
        seen.append(self.pass_)
        return observe(self, *args)

    monkeypatch.setattr(FitLatent, "observe", counted)
    with pytest.raises(KilledError):
        fit(tmp_path / "run", model, images)
    assert not (tmp_path / "run" / "recipes").exists()
    after = -1
    assert fit(tmp_path / "run", model, images) == 0
    assert [seen.count(name) for name in ("statistics", "rows", "gains", "comparison")] == [6, 6, 6, 1]
    assert fitted(tmp_path / "run") == fitted(whole)
    assert (tmp_path / "run" / "fit.csv").read_text() == (whole / "fit.csv").read_text()


def test_the_time_is_told_at_the_start(
    whole: Path, model: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert fit(whole, model, images) == 0
    assert "expected time: about 1 s (6 images, 0 evaluations of the denoiser" in capsys.readouterr().out
    codec = pscx.load_codec("latent-rows", prior={"path": model}, iterations=3).signal_codec
    assert fit(tmp_path / "run", model, images) == 0
    told = 2 * 6 * codec.evaluations(0) + 2 * 3 * codec.evaluations(1)  # one image is held out, at three steps
    assert f"(6 images, {told} evaluations of the denoiser" in capsys.readouterr().out.split("\n")[0]


def failing(*_: Any) -> Any:
    raise ImageError("it needs too much memory")


def test_a_stream_of_images_tells_no_time(
    model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(images / "0.png", "0.png")
    monkeypatch.setattr(FitLatent, "observe", failing)
    data = ["--data", f"{{name: webdataset, urls: '{tmp_path / 'images.tar'}'}}"]
    options = ["--model.codec.prior.path", model, *data, *SMALL, "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", "--config", "configs/fit_latent.yaml", *options]) == 2
    told = capsys.readouterr()
    assert "it needs too much memory" in told.err
    assert "expected time" not in told.out


def test_a_recipe_is_written_where_no_comparison_can_be_made(
    whole: Path,
    model: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole, root, ignore=shutil.ignore_patterns("comparison", "recipes", "fit.csv"))
    monkeypatch.setattr("pscx.training.fit_latent.costs", failing)
    assert fit(root, model, images) == 2
    assert "it needs too much memory" in capsys.readouterr().err
    assert fitted(root) == fitted(whole)
    assert not (root / "fit.csv").exists()


DECODE = """
import sys
import numpy as np
from pathlib import Path
import pscx
np.save(sys.argv[2], pscx.Decompressor(prior_path=sys.argv[3]).decompress(Path(sys.argv[1]).read_bytes()))
"""


def decoded(data: bytes, model: str, folder: Path, recipes: str) -> subprocess.CompletedProcess[str]:
    (folder / "one.pscx").write_bytes(data)
    args = [sys.executable, "-c", DECODE, str(folder / "one.pscx"), str(folder / "out.npy"), model]
    environment = {**os.environ, "PSCX_RECIPES": recipes}
    return subprocess.run(args, capture_output=True, text=True, env=environment, check=False)


def test_streams_have_a_header_of_30_bytes_and_decode_where_the_file_is(
    whole: Path, model: str, images: Path, tmp_path: Path
) -> None:
    pscx.load_recipes(whole / "recipes")
    codec = pscx.load_codec("fitted", prior={"path": model})
    pixels = np.tile(np.asarray(Image.open(images / "4.png"))[4:36, 4:36], (5, 5, 1))
    done = codec.simulate(pixels)
    header, payload = unpack(done.data)
    assert (header.recipe, header.arithmetic[:1]) == (255, "#")
    assert len(done.data) - len(payload) == 30
    assert decoded(done.data, model, tmp_path, str(whole / "recipes")).returncode == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), done.pixels)
    (tmp_path / "empty").mkdir()
    lacking = decoded(done.data, model, tmp_path, str(tmp_path / "empty"))
    sentence = lacking.stderr.splitlines()[-1]
    assert sentence.startswith("pscx.errors.StreamError: the stream was made with a user recipe (digest ")
    assert f"none of the recipes in '{tmp_path / 'empty'}' has it" in sentence


def test_saved_bits_are_those_at_equal_error() -> None:
    """At half the bits for the same error all along, 50 percent are saved."""
    before = np.array([[100.0, 0.1], [200.0, 0.01], [400.0, 0.001]])
    image = np.stack([before, before * [0.5, 1.0]])
    *_, last = compared([image, image], [0.6, 0.35, 0.2])
    assert last["saved_percent"] == pytest.approx(50)
    apart = np.stack([before, before * [1.0, 1e-6]])
    assert compared([apart], [0.6, 0.35, 0.2])[-1]["saved_percent"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.steps", "[0.3]"], "steps must be at least two different numbers, got [0.3]"),
        (["--model.steps", "[0.3, -1]"], "quantizer.step must"),
        (["--model.codec.rows", "local"], "rows must be dct or learned to fit a codec, got local"),
        (["--model.codec.coder", "raw"], "coder must be posterior to fit a codec, got raw"),
        (["--model.codec.iterations", "2"], "iterations must be at least 3 to fit a codec, got 2"),
        (["--model.coefficients", "0"], "coefficients must be at least 1, got 0"),
        (["--model.held_out", "1"], "held_out must be at least 2, or none, got 1"),
    ],
)
def test_options_are_checked(
    options: list[str], sentence: str, model: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option for option in SMALL if "block" not in option and option != "4"] if "local" in options else SMALL
    where = ["--data.root", str(images), "--model.codec.prior.path", model]
    args = ["fit", "--config", "configs/fit_latent.yaml", *where, *given, *options]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err


def test_a_stream_of_another_file_is_refused(whole: Path, model: str, images: Path, tmp_path: Path) -> None:
    """A changed number is another recipe."""
    pscx.load_recipes(whole / "recipes")
    data = pscx.load_codec("fitted", prior={"path": model}).compress(np.asarray(Image.open(images / "0.png")))
    folders._named.clear()
    codec = fitted(whole)
    codec["rows"]["statistics"][0] += 0.5
    (tmp_path / "fitted.yaml").write_text(yaml.safe_dump({"model": {"codec": codec}}))
    pscx.load_recipes(tmp_path)
    with pytest.raises(StreamError, match="the stream was made with a user recipe"):
        pscx.Decompressor(prior_path=model).decompress(data)
