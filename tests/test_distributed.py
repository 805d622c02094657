"""Runs that are cut short and taken up again, and runs of several processes: the same streams and tables."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from PIL import Image
from tiny import EXACT, save_prior, write_codec

from pscx import read_image
from pscx.api import Codec
from pscx.cli.main import main
from pscx.config import ConfigError
from pscx.data.base import Share
from pscx.evaluation.ranks import check_alike, check_ranks, ranks_per_image

pytestmark = pytest.mark.usefixtures("meeting_point")

TIMES = {"encode_seconds", "decode_seconds", "network_share"}


def table(root: Path) -> list[dict[str, str]]:
    with (root / "images.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for kind in ("streams", "reconstructions") for path in (root / kind).iterdir()}


def arguments(config: str, images: Path, root: Path, *options: str) -> list[str]:
    return ["test", "--config", config, "--data.root", str(images), "--trainer.default_root_dir", str(root), *options]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each image that is compressed; begun as [-2, -1], the third image stops the run as Ctrl-C."""
    counted: list[int] = []
    plain = Codec.simulate

    def simulate(self: Codec, *args: Any, **options: Any) -> Any:
        if counted[:2] == [-2, -1] and len(counted) == 4:
            raise KeyboardInterrupt
        counted.append(len(counted))
        return plain(self, *args, **options)

    monkeypatch.setattr(Codec, "simulate", simulate)
    return counted


def test_a_run_that_was_stopped_goes_on(image_folder: Path, tmp_path: Path, calls: list[int]) -> None:
    config = write_codec(tmp_path)
    assert main(arguments(config, image_folder, tmp_path / "whole")) == 0
    assert len(calls) == 3
    root = tmp_path / "run"
    calls[:] = [-2, -1]
    assert main(arguments(config, image_folder, root)) == 130  # two were done, the third was not begun
    assert not (root / "records" / "sub__a.json").exists()
    calls.clear()
    assert main(arguments(config, image_folder, root)) == 0
    assert len(calls) == 1
    assert table(root) == table(tmp_path / "whole")
    assert files(root) == files(tmp_path / "whole")


