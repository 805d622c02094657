"""``pscx report`` through ``main``: what the page holds, what it refuses, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from browser import visited
from PIL import Image
from tiny import CODEC, save_prior, write_codec

from pscx import load_codec
from pscx.ablation.results import Results, read_results
from pscx.cli.main import main
from pscx.codecs.replay import kept
from pscx.data.folder import BUNDLED
from pscx.evaluation.bd import bd_rate
from pscx.format.container import unpack
from pscx.report.curves import RunCurve
from pscx.report.gallery import choose
from pscx.report.runs import Run
from pscx.signal.measurements import Coordinates, DenseRows, Measurements
from pscx.signal.partition import Partition
from pscx.signal.transforms import BlockDCT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("plotly", reason="the extra 'report' is not installed")

GRID = {
    **yaml.safe_load(CODEC),
    "axes": {"model.codec.coder": ["raw", "posterior"], "model.codec.quantizer.step": [0.5, 0.1]},
    "rate": "model.codec.quantizer.step",
    "baseline": {"model.codec.coder": "posterior"},
}


class Page(HTMLParser):
    """The tags of a page, and the data in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text()
        self.feed(self.text)
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.DOTALL)
        assert found is not None
        self.data: dict[str, Any] = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images/`` with two photographs, evaluations ``fine`` and ``coarse``, and an ablation ``grid``."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "images").mkdir()
    for name, side in (("astronaut", 32), ("chelsea", 24)):
        with Image.open(BUNDLED / f"{name}.png") as image:
            image.crop((40, 30, 40 + side, 62)).save(folder / "images" / f"{name}.png")
    config = write_codec(folder)
    data = ["--data.root", str(folder / "images")]
    for name, step in (("fine", "0.1"), ("coarse", "0.5")):
        where = ["--trainer.default_root_dir", str(folder / name), "--model.codec.quantizer.step", step]
        assert main(["test", "--config", config, *data, *where]) == 0
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    where = ["--trainer.default_root_dir", str(folder / "grid")]
    assert main(["ablate", "--config", str(folder / "grid.yaml"), *data, *where]) == 0
    return folder


def report(lab: Path, output: Path, *runs: str, options: tuple[str, ...] = ()) -> Page:
    assert main(["report", *(str(lab / run) for run in runs), "-o", str(output), *options]) == 0
    return Page(output)


