"""Metrics as components: their page, a plugin, what `pscx components` shows; and a torchvision that does not load."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pscx
from pscx.cli.main import main
from pscx.config import Checker, Layer, built
from pscx.data import FolderData
from pscx.errors import PscxError
from pscx.metrics import METRICS, ImageMetric, Metric, SetMetric
from pscx.runtime.extras import broken_torchvision

DOC = Path("docs/metrics.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOC.partition("## What")[0], re.MULTILINE))
COMMANDS = re.findall(r"^```sh\npscx (.*?)\n```", DOC, re.MULTILINE)
CODE = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)


def test_the_page_has_a_row_for_each() -> None:
    assert set(ROWS) == set(METRICS.classes)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_page(name: str) -> None:
    _, better, side, _, paper = (cell.strip() for cell in ROWS[name].split("|"))
    metric = METRICS.get(name)()
    assert metric.name == metric.column == name
    assert better == ("higher" if metric.higher_is_better else "lower")
    assert paper.removeprefix("{footcite:t}`").rstrip("`") == (metric.references or ("",))[0]
    if isinstance(metric, ImageMetric):
        assert int(side.split()[0]) == metric.least_side
    else:
        assert isinstance(metric, SetMetric)
        assert side == (f"one patch: {vars(metric)['side']}" if "side" in vars(metric) else "1")


def test_every_class_is_one_of_two_kinds() -> None:
    assert all(issubclass(cls, (ImageMetric, SetMetric)) for cls in METRICS.classes.values())
    assert all(isinstance(cls.title, str) for cls in METRICS.classes.values())


def test_what_pscx_components_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "metrics"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("metric:\n  clip_iqa: CLIP-IQA (Wang et al. 2023")
    assert "net = 'alex'  (one of 'alex', 'vgg', 'squeeze')" in out
    assert main(["components", "kid"]) == 0
    assert "subset_size: patches in a subset" in capsys.readouterr().out


@pytest.fixture
def plugin(tmp_path: Path, forget_plugins: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin of the page, loaded by nobody yet; the current folder is one that has the repository's ``pscx``."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mae.py").write_text(CODE[1])
    (tmp_path / "pscx").symlink_to(Path("pscx").resolve())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


def test_the_plugin_of_the_page(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMANDS[0].split()) == 0
    assert "crop = 0  (an integer)" in capsys.readouterr().out
    exec(CODE[2], {})


def test_the_metric_of_the_page_is_a_column_of_an_ablation(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the file to the table, as the page says; the values are those of the kept pictures."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    (text,) = (block for block in blocks if "axes:" in block)
    Path("mae.yaml").write_text(text)
    assert main(COMMANDS[1].split()) == 0
    assert "BD-rate in % (MAE)" in capsys.readouterr().out
    root = Path("runs/mae")
    assert "BD-rate in % (MAE)" in (root / "summary.md").read_text()
    assert (root / "mae.png").exists()
    with (root / "results.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert len(records) == 4
    for record in records:
        kept = root / "cells" / record["cell"]
        (photo,) = (kept / "reconstructions").glob("*.png")
        original, other = FolderData("bundled", subset=1, crop=32), pscx.read_image(photo)
        original.setup("test")
        picture = original.photos[0]["pixels"].movedim(0, -1).numpy()
        inner = np.s_[2:-2, 2:-2]
        assert float(record["mae"]) == pytest.approx(np.abs(picture[inner].astype(float) - other[inner]).mean())


def test_a_plugin_from_yaml(plugin: Path, astronaut: NDArray[np.uint8], cat: NDArray[np.uint8]) -> None:
    pscx.load_plugins(plugin)
    form = Checker([Layer("x.yaml", {})]).component(METRICS, {"name": "mae", "crop": 8}, "model.metrics")
    metric = built(form)
    assert isinstance(metric, ImageMetric)
    other = np.clip(astronaut.astype(int) + 3, 0, 255).astype(np.uint8)
    inner = np.s_[8:-8, 8:-8]
    assert metric(astronaut, other) == np.abs(astronaut[inner].astype(int) - other[inner]).mean()
    with pytest.raises(ValueError, match="mae needs sides of at least 17 pixels, got 16x160"):
        metric(cat[:16], cat[:16])
    with pytest.raises(PscxError, match="crop must be at least 0, got -1"):
        built(Checker([]).component(METRICS, {"name": "mae", "crop": -1}, "model.metrics"))


def test_a_metric_must_be_whole() -> None:
    class Half(ImageMetric):
        title, higher_is_better = "Half", True

    with pytest.raises(PscxError, match="metric 'half' lacks measure"):
        METRICS.register("half")(Half)
    with pytest.raises(PscxError, match="metric 'x' must be a class that derives from Metric, got int"):
        METRICS.register("x")(int)  # type: ignore[arg-type]  # wrong on purpose
    assert issubclass(Half, Metric)


BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def test_a_torchvision_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    (tmp_path / "torchvision-0.20.dist-info").mkdir()
    (tmp_path / "torchvision-0.20.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.20\n")
    path = os.pathsep.join([str(Path.cwd()), str(tmp_path)])
    command = [sys.executable, "-m", "pscx", "components", "psnr"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"pscx: torchvision is installed but does not load, .*nms does not exist\)\n", done.stderr)


def test_an_error_of_torchvision_is_found_behind_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(ImportError) as caught:
        _import_as_transformers_does()
    assert "nms does not exist" in (broken_torchvision(caught.value) or "")
    with pytest.raises(ZeroDivisionError) as other:
        _ = 1 / 0
    assert broken_torchvision(other.value) is None


def _import_as_transformers_does() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        raise ImportError("Failed to import transformers.x") from error