@pytest.mark.parametrize("change", ["stream", "reconstruction", "row", "image"])
def test_what_no_longer_holds_is_made_anew(change: str, image_folder: Path, tmp_path: Path, calls: list[int]) -> None:
    config, root = write_codec(tmp_path), tmp_path / "run"
    assert main(arguments(config, image_folder, root)) == 0
    before = table(root)
    if change == "stream":
        (root / "streams" / "a.pscx").write_bytes(b"cut")
    if change == "reconstruction":
        (root / "reconstructions" / "a.png").unlink()
    if change == "row":
        (root / "records" / "a.json").write_text(json.dumps({"key": 1})[:-3])
    if change == "image":
        Image.fromarray(255 - read_image(image_folder / "a.png")).save(image_folder / "a.png")
    calls.clear()
    assert main(arguments(config, image_folder, root)) == 0
    assert len(calls) == 1
    assert (table(root) == before) == (change != "image")


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_file_that_cannot_be_read_is_reported_and_the_others_are_done(
    command: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "aa.png").write_bytes(b"\x89PNG and no more")
    root = tmp_path / "run"
    assert main([command, *arguments(write_codec(tmp_path), image_folder, root)[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: one of the images could not be coded, all others are done: ")
    assert str(image_folder / "aa.png") in error
    assert error.count("\n") == 1
    assert {path.stem for path in (root / "streams").iterdir()} == {"a", "b", "sub__a"}
    if command == "test":
        assert [row["name"] for row in table(root)] == ["a", "b", "sub__a"]
        assert (root / "summary.csv").read_text().splitlines()[0].endswith(",left_out")
        assert (root / "summary.csv").read_text().splitlines()[1].endswith(",1")
    assert (root / "left_out.csv").read_text().startswith("name,reason\naa,")
    (image_folder / "aa.png").unlink()
    assert main([command, *arguments(write_codec(tmp_path), image_folder, root)[1:]]) == 0
    assert not (root / "left_out.csv").exists()


@pytest.mark.parametrize(("ranks_per_image", "batch_size"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_two_processes_do_what_one_does(
    ranks_per_image: int, batch_size: int, image_folder: Path, tmp_path: Path
) -> None:
    """Seven images, or the samples of each image, over two processes that speak gloo, one or several images a call."""
    pixels = read_image(image_folder / "a.png")
    for number in range(4):
        Image.fromarray(pixels[:, number : number + 16]).save(image_folder / f"{number}.png")
    config = write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", 0)))
    options = [
        "--model.codec.samples",
        "3",
        "--model.codec.batch",
        "1",
        "--model.codec.restoration",
        "{name: mean, samples: 3}",
    ]
    assert main(arguments(config, image_folder, tmp_path / "one", *options)) == 0
    parallel = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    parallel += ["--model.ranks_per_image", str(ranks_per_image), "--data.batch_size", str(batch_size)]
    call = arguments(config, image_folder, tmp_path / "two", *options, *parallel)
    done = subprocess.run([sys.executable, "-m", "pscx.cli.main", *call], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "two") == table(tmp_path / "one")
    assert len(table(tmp_path / "two")) == 7
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert done.stdout.count("7 images, in") == 1


STALE = """
import os
from pscx.data import folder
from pscx.errors import ImageError
from pscx.evaluation.kept import Kept

def unreadable(file):
    raise ImageError(f"'{file}' cannot be read")

if os.environ.get("LOCAL_RANK") == "1":
    Kept.read = lambda self: None
    folder.read_image = unreadable
"""


def test_the_first_process_of_an_image_decides_what_is_there(image_folder: Path, tmp_path: Path) -> None:
    """The second one sees neither images nor kept results; had it a say, the two would wait for each other."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stale.py").write_text(STALE)
    config = write_codec(tmp_path)
    call = [*arguments(config, image_folder, tmp_path / "run", "--data.subset", "2")]
    call += ["--plugins", str(tmp_path / "plugins")]
    call += ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    call += ["--model.ranks_per_image", "2"]
    stamps = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "pscx.cli.main", *call], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        assert [row["name"] for row in table(tmp_path / "run")] == ["a", "b"]
        stamps.append({path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "records").iterdir()})
    assert stamps[0] == stamps[1]  # the second run has taken what was kept


def test_all_processes_work_in_the_folder_that_the_first_one_took(image_folder: Path, tmp_path: Path) -> None:
    config, root = write_codec(tmp_path), tmp_path / "run"
    assert main(arguments(config, image_folder, root, "--model.codec.seed", "3")) == 0
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    call = arguments(config, image_folder, root, "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")
    call += ["--trainer.devices", "2", "--model.ranks_per_image", "1"]
    done = subprocess.run([sys.executable, "-m", "pscx.cli.main", *call], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this run is in") == 1
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    names = ("a", "b", "sub__a")
    assert set(files(tmp_path / "run-1")) == {f"{name}.{end}" for name in names for end in ("pscx", "png")}


def test_processes_that_see_different_images_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(parts: list[Any], own: list[str]) -> None:
        parts[:] = [own, [*own, "c"]]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    with pytest.raises(
        ConfigError, match="all processes must see the same images, but they see 2, 3 images that differ"
    ):
        check_alike(["a", "b"], 2)
    check_alike(None, 2)


@pytest.mark.parametrize(("images", "shares"), [(7, 2), (3, 3), (12, 5), (1, 1)])
def test_shares_hold_every_image_once(images: int, shares: int) -> None:
    parts = [list(Share(images, shares, share)) for share in range(shares)]
    assert sorted(index for part in parts for index in part) == list(range(images))
    assert [len(Share(images, shares, share)) for share in range(shares)] == [len(part) for part in parts]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("wanted", "world", "images", "size"),
    [("auto", 1, 5, 1), ("auto", 4, 5, 1), ("auto", 4, 3, 2), ("auto", 6, 1, 6), (2, 4, 2, 2), ("auto", 2, None, 1)],
)
def test_processes_for_each_image(wanted: int | str, world: int, images: int | None, size: int) -> None:
    assert ranks_per_image(wanted, world, images) == size


def test_processes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="must divide the world size, 4, got 3"):
        ranks_per_image(3, 4, 9)
    with pytest.raises(ConfigError, match="3 images are too few for 4 processes"):
        ranks_per_image(1, 4, 3)
    for wanted in ("all", 0):
        with pytest.raises(ValueError, match=f"ranks_per_image must be auto or at least 1, got {wanted}"):
            check_ranks(wanted)


def test_ranks_per_image_below_one(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.ranks_per_image", "0"]
    assert main(arguments(write_codec(tmp_path), image_folder, tmp_path / "run", *options)) == 2
    assert "ranks_per_image must be auto or at least 1, got 0" in capsys.readouterr().err
