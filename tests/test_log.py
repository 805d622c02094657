"""What an evaluation gives to loggers: numbers of the tables, pictures of the files, rows of the stream."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import write_codec

from pscx import load_codec, read_image
from pscx.cli.main import main
from pscx.codecs.psc.first_rows import FirstRows
from pscx.evaluation.kept import Kept
from pscx.evaluation.log import Log
from pscx.evaluation.measures import Measure
from pscx.evaluation.progress import figures
from pscx.evaluation.rate_distortion import rate_distortion
from pscx.images import decode_image
from pscx.runtime.progress import Bars

PSNR, SSIM = Measure("PSNR", "dB"), Measure("SSIM")
RECORD = {"name": "a", "height": 16, "width": 16, "bpp": 0.5, "psnr": 30.0, "evaluations": 20, "encode_seconds": 4.0}


class Pictures(Logger):
    """Takes pictures as Weights & Biases' logger does."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[dict[str, float], int | None]] = []
        self.pictures: dict[str, tuple[Any, int]] = {}

    name, version = "pictures", "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("an evaluation has none")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.numbers.append((metrics, step))

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.pictures[key] = (images[0], step)


def evaluate(root: Path, config: str, images: Path, *options: str) -> Path:
    assert (
        main(
            [
                "test",
                "--config",
                config,
                "--data.root",
                str(images),
                *(["--trainer.default_root_dir", str(root)]),
                *options,
            ]
        )
        == 0
    )
    return root


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def board(root: Path) -> EventAccumulator:
    events = EventAccumulator(str(root / "logs" / "tensorboard"))
    events.Reload()
    return events


def test_numbers_are_those_of_the_tables(image_folder: Path, tmp_path: Path) -> None:
    root = evaluate(tmp_path / "run", write_codec(tmp_path), image_folder)
    logged = table(root / "logs" / "csv" / "metrics.csv")
    images, (means,) = table(root / "images.csv"), table(root / "summary.csv")
    assert [line["step"] for line in logged] == ["0", "1", "2", "0"]
    events = board(root)
    for name in ("bytes", "bpp", "psnr", "evaluations", "encode_seconds"):
        values = [float(row[name]) for row in images]
        assert [float(line[f"image/{name}"]) for line in logged[:3]] == pytest.approx(values)
        assert [event.value for event in events.Scalars(f"image/{name}")] == pytest.approx(values)
        assert float(logged[3][f"mean/{name}"]) == pytest.approx(float(means[name]))
        assert events.Scalars(f"mean/{name}")[0].value == pytest.approx(float(means[name]))
    assert events.Scalars("mean/left_out")[0].value == 0
    assert (root / "config.yaml").exists()
    assert {path.name for path in (root / "logs").iterdir()} == {"csv", "tensorboard"}


def test_pictures_are_those_of_the_files_also_when_a_run_goes_on(image_folder: Path, tmp_path: Path) -> None:
    config = write_codec(tmp_path)
    for _ in range(2):
        root = evaluate(tmp_path / "run", config, image_folder, "--model.logged_pictures", "2")
        events = board(root)
        tags = set(events.Tags()["images"])
        kinds = ("original", "reconstruction", "first_rows")
        assert tags == {f"{name}/{kind}" for name in ("a", "b") for kind in kinds} | {
            f"rate_distortion/{name}" for name in ("psnr", "ssim", "ms_ssim")
        }
        files = {"a/original": image_folder / "a.png", "b/reconstruction": root / "reconstructions" / "b.png"}
        files["b/first_rows"] = root / "records" / "b.png"
        for tag, file in files.items():
            shown = decode_image(events.Images(tag)[-1].encoded_image_string, tag)
            assert np.array_equal(shown, read_image(file)), tag
    assert len(table(root / "logs" / "csv" / "metrics.csv")) == 4  # not those of the first start once more


