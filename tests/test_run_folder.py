"""Folders of runs: never data, one for each configuration and data set, one process at a time, tables of one run."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from PIL import Image
from tiny import write_codec

from pscx import read_image
from pscx.api import Codec
from pscx.cli.main import main
from pscx.data.files import image_files
from pscx.data.names import LONGEST, short_enough
from pscx.errors import ImageError, PscxError
from pscx.evaluation.kept import Kept
from pscx.metrics import GMSD
from pscx.runtime.run_folder import MARKER, Identity, mark, remove_tables, take

ONE, TWO = Identity("a", "data"), Identity("b", "data")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names_of(root: Path) -> list[str]:
    return [row["name"] for row in rows_of(root / "images.csv")]


@pytest.fixture
def here(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two images and a config of one iteration, ``mine.yaml``."""
    folder = tmp_path / "here"
    folder.mkdir()
    for place, name in enumerate(("a", "b")):
        Image.fromarray(read_image(image_folder / "a.png")[place:][:16, :16]).save(folder / f"{name}.png")
    write_codec(folder, name="mine.yaml")
    monkeypatch.chdir(folder)
    return folder


def evaluate(*options: str) -> int:
    return main(["test", "--config", "mine.yaml", "--model.codec.iterations", "1", *options])


def held(root: Path, identity: Identity, **options: Any) -> Path:
    """The folder that a run takes; it leaves a table there and ends."""
    folder = take(root, identity, **options)
    (folder.path / "images.csv").touch()
    folder.release()
    return folder.path


def test_results_are_no_data_even_when_moved_or_copied(here: Path) -> None:
    assert evaluate("--data.root", ".") == 0
    shutil.copytree("runs/mine", "copy")
    Path("runs/mine").rename("moved")
    for _ in range(2):
        assert evaluate("--data.root", ".") == 0
    assert names_of(Path("runs/mine")) == ["a", "b"]
    assert not Path("runs/mine-1").exists()
    with pytest.raises(ImageError, match=r"must be a folder of images, but 'moved' holds the results of a pscx run$"):
        image_files("moved")
    assert len(image_files("moved/reconstructions")) == 2  # named on purpose


def test_data_and_results_in_one_folder_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--data.root", ".", "--trainer.default_root_dir", str(here)) == 2
    assert "trainer.default_root_dir must not be the folder of the data, got " in capsys.readouterr().err
    assert not (here / MARKER).exists()


def test_other_data_or_another_configuration_is_another_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, letter in (("A", "a"), ("B", "b")):
        Path(name).mkdir()
        shutil.copy(f"{letter}.png", f"{name}/x.png")
    runs = [["A"], ["B"], ["A", "--model.codec.seed", "3"], ["A"], ["B"], ["./A", "--data.num_workers", "0"]]
    said = []
    for options in runs:
        assert evaluate("--data.root", *options) == 0
        said.append(capsys.readouterr().err)
    assert said[0] == ""
    assert said[1] == "pscx: 'runs/mine' holds a run of other data: this run is in 'runs/mine-1'\n"
    assert said[2] == "pscx: 'runs/mine' holds a run of another configuration: this run is in 'runs/mine-2'\n"
    assert said[3] == said[5] == ""
    assert said[4] == said[1]
    assert {path.name for path in Path("runs").iterdir()} == {"mine", "mine-1", "mine-2"}
    assert "default_root_dir: runs/mine-1" in Path("runs/mine-1/config.yaml").read_text()
    rows = [json.loads(Path(f"runs/{name}/records/x.json").read_text())["key"] for name in ("mine", "mine-1", "mine-2")]
    assert len(set(rows)) == 3
    assert evaluate("--data.root", "B", "--trainer.default_root_dir", "runs/mine") == 0  # an explicit root too
    assert "this run is in 'runs/mine-1'" in capsys.readouterr().err


