"""benchmarks/release.py: what it runs again and keeps, with commands of a moment; its list against the scripts."""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import release  # found through the line above
from facts import RESULTS, ROOT, facts
from release import ENTRIES, GIVEN, Entry

PRINTED = "| rate |\\n|---|\\n| 0.5 |"
COUNTED = f"""
import pathlib, sys
images, output = map(pathlib.Path, sys.argv[1:])
point = output / "points.csv"
point.write_text(point.read_text() + "again\\n" if point.exists() else "first\\n")
if (images / "stop").exists():
    sys.exit("stopped")
print("━━━ 100%\\n\\n{PRINTED}\\n\\n\\n\\nof", images)
"""


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.name))
def test_every_entry_is_measured_and_named_where_it_is_shown(entry: Entry) -> None:
    about = json.loads((ROOT / RESULTS / entry.name / release.ABOUT).read_text(encoding="utf-8"))
    assert about["command"] == entry.told()
    assert about["clean"]
    for page in entry.pages:
        assert re.search(rf"{RESULTS}/{entry.name}\b", (ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Counts in ``points.csv`` how often it was run, and prints a table."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    return Entry("counted", ("-c", COUNTED, "{kodak}", "{output}"), ("README.md",), "a moment", files=("*.csv",))


def run(entry: Entry, folder: Path, *args: str) -> int:
    given = ["--kodak", str(folder / "images")] if "--none" not in args else []
    places = ["--results", str(folder / "results"), "--work", str(folder / "work")]
    return release.main([*given, *places, *(arg for arg in args if arg != "--none")], [entry])


def points(folder: Path) -> str:
    return (folder / "results" / "counted" / "points.csv").read_text()


def test_a_result_is_kept_with_its_facts(entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(entry, tmp_path) == 0
    assert "| 0.5 |" in capfd.readouterr().out
    kept = tmp_path / "results" / "counted"
    assert sorted(file.name for file in kept.iterdir()) == ["about.json", "points.csv", "table.md"]
    about = json.loads((kept / "about.json").read_text())
    now = facts()
    assert {key: about[key] for key in ("commit", "clean", "machine", "versions")} == {
        key: now[key] for key in ("commit", "clean", "machine", "versions")
    }
    assert about["date"] <= now["date"]
    assert about["command"] == entry.told()
    assert not about["resumed"]
    assert about["seconds"] >= 0
    head, text = (kept / "table.md").read_text().split(":\n\n", 1)
    assert str(about["commit"])[:7] in head
    assert text == PRINTED.replace("\\n", "\n") + "\n\nof KODAK\n"
    assert str(tmp_path) not in "".join(file.read_text() for file in kept.iterdir())


def test_what_is_complete_is_not_run_again(
    entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(entry, tmp_path)
    for args in ([], ["--none"]):
        capfd.readouterr()
        assert run(entry, tmp_path, *args) == 0
        assert "counted: complete." in capfd.readouterr().out
    assert points(tmp_path) == "first\n"
    (tmp_path / "images" / "b.png").write_bytes(b"b")  # other images
    run(entry, tmp_path)
    assert points(tmp_path) == "first\nagain\n"
    other = replace(entry, command=(*entry.command[:1], f"1\n{COUNTED}", *entry.command[2:]))  # another command
    run(other, tmp_path)
    assert points(tmp_path) == "first\n"
    monkeypatch.setattr(release, "package", lambda: "other")  # another pscx
    assert release.state(other, {}, tmp_path / "results", tmp_path / "work") == "of other code or images"


def test_figures_of_streams_hold_as_long_as_golden_streams_do(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(entry, streams=True)
    run(entry, tmp_path)
    monkeypatch.setattr(release, "package", lambda: "other")
    assert release.state(entry, {}, tmp_path / "results", tmp_path / "work") == release.COMPLETE
    monkeypatch.setattr(release, "promises", lambda: "other")
    assert release.state(entry, {}, tmp_path / "results", tmp_path / "work") == "of other code or images"


def test_what_no_benchmark_uses_is_imported_by_its_command_alone() -> None:
    """So that a figure cannot depend on a folder of :data:`release.UNUSED`: no script runs those commands."""
    files = [*(ROOT / "pscx").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    folders = [ROOT / "pscx" / folder for folder in release.UNUSED]
    assert all(folder.is_dir() for folder in folders)
    outside = [file for file in files if not set(folders) & set(file.parents)]
    users = [file for file in outside if re.search(rf"pscx\.({'|'.join(release.UNUSED)})\b", file.read_text("utf-8"))]
    assert {file.parent for file in users} == {ROOT / "pscx" / "cli"}
    assert all(entry.command[:3] == ("-m", "pscx", "ablate") for entry in ENTRIES if entry.command[0] == "-m")


def test_promises_change_with_golden_streams_and_with_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "ROOT", tmp_path)
    names = ("tests/golden/recipes/fast.pscx", "pscx/metrics/psnr.py", "pscx/evaluation/bd.py")
    files = [tmp_path / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("before")
    found = [release.promises.__wrapped__()]
    for file in files:
        file.write_text("after")
        found.append(release.promises.__wrapped__())
    assert len(set(found)) == 4


def test_a_run_that_was_stopped_goes_on(entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stop = tmp_path / "images" / "stop"
    stop.touch()
    assert run(entry, tmp_path) == 1
    assert not (tmp_path / "results").exists()
    assert "failed: counted" in capfd.readouterr().out
    assert run(entry, tmp_path, "--list") == 0
    assert "counted: not there, begun." in capfd.readouterr().out
    stop.unlink()
    assert run(entry, tmp_path) == 0
    assert points(tmp_path) == "first\nagain\n"
    assert json.loads((tmp_path / "results" / "counted" / "about.json").read_text())["resumed"]


def test_what_is_not_given(entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(entry, tmp_path, "--none") == 0
    assert "counted: not there. Needs --kodak. Takes a moment. Shown by README.md\n" in capfd.readouterr().out
    assert not (tmp_path / "work").exists()
    for args, said in ((["--bsds", "none"], "--bsds does not exist"), (["--only", "other"], "invalid choice: 'other'")):
        with pytest.raises(SystemExit) as error:
            run(entry, tmp_path, *args)
        assert error.value.code == 2
        assert said in capfd.readouterr().err


def test_an_imported_script_counts() -> None:
    names = {file.name for file in release.sources(Path("benchmarks/families.py").resolve())}
    assert names == {"families.py", "rate_distortion.py", "facts.py", "file_formats.py", "protocols.py", "ranges.py"}
    assert "oracles.py" in {file.name for file in release.sources(Path("benchmarks/bound.py").resolve())}


def options_of(script: Path) -> set[str]:
    """The options that a script's parser takes."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    adding = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    return {str(arg.value) for call in adding for arg in call.args if isinstance(arg, ast.Constant)}


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_entries_name_what_is_there(entry: Entry) -> None:
    """Scripts and their options, pages, and what the user gives."""
    assert all(Path(page).is_file() for page in entry.pages)
    assert entry.prints or entry.files
    assert bool(entry.files) <= any("{output}" in part for part in entry.command)
    words = [part[1:-1] for part in entry.command if part.startswith("{")]
    assert set(words) <= {*GIVEN, "output"}
    named = [Path(part) for part in entry.command if part.endswith((".py", ".yaml"))]
    assert all(file.is_file() for file in named)
    if named[0].suffix == ".py":
        assert {part for part in entry.command[1:] if part.startswith("-")} <= options_of(named[0])


def test_entries_have_names_of_their_own() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