def test_loggers_are_what_the_config_says(image_folder: Path, tmp_path: Path) -> None:
    config = write_codec(tmp_path)
    evaluate(tmp_path / "none", config, image_folder, "--trainer.logger", "false")
    assert not (tmp_path / "none" / "logs").exists()
    assert not list((tmp_path / "none" / "records").glob("*.png"))
    name = f"{CSVLogger.__module__}.{CSVLogger.__name__}"
    own = f"{{class_path: {name}, init_args: {{save_dir: {tmp_path / 'elsewhere'}, name: x, version: y}}}}"
    evaluate(tmp_path / "own", config, image_folder, "--trainer.logger", own)
    assert len(table(tmp_path / "elsewhere" / "x" / "y" / "metrics.csv")) == 4
    assert (tmp_path / "own" / "config.yaml").exists()
    assert not (tmp_path / "own" / "logs").exists()


def test_a_result_that_is_written_anew_has_no_old_picture(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    kept = Kept(tmp_path, "a", "key", "original")
    kept.write(b"", [pixels], {}, pixels)
    assert np.array_equal(kept.patterns()["first_rows"], pixels)
    kept.write(b"", [pixels], {}, None)
    assert kept.patterns() == {}


def test_a_number_of_pictures_below_zero_is_refused(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.root", str(image_folder), "--model.logged_pictures", "-1"]
    assert main(["test", "--config", write_codec(tmp_path), *options]) == 2
    assert "logged_pictures must be at least 0, got -1" in capsys.readouterr().err


def test_any_logger_with_log_image_gets_pictures_and_one_without_gets_numbers(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    takes, numbers = Pictures(), CSVLogger(tmp_path, name="", version="")
    log = Log([takes, numbers], 1, {"psnr": PSNR, "fid": Measure("FID", of_set=True)})
    log.image(RECORD, {"original": pixels})
    assert not log.wants_pictures
    log.end([RECORD, {**RECORD, "name": "b", "psnr": float("inf"), "ms_ssim": None}])
    assert [step for _, step in takes.numbers] == [0, 1]  # b is another process's
    assert takes.numbers[0][0] == {
        "image/bpp": 0.5,
        "image/psnr": 30,
        "image/evaluations": 20,
        "image/encode_seconds": 4,
    }
    assert {tag: step for tag, (_, step) in takes.pictures.items()} == {"a/original": 0, "rate_distortion/psnr": 2}
    assert len(table(tmp_path / "metrics.csv")) == 2
    assert not Log([numbers], 1, {}).wants_pictures


@pytest.mark.parametrize("rows", ["pca", "dct"])
def test_first_rows_are_rows_of_the_block_in_the_middle(rows: str, tmp_path: Path) -> None:
    codec = load_codec(write_codec(tmp_path), rows={"name": rows})
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    seen = FirstRows()
    assert seen.picture() is None
    codec.simulate(picture, watch=seen)
    assert 2 <= len(seen.rows) <= 12
    flat = torch.stack(seen.rows).flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(len(flat), dtype=flat.dtype), atol=1e-4)  # colours are rounded
    first = [row.clone() for row in seen.rows]
    codec.simulate(picture, watch=seen)  # starts anew
    assert torch.equal(torch.stack(first), torch.stack(seen.rows))
    sheet = seen.picture()
    assert sheet is not None
    assert sheet.std() > 10


def test_points_are_drawn_where_they_can_be() -> None:
    none = [{**RECORD, "psnr": value} for value in (float("inf"), None)]
    empty, one = (rate_distortion(records, "psnr", PSNR) for records in (none, [RECORD]))
    assert one.shape == (400, 600, 3)
    assert not np.array_equal(empty, one)


def test_a_bar_tells_rate_psnr_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = {"ssim": SSIM, "psnr": PSNR}
    assert figures([], measures) == ""
    told = figures([RECORD, {**RECORD, "bpp": 1.0, "psnr": 32.0}], measures)  # nothing is known of SSIM
    assert told == "0.750 bpp, PSNR 31.00 dB, 5 evaluations/s"
    assert figures([{**RECORD, "ssim": 0.9}], measures) == "0.500 bpp, SSIM 0.9000, 5 evaluations/s"
    assert figures([RECORD], {}) == "0.500 bpp, 5 evaluations/s"
    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=160)
        monkeypatch.setattr("pscx.runtime.progress.Console", lambda stderr, console=console: console)
        with Bars("test", 2) as bars:
            bars.begin("a").end()
            bars.tell(told)
        assert (told in text.getvalue()) == terminal
        assert bool(text.getvalue()) == terminal
