"""Where a codec runs when nobody says where: on the CPU, with a sentence where that leaves an accelerator idle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny import CODEC, write_codec

from pscx.cli.main import main
from pscx.config import Layer, option_layer, read_yaml
from pscx.runs.lightning import configuration
from pscx.runtime.devices import accelerator

SENTENCE = "although there is an accelerator (cuda)"
GPUS = {"cuda": torch.cuda, "mps": torch.backends.mps}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose torch and Lightning find a GPU of CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def config(tmp_path: Path) -> str:
    return write_codec(tmp_path)


def run(command: str, config: str, folder: Path, root: Path, *options: str) -> int:
    where = ["--data.root", str(folder), "--trainer.default_root_dir", str(root)]
    return main([command, "--config", config, *where, *options])


@pytest.mark.parametrize("name", GPUS)
def test_every_kind_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, place in GPUS.items():
        monkeypatch.setattr(place, "is_available", lambda kind=kind: kind == name)
    assert accelerator() == name


def test_another_kind_is_found_by_torchs_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in GPUS.values():
        monkeypatch.setattr(place, "is_available", lambda: False)
    other = SimpleNamespace(is_available=lambda: True, current_accelerator=lambda: torch.device("xpu"))
    monkeypatch.setattr(torch, "accelerator", other, raising=False)
    assert accelerator() == "xpu"
    monkeypatch.delattr(torch, "accelerator")  # torch before 2.6
    assert accelerator() is None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("command", ["test", "predict", "fit"])
def test_codecs_run_on_the_cpu_and_say_so_once(
    command: str, config: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning's own warning is not shown beside it."""
    assert run(command, config, image_folder, tmp_path / "run") == 0
    errors = capsys.readouterr().err
    assert errors.count(SENTENCE) == 1
    assert errors.startswith("pscx: this runs on the CPU")
    assert "GPU available" not in errors
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["trainer"]["accelerator"] == "cpu"


@pytest.mark.usefixtures("gpu")
def test_an_ablation_says_so_once(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {
        **yaml.safe_load(CODEC),
        "axes": {"model.codec.quantizer.step": [0.5, 0.25]},
        "rate": "model.codec.quantizer.step",
    }
    config = write_codec(tmp_path, yaml.safe_dump(grid, sort_keys=False))
    for times in (1, 0):  # nothing is left to do the second time
        assert run("ablate", config, image_folder, tmp_path / "grid") == 0
        assert capsys.readouterr().err.count(SENTENCE) == times


@pytest.mark.usefixtures("gpu")
def test_whoever_names_the_cpu_is_told_nothing(
    config: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("test", config, image_folder, tmp_path / "run", "--trainer.accelerator", "cpu") == 0
    assert "accelerator" not in capsys.readouterr().err


def test_nothing_is_said_where_there_is_no_accelerator(
    config: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pscx.runs.accelerators.accelerator", lambda: None)
    assert run("test", config, image_folder, tmp_path / "run") == 0
    assert "accelerator" not in capsys.readouterr().err


def test_only_codecs_are_kept_on_the_cpu(config: str) -> None:
    """The training of a prior takes what there is, and what was asked for is what is taken."""
    data = option_layer("data", {"name": "folder", "root": "bundled"})
    assert configuration("test", [read_yaml(config), data])["trainer"]["accelerator"] == "cpu"
    assert configuration("fit", [read_yaml(config), data])["trainer"]["accelerator"] == "cpu"
    training = dict(read_yaml("configs/fit_ddpm.yaml").values)
    crops = option_layer("data.root", "a"), option_layer("data.val_root", "b")
    assert training.pop("trainer")["accelerator"] == "auto"
    fit = configuration("fit", [Layer("fit.yaml", training), *crops])
    assert "accelerator" not in fit["trainer"]
    asked = option_layer("trainer.accelerator", "gpu")
    assert configuration("test", [read_yaml(config), data, asked])["trainer"]["accelerator"] == "gpu"
