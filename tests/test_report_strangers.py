"""``pscx report`` of a run folder that somebody else made: it reads that folder alone, and imports nothing for it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny import write_codec

from pscx.ablation import Axis, Plan, load_plan
from pscx.ablation.plot import draw
from pscx.ablation.results import Curve, Results
from pscx.cli.main import main
from pscx.data.folder import BUNDLED
from pscx.errors import PscxError
from pscx.evaluation.measures import Measure
from pscx.report.inside import is_plain

pytest.importorskip("plotly", reason="the extra 'report' is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run``, an evaluation of one photograph, and ``private.png`` beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    with Image.open(BUNDLED / "chelsea.png") as image:
        image.crop((40, 30, 64, 54)).save(folder / "images" / "cat.png")
        image.crop((40, 30, 64, 54)).save(folder / "private.png")
    where = ["--data.root", str(folder / "images"), "--trainer.default_root_dir", str(folder / "run")]
    assert main(["test", "--config", write_codec(folder), *where]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copy(made / "private.png", tmp_path / "private.png")
    return tmp_path / "run"


def refused(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    page = run.parent / "page.html"
    assert main(["report", str(run), "-o", str(page)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not page.exists()
    return error


def change(run: Path, file: str, edit: Callable[[str], str]) -> None:
    before = (run / file).read_text()
    after = edit(before)
    assert after != before
    (run / file).write_text(after)


def table(run: Path, **values: str) -> None:
    """Give the image of the table other values."""
    with (run / "images.csv").open(newline="") as file:
        row = next(csv.DictReader(file)) | values
    with (run / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)


def test_the_run_as_it_is_makes_a_page(run: Path) -> None:
    assert main(["report", str(run), "-o", str(run.parent / "page.html")]) == 0


@pytest.mark.parametrize("place", ["model.codec.prior", "model", "data"])
def test_a_class_of_a_stranger_is_not_imported(
    place: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentinel = run.parent / "imported"
    (run.parent / "stranger.py").write_text(f"open({str(sentinel)!r}, 'w').close()\nclass Gaussian: ...\n")
    monkeypatch.syspath_prepend(str(run.parent))
    own = {
        "model.codec.prior": "pscx.priors.gaussian.Gaussian",
        "model": "pscx.evaluation.evaluate.Evaluate",
        "data": "pscx.data.folder.FolderData",
    }[place]
    change(run, "config.yaml", lambda text: text.replace(f"class_path: {own}", "class_path: stranger.Gaussian"))
    if place == "model.codec.prior":
        assert "model.codec.prior: 'stranger.Gaussian' is not a registered class" in refused(run, capsys)
    else:  # of which a report needs no object
        assert main(["report", str(run), "-o", str(run.parent / "page.html")]) == 0
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name", ["../private", "..\\private", "/etc/passwd", "C:x", "..", ".hidden", "a/../../private", ""]
)
def test_an_image_s_name_is_no_path(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, suffix in (("streams", ".pscx"), ("reconstructions", ".png")):
        target = run / folder / f"{name}{suffix}"
        if not target.is_absolute() or run.parent in target.parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run / folder / f"cat{suffix}", target)
    table(run, name=name)
    error = refused(run, capsys)
    assert "images.csv' lists an image" in error or "is not whole" in error


@pytest.mark.parametrize(
    "linked",
    [
        *("streams/cat.pscx", "reconstructions/cat.png", "records/cat.json", "streams"),
        *("images.csv", "metrics.json", "config.yaml"),
    ],
)
def test_links_out_of_the_folder_are_not_followed(linked: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = run.parent / "outside"
    (run / linked).rename(outside)
    (run / linked).symlink_to(outside)
    error = refused(run, capsys)
    assert "leads out of" in error
    assert linked in error


def test_the_folder_itself_and_links_inside_it_may_be_links(run: Path) -> None:
    (run / "streams").rename(run / "moved")
    (run / "streams").symlink_to("moved")
    (run.parent / "link").symlink_to(run)
    assert main(["report", str(run.parent / "link"), "-o", str(run.parent / "page.html")]) == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"measurements": "many"}, "'measurements' must hold numbers"),
        ({"ssim": "1,2"}, "'ssim' must hold numbers"),
        ({"<script>": "x"}, "'<script>' must hold numbers"),
    ],
)
def test_tables_hold_numbers(values: dict[str, str], says: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(run, **values)
    assert says in refused(run, capsys)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"psnr": {', '"../psnr": {'),
        ('"PSNR"', '"P\\nSNR"'),
        ('"PSNR"', f'"{"P" * 100}"'),
        ('"PSNR"', "3"),
        ('"higher_is_better": true', '"higher_is_better": "yes"'),
        ('"of": "image"', '"of": "all"'),
        ('"unit": "dB"', '"units": "dB"'),
        ("{", "["),
    ],
)
def test_metrics_that_are_none(before: str, after: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, "metrics.json", lambda text: text.replace(before, after, 1))
    assert "is not whole" in refused(run, capsys)


def test_what_a_metric_is_called_is_escaped(run: Path) -> None:
    change(run, "metrics.json", lambda text: text.replace('"PSNR"', '"<script>alert(1)<"'))
    assert main(["report", str(run), "-o", str(run.parent / "page.html")]) == 0
    assert "<script>alert" not in (run.parent / "page.html").read_text()


def test_tables_that_are_no_tables(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, "images.csv", lambda text: text.replace("\n", ",1\n", 2).replace(",1\n", "\n", 1))
    assert "must hold numbers" in refused(run, capsys)
    (run / "images.csv").write_text("name\n" + "x" * 200_000)  # a field beyond the csv module's limit
    assert "is not whole" in refused(run, capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: &m {x: *m}", "config.yaml': the alias '*m'"),
        ("[" * 100_000, "config.yaml': lists and mappings nest"),
        ("model: {init_args: {prior: {class_path: [1]}}}\ndata: {}", "is not the configuration that pscx test writes"),
        ("model: {init_args: {a: {class_path: x, init_args: [1]}}}\ndata: {}", "is not the configuration"),
        ("model: {init_args: {1: 2}}\ndata: {}", "is not the configuration that pscx test writes"),
    ],
)
def test_a_hostile_configuration_is_one_sentence(
    text: str, says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_text(text)
    assert says in refused(run, capsys)


def test_data_options_of_other_types_are_told(run: Path) -> None:
    change(run, "config.yaml", lambda text: text.replace("subset: null", "subset: [1]"))
    page = run.parent / "page.html"
    assert main(["report", str(run), "-o", str(page)]) == 0
    assert "data.subset and data.crop must be integers or null" in page.read_text()
    change(run, "config.yaml", lambda text: re.sub(r" root: .*", " root: ''", text.replace("[1]", "null")))
    assert main(["report", str(run), "-o", str(page), "--force"]) == 0
    assert "holds none of that name" in page.read_text()


GRID = {
    "axes": {"model.codec.coder": ["raw"], "model.codec.samples": ["2"]},
    "rate": "model.codec.samples",
    "baseline": {"model.codec.coder": "raw"},
    "cells": {"0a": {"model.codec.coder": "raw", "model.codec.samples": "2"}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": {"../run": {"model.codec.coder": "raw", "model.codec.samples": "2"}}},
        {"cells": {"0a": {"model.codec.coder": "other", "model.codec.samples": "2"}}},
        {"cells": {"0a": {}}},
        {"baseline": {"model.codec.coder": "raw", "model.codec.samples": "2"}},
        {"cells": {"0a": 1}},
        {"axes": {"model.codec.coder": [1], "model.codec.samples": ["2"]}},
        {"baseline": {"model.codec.coder": "other"}},
        {"baseline": 1},
        {"rate": "none"},
    ],
)
def test_a_grid_of_a_stranger_is_checked(changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text(json.dumps(GRID))
    assert [cell.id for cell in load_plan(tmp_path).cells] == ["0a"]
    (tmp_path / "grid.json").write_text(json.dumps(GRID | changes))
    with pytest.raises(PscxError, match=r"grid\.json' is damaged"):
        load_plan(tmp_path)
    (tmp_path / "grid.json").write_text("[" * 100_000)
    with pytest.raises(PscxError, match=r"grid\.json"):
        load_plan(tmp_path)


def test_plain_names() -> None:
    assert all(map(is_plain, ["cat", "a b", "IMG_1.2-3", "übung", "a..b"]))
    assert not any(map(is_plain, ["", ".", "..", ".a", "a/b", "/a", "a\\b", "C:a", "a\n", "a\x1b", "../a", "a/"]))


@pytest.mark.parametrize("label", ["$x^{", "$$", "a$b$c", "\\frac{", "$\\nothing$"])
def test_labels_are_no_formulas(label: str) -> None:
    other = "plain $"
    axes = [Axis(f"model.{label}", {label: None, other: None}), Axis("model.codec.samples", {"1": None, label: None})]
    found = []
    for first in axes[0].values:
        for second in axes[1].values:
            means = {"bpp": "1", "psnr": "30", "ssim": "", "ms_ssim": ""}
            point = Results([], means, {"psnr": Measure(label, label)})
            found.append(Curve({axes[0].key: first, axes[1].key: second}, [point]))
    for baseline, curves in ((found[0], found), (found[0], found[:3])):
        files = draw(Plan([*axes, Axis("r", {"0": None})], "r", baseline.labels, [], Path()), curves)
        assert files["psnr.svg"].startswith(b"<?xml")
