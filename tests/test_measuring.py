"""The metrics of ``pscx test``: any of them, of an image or of the set, in one process or several, kept and resumed."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from PIL import Image
from seeded_features import SeededFeatures
from tiny import write_codec
from torch import Tensor

from pscx import load_codec, load_plugins, read_image
from pscx.api import Codec
from pscx.cli.main import main
from pscx.config import Checker, ConfigError, Layer, built
from pscx.config.plugins import VARIABLE
from pscx.data import FolderData
from pscx.data.folder import BUNDLED
from pscx.evaluation import Evaluate
from pscx.evaluation.measuring import Measuring, facts_of
from pscx.metrics import FID, GMSD, METRICS, PSNR, Metric
from pscx.runs.modules import MODULES

pytestmark = pytest.mark.usefixtures("meeting_point")

NETWORK = "{class_path: seeded_features.SeededFeatures, init_args: {seed: 1}}"
FID16 = f"{{name: fid, side: 16, network: {NETWORK}}}"


def call(config: str, images: Path, root: Path, *options: str) -> list[str]:
    return ["test", "--config", config, "--data.root", str(images), "--trainer.default_root_dir", str(root), *options]


def means_of(root: Path) -> dict[str, str]:
    with (root / "summary.csv").open(newline="") as file:
        return next(csv.DictReader(file))


def fid_of(images: Path, root: Path) -> float:
    metric = FID(side=16, network=SeededFeatures(seed=1))
    names = {"a": "a.png", "b": "b.webp", "sub__a": "sub/a.png"}
    pairs = [
        (read_image(images / file), read_image(root / f"reconstructions/{name}.png")) for name, file in names.items()
    ]
    return metric.compute([metric.keep(*pair) for pair in pairs])


def test_a_metric_of_the_set_is_that_of_all_images_also_when_the_run_goes_on(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, root = write_codec(tmp_path), tmp_path / "run"
    assert main(call(config, image_folder, root)) == 0
    assert "fid" not in means_of(root)
    monkeypatch.setattr(Codec, "simulate", None)  # pictures are read back
    assert main(call(config, image_folder, root, "--model.metrics", f"[{FID16}, gmsd]")) == 0
    means = means_of(root)
    assert float(means["fid"]) == pytest.approx(fid_of(image_folder, root))
    assert 0 < float(means["gmsd"]) < 1
    assert "fid" not in (root / "images.csv").read_text()
    facts = json.loads((root / "metrics.json").read_text())
    assert list(facts) == ["fid", "gmsd"]
    assert (facts["fid"]["of"], facts["gmsd"]["of"]) == ("set", "image")
    assert len(facts["fid"]["weights"]["seeded_features.SeededFeatures"]) == 64
    logged = (root / "logs" / "csv" / "metrics.csv").read_text().splitlines()
    assert "mean/fid" in logged[0]
    assert means["fid"] in logged[-1]


BOX = re.findall(r"^```python\n(.*?)^```", Path("docs/plugins.md").read_text(), re.MULTILINE | re.DOTALL)[2]
FULL = (
    f"[psnr, ms_ssim, ssimulacra2, flip, gmsd, {{name: fid, side: 64, network: {NETWORK}}}, "
    f"{{name: kid, side: 64, subset_size: 6, network: {NETWORK}}}]"
)
PLACES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")  # what a run in this process has left there
NAMES = ("psnr", "ms_ssim", "ssimulacra2", "flip", "gmsd", "fid", "kid")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Four bundled photographs, one of them enlarged, because MS-SSIM needs 176 pixels."""
    root = tmp_path / "photographs"
    root.mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        with Image.open(BUNDLED / f"{name}.png") as image:
            image.resize((192, 176) if name == "coffee" else image.size).save(root / f"{name}.png")
    return root