def test_the_current_folder_is_called_by_its_own_name(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``.`` has no name that versions could be made of; it is no other folder for that."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    for identity in (ONE, ONE):
        folder = take(Path(), identity)
        assert (folder.path, folder.before) == (tmp_path / "run", None)
        (folder.path / "images.csv").touch()
        folder.release()
    other = take(Path(), TWO)
    assert other.path == tmp_path / "run-1"
    assert str(other.before).startswith(f"'{tmp_path / 'run'}' holds a run of ")
    other.release()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("z" * 300, "trainer.default_root_dir cannot be 'zzz"),
        ("a\0b", "trainer.default_root_dir cannot be 'a\\x00b': embedded null byte"),
        ("a.png", "trainer.default_root_dir must be a folder, but 'a.png' is a file"),
    ],
)
def test_what_can_be_no_folder_of_results_is_told(
    name: str, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "root.yaml").write_text(yaml.safe_dump({"trainer": {"default_root_dir": name}}))
    assert evaluate("--data.root", ".", "--config", "root.yaml") == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Errno" not in error


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("/dev/null", "a folder of images or an image, but '/dev/null' is neither"),
        ("z" * 300, "z' cannot be read: File name too long"),
        ("nowhere", "'nowhere' does not exist"),
    ],
)
def test_what_holds_no_images_is_told(root: str, says: str) -> None:
    with pytest.raises(ImageError, match=rf"^data.root must be .*{says}$"):
        image_files(root)


def test_a_mistake_takes_no_folder(here: Path) -> None:
    assert evaluate("--data.root", "nowhere") == 2
    assert evaluate("--data.root", "a.png") == 0
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]


