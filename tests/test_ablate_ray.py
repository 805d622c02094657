"""``pscx ablate --launcher ray`` on a real cluster of this machine."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from oracles import one_thread  # noqa: F401  # as the cluster: Ray gives each of its processes one
from PIL import Image
from tiny import CODEC

from pscx.cli.main import main
from pscx.data.folder import BUNDLED

GRID: dict[str, Any] = {
    **yaml.safe_load(CODEC),
    "axes": {"model.codec.coder": ["posterior", "deadly"], "model.codec.quantizer.step": [0.5, 0.1]},
    "rate": "model.codec.quantizer.step",
    "baseline": {"model.codec.coder": "posterior"},
    "exclude": [{"model.codec.coder": "deadly", "model.codec.quantizer.step": 0.1}],
}
DEADLY = """\
import os

from pscx.coders import CODERS, Encoder, Raw


@CODERS.register("deadly")
class Deadly(Raw):
    '''Ends the process that encodes.'''

    def encoder(self) -> Encoder:
        os._exit(7)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_AUTH_MODE", "token")  # Ray listens on all of the machine's addresses
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # how Ray will treat num_gpus=0; else it warns
        ray = pytest.importorskip("ray")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=80_000_000,
        )
        yield
        ray.shutdown()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A grid of one 32x32 image, one of whose three cells ends the process it runs in."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "deadly.py").write_text(DEADLY)
    (tmp_path / "images").mkdir()
    with Image.open(BUNDLED / "astronaut.png") as image:
        image.crop((0, 0, 32, 32)).save(tmp_path / "images" / "a.png")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    where = ["--config", str(tmp_path / "grid.yaml"), "--data.root", "images", "--plugins", str(tmp_path / "plugins")]
    return ["ablate", *where, "--trainer.default_root_dir", "run"]


def streams(root: Path) -> dict[str, bytes]:
    return {path.parts[-3]: path.read_bytes() for path in root.glob("cells/*/streams/a.pscx")}


def test_cells_run_on_the_cluster_and_a_dead_one_is_counted(
    cluster: None,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forget_plugins: Callable[[], None],
) -> None:
    monkeypatch.chdir(tmp_path)  # the processes of the cluster began elsewhere
    assert main([*arguments, "--launcher", "ray"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    told = [f"pscx: cell {count} of 3" for count in range(1, 4)]
    assert [line.split(" (")[0] for line in lines] == ["pscx: 3 cells, 3 to do", *told]
    assert sum("coder=deadly" in line and "failed: lost by the cluster (" in line for line in lines) == 1
    assert sum("coder=posterior" in line and " dB, " in line for line in lines) == 2
    assert captured.out.count("failed: lost by the cluster") == 1
    done = streams(tmp_path / "run")
    assert len(done) == 2

    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("3 cells, 1 to do\n")

    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**GRID, "exclude": [{"model.codec.coder": "deadly"}]}))
    assert main([*arguments, "--trainer.default_root_dir", "local"]) == 0
    assert streams(tmp_path / "local") == done


def test_more_than_any_machine_has(
    cluster: None,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forget_plugins: Callable[[], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--launcher", "ray", "--gpus-per-cell", "1"]) == 2
    error = "pscx: --cpus-per-cell 1 and --gpus-per-cell 1 must fit on one machine of the cluster; they have "
    assert capsys.readouterr().err == f"pscx: 3 cells, 3 to do\n{error}2 CPUs and 0 GPUs\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--launcher", "ray", "--cpus-per-cell", "0"], "option --cpus-per-cell must be above 0, got 0"),
        (["--launcher", "ray", "--gpus-per-cell", "1.5"], "--gpus-per-cell must be a whole number or a fraction of 1"),
        (["--launcher", "ray", "--gpus-per-cell", "-1"], "--gpus-per-cell must be a whole number or a fraction of 1"),
        (["--gpus-per-cell", "1"], "option --gpus-per-cell is for --launcher ray, got --launcher local"),
        (["--launcher", "slurm"], "invalid choice: 'slurm'"),
    ],
)
def test_options_out_of_range(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--config", "configs/ablations/steps.yaml", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["ablate", "--config", "configs/ablations/steps.yaml", "--launcher", "ray"]) == 2
    assert capsys.readouterr().err == "pscx: --launcher ray needs the library ray: pip install 'pscx[ray]'\n"