@pytest.fixture(scope="module")
def both(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("both") / "page.html"
    report(lab, output, "fine", "coarse", options=("--images", "3"))
    return output


def test_the_page_holds_all_that_it_shows(both: Path, lab: Path) -> None:
    page = Page(both)
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    links = [attrs[key] for _, attrs in page.tags for key in ("src", "href") if attrs.get(key)]
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert both.stat().st_size < 15e6
    config = (lab / "fine" / "config.yaml").read_text()
    assert f"root: {lab / 'images'}" in page.text
    assert config.splitlines()[-1] in page.text
    assert {path.name for path in both.parent.iterdir()} == {
        *("page.html", "page-psnr.svg", "page-psnr.png", "page-ssim.svg", "page-ssim.png")
    }


def test_runs_that_differ_in_the_step_alone_are_one_curve(both: Path) -> None:
    data = Page(both).data
    assert len(data["curves"]) == 1
    rates = [point[0] for point in data["views"][0]["points"]["psnr"][0]]
    assert rates == sorted(rates)
    assert [point[2] for point in data["views"][0]["points"]["psnr"][0]] == ["coarse", "fine"]
    assert [view["title"] for view in data["views"]] == ["mean over the images", "astronaut", "chelsea"]


def test_items_are_the_first_streams_with_a_frame_for_every_segment(both: Path, lab: Path) -> None:
    items = Page(both).data["items"]
    assert [(item["image"], item["run"]) for item in items] == [
        *(("astronaut", "fine"), ("astronaut", "coarse"), ("chelsea", "fine"))
    ]
    for item in items:
        assert len(item["steps"]) == 3
        assert all(step["picture"] and step["spread"] for step in item["steps"][:-1])
        assert item["original"]["factor"] == item["reconstruction"]["factor"] == 1
        assert item["steps"][-1]["psnr"] == pytest.approx(item["facts"]["psnr"])
        pixels = item["width"] * item["height"]
        assert item["steps"][-1]["bpp"] * pixels == pytest.approx(8 * item["facts"]["bytes"], abs=17)
        assert 0 < len(item["patterns"]) <= 12


@pytest.mark.parametrize("rows", ["{name: local, block: 8}", "{name: dct, block: 8}", "{name: pca, per_iteration: 3}"])
@pytest.mark.parametrize("coder", ["posterior", "adaptive", "static", "raw"])
def test_a_replay_is_what_was_encoded(coder: str, rows: str, tmp_path: Path) -> None:
    """Its maps add up to the ideal bits that the encoder counted, and its symbols encode to the payload again."""
    codec = load_codec(write_codec(tmp_path), coder=coder, rows=yaml.safe_load(rows))
    with Image.open(BUNDLED / "chelsea.png") as image:
        encoded = codec.encode(np.array(image)[20:50, 40:72])
    played = codec.replay(encoded.data)
    account = encoded.account
    assert [step.rows for step in played.steps] == account.segment_symbols
    assert [step.bits for step in played.steps] == pytest.approx(account.segment_bits)
    assert sum(step.block_bits.sum() for step in played.steps) == pytest.approx(sum(account.segment_bits))
    assert played.payload == unpack(encoded.data)[1]
    if played.grid == (1, 1):
        assert len(played.patterns) == min(12, sum(account.segment_symbols))
    assert all(pattern.row.shape[0] == 3 for pattern in played.patterns)
    assert played.patterns
    for pattern in played.patterns:
        assert np.linalg.norm(pattern.row) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dense", [True, False])
def test_rows_as_signals_give_the_products_of_rows(dense: bool) -> None:
    partition = Partition(3, 8, 12, 4)
    known: Measurements = DenseRows(partition) if dense else Coordinates(BlockDCT(partition))
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(3, 8, 12, generator=generator, dtype=torch.float64)
    block = torch.tensor([0, 5, 2])
    rows = torch.randn(3, 48, generator=generator, dtype=torch.float64) if dense else torch.tensor([0, 17, 40])
    expected = (known.signals(block, rows) * signal).sum((1, 2, 3))
    torch.testing.assert_close(known.along(known.split(signal[None])[0], block, rows), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("segments", "count"), [(1, 1), (32, 32), (33, 32), (256, 32)])
def test_frames_are_few_and_the_last_is_among_them(segments: int, count: int) -> None:
    assert len(kept(segments)) == count
    assert max(kept(segments)) == segments - 1
    assert min(kept(segments)) >= 0


def test_every_curve_has_a_picture_or_at_least_every_axis() -> None:
    def curve(name: str, *axes: str, images: str = "ab") -> RunCurve:
        records = [{"name": image} for image in images]
        runs = [Run(Path(name), f"{name}{rate}", Results(records, {}, {}), {}, "") for rate in "12"]
        return RunCurve(name, runs, axes)

    coders = [curve(name, "coder") for name in ("raw", "static", "adaptive")]
    curves = [curve("baseline"), *coders, curve("pca", "rows"), curve("elsewhere", "rows", images="c")]
    for count, expected in (
        (2, ["a baseline2", "a raw2"]),
        (3, ["a baseline2", "a raw2", "a pca2"]),  # not the second coder
        (6, ["a baseline2", "a raw2", "a static2", "a adaptive2", "a pca2", "c elsewhere2"]),
        (7, ["a baseline2", "a raw2", "a static2", "a adaptive2", "a pca2", "a baseline1", "c elsewhere2"]),
    ):
        assert [f"{one.image} {one.run.name}" for one in choose(curves, count)] == expected
    assert len(choose(curves, 99)) == 5 * 2 * 2 + 2
    assert choose(curves, 0) == []


def test_cells_are_called_by_their_curve_and_rate(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report(lab, tmp_path / "page.html", "grid", options=("--images", "1"))
    assert "1 of 8 streams, of 1 of 2 curves (--images 2: of each) shown" in capsys.readouterr().out
    assert "<code>--images 2</code> shows one of each" in page.text
    steps = ["baseline, quantizer.step=0.5", "baseline, quantizer.step=0.1", "coder=raw, quantizer.step=0.1"]
    assert {steps[0], steps[2]} < {entry["run"] for entry in page.data["budget"]}
    assert page.data["items"][0]["run"] == steps[1]
    rows = [attrs["title"] for tag, attrs in page.tags if tag == "th" and "title" in attrs]
    assert "coder=posterior, quantizer.step=0.5" in rows
    assert len(rows) == 4
    assert ">ms ssim" not in page.text  # which none of them has
    page = report(lab, tmp_path / "all.html", "grid", options=("--images", "2"))
    assert "shows one of each" not in page.text
    assert {item["run"] for item in page.data["items"]} == set(steps[1:])


def test_bd_rates_are_those_of_the_curves(lab: Path, tmp_path: Path) -> None:
    page = report(lab, tmp_path / "page.html", "grid", options=("--images", "1"))
    assert page.data["curves"] == ["baseline", "coder=raw"]
    cells = json.loads((lab / "grid" / "grid.json").read_text())["cells"]
    curves: dict[str, list[tuple[float, float]]] = {"posterior": [], "raw": []}
    for cell, labels in cells.items():
        results = read_results(lab / "grid" / "cells" / cell)
        assert results is not None
        curves[labels["model.codec.coder"]].append((float(results.means["bpp"]), float(results.means["psnr"])))
    expected = bd_rate(curves["posterior"], curves["raw"])
    assert page.data["views"][0]["bd"]["psnr"][1][0] == pytest.approx(expected)
    assert f">{expected:+.1f}</td>" in page.text


def test_a_missing_or_changed_original_is_told(lab: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(lab / "images", moved)
    shutil.copytree(lab / "fine", tmp_path / "fine")
    config = tmp_path / "fine" / "config.yaml"
    config.write_text(config.read_text().replace(str(lab / "images"), str(tmp_path / "gone")))
    page = report(tmp_path, tmp_path / "1.html", "fine")
    assert page.data["items"][0]["original"] is None
    assert "'" + str(tmp_path / "gone") + "' does not exist" in page.data["items"][0]["missing"]
    page = report(tmp_path, tmp_path / "2.html", "fine", options=("--originals", str(moved)))
    assert page.data["items"][0]["original"] is not None
    with Image.open(moved / "astronaut.png") as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(moved / "astronaut.png")
    page = report(tmp_path, tmp_path / "3.html", "fine", options=("--originals", str(moved)))
    assert "is not the image that was compressed" in page.data["items"][0]["missing"]


def test_names_from_outside_are_escaped(lab: Path, tmp_path: Path) -> None:
    name = "<script>alert(1)<&"
    shutil.copytree(lab / "fine", tmp_path / name)
    page = report(tmp_path, tmp_path / "page.html", name, options=("--images", "1"))
    assert "<script>alert" not in page.text
    assert page.data["items"][0]["run"] == name


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["report", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_bad_input_is_one_sentence(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ["-o", str(tmp_path / "page.html")]
    assert "no such folder" in refused(capsys, str(tmp_path / "none"), *page)
    assert "is no run of pscx test" in refused(capsys, str(lab / "images"), *page)
    assert "more than once" in refused(capsys, str(lab / "fine"), str(lab / "grid" / ".." / "fine"), *page)
    assert "must end in .html" in refused(capsys, str(lab / "fine"), "-o", str(tmp_path / "page"))
    assert "no such folder of originals" in refused(capsys, str(lab / "fine"), *page, "--originals", "nowhere")
    for options in (["--perception"], ["--perception", "--restoration", "sample"], ["--perception", "--images", "0"]):
        assert "--perception needs a stream of a recipe" in refused(capsys, str(lab / "fine"), *page, *options)
    shutil.copytree(lab / "fine", tmp_path / "begun")
    (tmp_path / "begun" / "images.csv").unlink()
    assert "is not finished, 2 of its images" in refused(capsys, str(tmp_path / "begun"), *page)
    shutil.copytree(lab / "grid", tmp_path / "grid")
    (tmp_path / "grid" / "grid.json").unlink()
    assert "grid.json' is missing" in refused(capsys, str(tmp_path / "grid"), *page)
    (tmp_path / "page.html").write_text("mine")
    assert "--force" in refused(capsys, str(lab / "fine"), *page)
    assert (tmp_path / "page.html").read_text() == "mine"


def test_a_prior_that_is_gone_is_one_sentence(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_codec(tmp_path, CODEC.replace("prior: gaussian", f"prior: {{name: ddpm, path: {tmp_path / 'net'}}}"))
    save_prior(tmp_path / "net", 1)
    where = ["--data.root", str(lab / "images"), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["test", "--config", config, "--data.subset", "1", *where]) == 0
    assert len(report(tmp_path, tmp_path / "page.html", "run").data["items"]) == 1
    (tmp_path / "net").rename(tmp_path / "away")
    page = ["-o", str(tmp_path / "again.html")]
    assert "no diffusers pixel prior" in refused(capsys, str(tmp_path / "run"), *page)
    assert main(["report", str(tmp_path / "run"), *page, "--prior", str(tmp_path / "away")]) == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_many_curves_in_a_browser(lab: Path, tmp_path: Path, chromium: Browser, width: int) -> None:
    """Nothing is wider than the page, and each row of a table has the marker of its curve's points."""
    report(lab, tmp_path / "page.html", "grid", options=("--images", "1"))
    with visited(chromium, (tmp_path / "page.html").as_uri(), width=width, offline=True) as visit:
        page = visit.page
        page.wait_for_selector("#chart .scatterlayer .point")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#chart .legend").count() == (width > 600)  # else the table is the legend
        shapes = page.evaluate(
            "[...document.querySelectorAll('.swatch path:last-child')].map(path => path.getAttribute('d'))"
        )
        assert [shapes.index(shape) for shape in shapes] == [0, 1, 0, 0, 1, 1]  # of two curves, then of four runs
        assert visit.problems == []


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_in_a_browser(both: Path, chromium: Browser, width: int) -> None:
    with visited(chromium, both.as_uri(), width=width, offline=True) as visit:
        page = visit.page
        page.wait_for_selector("#chart .scatterlayer .point")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every(image => image.alt)")

        page.locator("#chart .scatterlayer .point").first.scroll_into_view_if_needed()
        box = page.locator("#chart .scatterlayer .point").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + 30)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#chart .hoverlayer .hovertext")
        assert "bpp" in (page.locator("#chart .hoverlayer .hovertext").text_content() or "")

        page.focus("#split")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.getElementById('stage').style.getPropertyValue('--split')") == "49%"
        assert page.evaluate("getComputedStyle(document.getElementById('before')).clipPath") != "none"

        whole = page.get_attribute("#after", "src")
        page.focus("#first")
        page.keyboard.press("Enter")
        assert page.text_content("#segment-text") == "1 of 3"
        assert page.get_attribute("#after", "src") != whole
        assert page.is_visible("#spread-map")
        page.focus("#play")
        page.keyboard.press("Enter")
        page.get_by_text("3 of 3", exact=True).wait_for()
        assert page.get_attribute("#play", "aria-label") == "Play"
        assert page.get_attribute("#after", "src") == whole

        page.select_option("#run", "coarse")
        assert "run coarse" in (page.get_attribute("#after", "alt") or "")
        page.select_option("#measure", "ssim")
        page.select_option("#view", "every")
        page.locator("#picker button").nth(1).click()
        assert page.get_attribute("#before", "alt") == "Original of chelsea"
        assert visit.problems == []
        assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [both.as_uri()]