def test_versions(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert held(root, ONE) == root
    assert held(root, TWO) == tmp_path / "run-1"
    assert held(root, ONE) == root
    assert held(root, Identity("c", "data")) == tmp_path / "run-2"
    shutil.rmtree(root)
    assert held(root, TWO) == tmp_path / "run-1"  # goes on where it was
    (tmp_path / "old" / "streams").mkdir(parents=True)  # made by nobody knows whom
    assert held(tmp_path / "old", ONE) == tmp_path / "old-1"
    assert not (tmp_path / "old" / MARKER).exists()
    (tmp_path / "run-1" / MARKER).write_text("[" * 100_000)
    assert held(tmp_path / "run-1", TWO) == tmp_path / "run-1-1"


@pytest.mark.parametrize("name", ["config.yaml", "codec.yaml", "posterior.yaml", "recipes/fitted.yaml"])
def test_a_config_of_the_user_is_not_written_over(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.touch()
    for _ in range(2):
        folder = take(tmp_path / "run", ONE)
        assert folder.path == tmp_path / "run-1"
        assert folder.before == f"'{tmp_path / 'run'}' holds a run of unknown origin"
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).touch()  # its own
        folder.release()
    assert not (tmp_path / "run" / MARKER).exists()


def test_a_folder_without_results_is_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    for identity in (ONE, TWO):
        folder = take(tmp_path / "run", identity)
        assert (folder.path, folder.before, folder.is_new) == (tmp_path / "run", None, True)
        folder.release()
    take(tmp_path / "empty", ONE).release()
    assert not (tmp_path / "empty").exists()


def test_without_versions_the_tables_of_another_run_go(tmp_path: Path) -> None:
    held(tmp_path, ONE, versions=False)
    take(tmp_path, ONE, versions=False).release()
    assert (tmp_path / "images.csv").exists()
    take(tmp_path, TWO, versions=False).release()
    assert not (tmp_path / "images.csv").exists()


def test_two_runs_in_one_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    plain = Codec.simulate

    def simulate(self: Codec, *args: Any, **options: Any) -> Any:
        if not codes:
            codes.append(0)
            codes.append(evaluate("--data.root", "."))
            codes.append(evaluate("--data.root", "a.png"))
        return plain(self, *args, **options)

    monkeypatch.setattr(Codec, "simulate", simulate)
    assert evaluate("--data.root", ".") == 0
    assert codes == [0, 2, 0]
    says = capsys.readouterr().err.splitlines()
    says = [line for line in says if "left out" not in line]
    assert says[0].startswith("pscx: another pscx run is using 'runs/mine': wait until it is done, or choose")
    assert says[1:] == ["pscx: 'runs/mine' holds a run of other data: this run is in 'runs/mine-1'"]
    assert names_of(Path("runs/mine")) == ["a", "b"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        take(tmp_path / "run", ONE)
        os._exit(0)
    os.waitpid(child, 0)
    assert take(tmp_path / "run", ONE).path == tmp_path / "run"


def test_a_marker_that_goes_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends without results removes its folder while another one takes it."""
    ending, lock = take(tmp_path / "run", ONE), fcntl.flock

    def late(marker: int, operation: int) -> None:
        monkeypatch.setattr("fcntl.flock", lock)
        ending.release()
        lock(marker, operation)

    monkeypatch.setattr("fcntl.flock", late)
    run = take(tmp_path / "run", TWO)
    assert json.loads((run.path / MARKER).read_text())["configuration"] == "b"
    assert take(tmp_path / "run", ONE).path == tmp_path / "run-1"


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert held(tmp_path / "run", ONE) == tmp_path / "run"
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PscxError, match=r"cannot write '.*file/run/\.pscx-run': Not a directory"):
        take(tmp_path / "file" / "run", ONE)


def test_sigterm_is_told_and_leaves_no_tables(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("--data.root", ".") == 0
    Image.fromarray(255 - read_image("a.png")).save("a.png")
    Image.fromarray(255 - read_image("b.png")).save("b.png")
    plain, calls, before = Codec.simulate, [], signal.getsignal(signal.SIGTERM)

    def simulate(self: Codec, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *args, **options)

    monkeypatch.setattr(Codec, "simulate", simulate)
    capsys.readouterr()
    assert evaluate("--data.root", ".") == 143
    captured = capsys.readouterr()
    assert captured.err == "pscx: terminated before the work was done (SIGTERM)\n"
    assert captured.out == ""
    assert signal.getsignal(signal.SIGTERM) == before
    assert not Path("runs/mine/images.csv").exists()  # they told of the streams before
    assert main(["report", "runs/mine", "-o", "x.html"]) == 2
    assert "'runs/mine' is not finished, 2 of its images are done" in capsys.readouterr().err
    assert evaluate("--data.root", ".") == 0
    assert len(calls) == 3


def test_tables_go_when_no_image_is_left(here: Path) -> None:
    assert evaluate("--data.root", ".") == 0
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"cut")
    assert evaluate("--data.root", ".") == 2
    root = Path("runs/mine")
    assert not (root / "images.csv").exists()
    assert not (root / "summary.csv").exists()
    assert [row["name"] for row in rows_of(root / "left_out.csv")] == ["a", "b"]


@pytest.mark.parametrize("command", ["test", "predict"])
def test_an_error_of_one_image_leaves_that_out(
    command: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Kept.write

    def write(self: Kept, *args: Any) -> None:
        if self.name == "a":
            raise PscxError("cannot write 'a': File name too long")
        plain(self, *args)

    monkeypatch.setattr(Kept, "write", write)
    options = ["--config", "mine.yaml", "--model.codec.iterations", "1", "--data.root", "."]
    assert main([command, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: one of the images could not be coded, all others are done: 'a': cannot write")
    assert error.count("\n") == 1
    assert [path.stem for path in Path("runs/mine/streams").iterdir()] == ["b"]
    assert [row["name"] for row in rows_of(Path("runs/mine/left_out.csv"))] == ["a"]


def test_long_names_are_shortened(here: Path) -> None:
    deep = here / "in" / "/".join(letter * 65 for letter in "cdef")
    deep.mkdir(parents=True)
    shutil.copy("a.png", deep / "x.png")
    shutil.copy("a.png", deep / "y.png")
    shutil.copy("a.png", here / "in" / ("x" * 251 + ".png"))
    assert evaluate("--data.root", "in") == 0
    names = names_of(Path("runs/mine"))
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= LONGEST for name in names)


def test_a_short_name_stays_and_no_letter_is_cut() -> None:
    assert short_enough("a" * LONGEST) == "a" * LONGEST
    long = short_enough("é" * LONGEST)
    assert len(long.encode()) <= LONGEST
    assert long.startswith("ééé")
    assert long != short_enough("é" * (LONGEST + 1))


def test_records_of_an_older_run_are_completed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate("--data.root", ".") == 0
    root = Path("runs/mine")
    before = rows_of(root / "images.csv")
    for file in root.glob("records/*.json"):
        content = json.loads(file.read_text())
        del content["record"]["encode_seconds"], content["metrics"]["ssim"]
        content["metrics"]["psnr"] = {"value": 1.0, "version": "of other weights"}
        file.write_text(json.dumps(content))
    monkeypatch.setattr(Codec, "simulate", None)  # nothing is made anew
    assert evaluate("--data.root", ".") == 0
    after = rows_of(root / "images.csv")
    assert after == [{**row, "encode_seconds": ""} for row in before]
    assert rows_of(root / "summary.csv")[0]["encode_seconds"] == ""


def test_other_metrics_are_measured_where_the_run_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate("--data.root", ".") == 0
    root = Path("runs/mine")
    monkeypatch.setattr(Codec, "simulate", None)
    assert evaluate("--data.root", ".", "--model.metrics", "[gmsd, psnr]") == 0
    record = rows_of(root / "images.csv")[0]
    original, picture = read_image(f"{record['name']}.png"), read_image(root / f"reconstructions/{record['name']}.png")
    assert float(record["gmsd"]) == GMSD()(original, picture)
    assert list(record)[4:7] == ["bpp", "gmsd", "psnr"]
    assert "ssim" not in record
    stamps = [path.stat().st_mtime_ns for path in root.glob("records/*.json")]
    monkeypatch.setattr(GMSD, "measure", None)  # it was kept
    assert evaluate("--data.root", ".", "--model.metrics", "[gmsd, ssim]") == 0
    assert [path.stat().st_mtime_ns for path in root.glob("records/*.json")] == stamps


def test_a_full_disk_is_told_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    for name in ("run", "other"):
        with pytest.raises(PscxError, match=rf"cannot write '.*{name}/.pscx-run': No space left on device"):
            take(tmp_path / name, Identity("a", "b"))
        with pytest.raises(PscxError, match="No space left on device"):
            mark(tmp_path / f"several-{name}")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]


def test_tables_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("images.csv", "left_out.csv", "config.yaml"):
        (tmp_path / name).touch()
    remove_tables(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("variables", "options", "part"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job"}, [], "`--ntasks=4`"),
        ({}, ["--trainer.devices", "0"], "devices"),
        ({}, ["--trainer.devices", "-5"], "the trainer cannot be created: `devices`"),
        ({}, ["--seed_everything", "-1"], "seed_everything must lie in 0..4294967295, got -1"),
        ({}, ["--seed_everything", "9" * 30], "seed_everything must lie in 0..4294967295, got 999"),
        ({}, ["--trainer.accelerator", "gpu"], "gpu"),
        ({}, ["--trainer.accelerator", "abacus"], "abacus"),
        ({}, ["--trainer.strategy", "nothing"], "nothing"),
        ({}, ["--trainer.precision", "7"], "precision"),
        ({}, ["--trainer.num_nodes", "0"], "num_nodes"),
        ({}, ["--trainer.profiler", "nothing"], "profiler"),
    ],
)
def test_errors_of_the_trainer_are_sentences(
    variables: dict[str, str],
    options: list[str],
    part: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert evaluate("--data.root", ".", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: ")
    assert error.count("\n") == 1
    assert part in error
    assert not Path("runs/mine").exists()


def test_only_the_first_process_takes_a_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pscx.runs.lightning import _Folder

    monkeypatch.setenv("NODE_RANK", "1")
    folder = _Folder({"trainer": {"default_root_dir": "runs/x"}}, True)
    assert folder.take(cast("Any", SimpleNamespace())) == Path("runs/x")
    assert folder.taken is None


def test_processes_that_cannot_meet_all_end(here: Path) -> None:
    """The process that was started waits for the first one, which has ended: it is ended too."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        parallel = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
        command = [sys.executable, "-m", "pscx", "test", "--config", "mine.yaml", "--data.root", ".", *parallel]
        # What reads the output waits for all that hold it open.
        done = subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "the processes of the run cannot reach each other" in done.stderr


def test_processes_that_cannot_meet_are_told_in_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        parallel = ["--trainer.strategy", "ddp", "--trainer.devices", "1", "--trainer.accelerator", "cpu"]
        assert evaluate("--data.root", ".", *parallel) == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: the processes of the run cannot reach each other: ")
    assert error.count("\n") == 1
