"""What surrounds a command: variables of clusters, the home folder, names that a terminal would obey."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_codec

from pscx.ablation.report import markdown
from pscx.cli.main import main
from pscx.evaluation.tables import show

ESCAPE = "\x1b[31m"


@pytest.mark.parametrize(
    "name", ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"]
)
@pytest.mark.parametrize("command", ["test", "components", "report"])
def test_a_rank_that_is_no_number_is_told(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "x")
    assert main([command, "sampler"]) == 2
    expected = f"pscx: the environment variable {name} must be an integer of at least 0, got 'x'\n"
    assert capsys.readouterr().err == expected


def test_the_home_folder_is_known_behind_an_equals_sign(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_codec(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["compress", str(image_folder / "a.png"), "--config=~/codec.yaml", "--output=~/a.pscx"]) == 0
    assert (tmp_path / "a.pscx").is_file()


def test_results_have_a_folder_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_codec(tmp_path)
    assert main(["test", "--config", config, "--trainer.default_root_dir", ""]) == 2
    assert "trainer.default_root_dir must not be empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["codec.yaml"]


def test_tables_obey_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    show({"images": 1, "psnr": 30.0}, Path(f"r/[red]{ESCAPE}"))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[red]" in "".join(printed.split())
    assert "\x1b" not in markdown(["a"], [[ESCAPE]])
    assert markdown(["a"], [["1\n2"]]).count("\n") == 2