def process(arguments: list[str]) -> subprocess.Popen[str]:
    """A pscx of its own, which can import what lies among the tests."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pscx.cli.main", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in PLACES} | {"PYTHONPATH": paths}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def tables_of(root: Path) -> list[dict[str, str]]:
    """All that both tables say, but for seconds."""
    found = []
    for name in ("images.csv", "summary.csv"):
        with (root / name).open(newline="") as file:
            found += list(csv.DictReader(file))
    timed = ("encode_seconds", "decode_seconds", "network_share")
    return [{key: value for key, value in record.items() if key not in timed} for record in found]


@pytest.mark.skipif(find_spec("flip_evaluator") is None, reason="the extra 'metrics' is not installed")
def test_two_processes_and_a_killed_run_that_goes_on_give_the_tables_of_one_undisturbed(
    photographs: Path, tmp_path: Path, forget_plugins: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec that takes no time, so that the time goes into the metrics."""
    config = str(tmp_path / "jpeg.yaml")
    Path(config).write_text("model: {codec: {name: jpeg_box, quality: 30}}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "jpeg_box.py").write_text(BOX)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    forget_plugins()
    load_plugins(tmp_path / "mine")
    one, two, killed = tmp_path / "one", tmp_path / "two", tmp_path / "killed"
    assert main(call(config, photographs, one, "--model.metrics", FULL)) == 0
    means = means_of(one)
    assert all(means[name] for name in NAMES)
    assert float(means["fid"]) > 0

    options = ["--model.metrics", FULL, "--model.ranks_per_image", "1"]
    options += ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    both = process(call(config, photographs, two, *options))
    errors = both.communicate(timeout=300)[1]
    assert both.returncode == 0, errors
    assert tables_of(two) == tables_of(one)
    logged = (two / "logs" / "csv" / "metrics.csv").read_text().splitlines()
    assert means["psnr"] in logged[-1].split(",")  # that of all images, to the last digit

    arguments = call(config, photographs, killed, "--model.metrics", FULL, "--data.batch_size", "1")
    alone = process(arguments)
    while alone.poll() is None and not list((killed / "records").glob("*.json")):
        time.sleep(0.005)
    alone.kill()
    alone.communicate()
    assert 1 <= len(list((killed / "records").glob("*.json"))) < 4
    assert not (killed / "summary.csv").exists()
    assert main(arguments) == 0
    assert tables_of(killed) == tables_of(one)


def test_a_metric_of_the_set_that_saw_too_little_has_no_value(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = f"{{name: fid, side: 64, network: {NETWORK}}}"
    config, root = write_codec(tmp_path), tmp_path / "run"
    assert main(call(config, image_folder, root, "--model.metrics", f"[psnr, {large}]")) == 0
    assert means_of(root)["fid"] == ""
    assert float(means_of(root)["psnr"]) > 0
    assert "pscx: warning: no value of fid: fid needs at least 2 patches of 64x64" in capsys.readouterr().err


class Seen(Callback):
    def __init__(self) -> None:
        self.metrics: dict[str, Tensor] = {}

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.metrics = dict(trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_a_trainer_returns_the_means_and_callbacks_see_them(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    module = Evaluate(load_codec(write_codec(tmp_path)).signal_codec, metrics=[PSNR(), GMSD()])
    options: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "inference_mode": False}
    trainer = Trainer(default_root_dir=tmp_path / "run", logger=False, callbacks=[seen], **options)
    (returned,) = trainer.test(module, datamodule=FolderData(str(image_folder)), verbose=False)
    means = means_of(tmp_path / "run")
    assert returned.keys() == seen.metrics.keys() == {f"mean/{key}" for key in means}
    assert {key: float(value) for key, value in means.items()} == {
        key.removeprefix("mean/"): value for key, value in returned.items()
    }
    assert float(seen.metrics["mean/gmsd"]) == returned["mean/gmsd"]


def test_predict_measures_nothing(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PSNR, "measure", None)
    arguments = call(write_codec(tmp_path), image_folder, tmp_path / "run")
    assert main(["predict", *arguments[1:]]) == 0
    monkeypatch.undo()
    assert main(arguments) == 0
    assert float(means_of(tmp_path / "run")["psnr"]) > 0


class Unknown(GMSD):
    """Not registered."""


def test_columns_are_words_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="different columns in tables, but two are called 'gmsd'"):
        Measuring([GMSD(), PSNR(), GMSD()])
    with pytest.raises(ValueError, match=r"must be registered, but test_measuring.Unknown is not"):
        Measuring([Unknown()])
    for name in ("bpp", "left_out", "measurements", "name", "../x"):
        monkeypatch.setattr(GMSD, "column", name)
        with pytest.raises(ValueError, match="must be an identifier and not in use, got "):
            Measuring([GMSD()])
    assert Measuring([]).measures == {}


def test_a_version_changes_with_options_and_weights() -> None:
    versions = {
        facts_of(FID(side=side, network=SeededFeatures(seed=seed)))["version"] for side in (16, 32) for seed in (0, 1)
    }
    assert len(versions) == 4
    again = facts_of(FID(side=16, network=SeededFeatures(seed=0)))["version"]
    assert again in versions


def test_a_list_of_components_is_checked() -> None:
    def metrics(value: Any) -> Any:
        checker = Checker([Layer("mine.yaml", {"model": {"codec": {}, "metrics": value}})])
        return checker.value(list[Metric] | None, value, "model.metrics")

    hint = MODULES.get("evaluate").__init__.__annotations__["metrics"]
    assert hint == "list[Metric] | None"
    found = built(metrics(["psnr", {"name": "lpips", "net": "vgg"}]))
    assert [METRICS.spec(metric)["name"] for metric in found] == ["psnr", "lpips"]
    assert metrics(None) is None
    assert metrics([]) == []
    for value, says in (
        ("psnr", "mine.yaml: model.metrics must be a list, each item the name of a metric or a mapping, got 'psnr'"),
        (["psnrr"], "unknown metric 'psnrr' (did you mean 'psnr'?)"),
        ([{"name": "lpips", "nets": "vgg"}], "metric 'lpips' has no option 'nets' (did you mean 'net'?)"),
        ([3], "needs the name of a metric"),
        ([{"name": "kid", "side": 2}], "side must be at least 16 pixels, got 2"),
    ):
        with pytest.raises(ConfigError) as error:
            metrics(value)
        assert says in str(error.value)


def test_metrics_of_a_config_are_replaced_on_the_command_line(image_folder: Path, tmp_path: Path) -> None:
    config = write_codec(tmp_path)
    Path(config).write_text(Path(config).read_text() + "  metrics: [haarpsi]\n")
    Image.new("RGB", (32, 32)).save(image_folder / "c.png")
    assert main(call(config, image_folder, tmp_path / "run", "--data.subset", "1")) == 0
    assert "haarpsi" in means_of(tmp_path / "run")
    options = ["--data.subset", "1", "--model.metrics", "[psnr, gmsd]"]
    assert main(call(config, image_folder, tmp_path / "run", *options)) == 0
    assert {"psnr", "gmsd"} <= means_of(tmp_path / "run").keys()
    assert "haarpsi" not in means_of(tmp_path / "run")
    stream = tmp_path / "x.pscx"
    assert main(["compress", str(image_folder / "a.png"), "-o", str(stream), "--config", config]) == 0  # not its own
