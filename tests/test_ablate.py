"""``pscx ablate`` through ``main``: the grid, what it skips and survives, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from tiny import CODEC

from pscx.ablation import Axis, Plan, read_plan, read_results
from pscx.ablation.plan import labels_of
from pscx.ablation.plot import COLORS, crossed, look, one_at_a_time, over_rate, varied_alone
from pscx.ablation.report import write_report
from pscx.ablation.results import Curve, Results, alike, compared, measures
from pscx.api import Codec
from pscx.cli.main import main
from pscx.config import split_options
from pscx.data.files import image_files
from pscx.data.folder import BUNDLED
from pscx.errors import ImageError
from pscx.evaluation.bd import bd_rate
from pscx.evaluation.measures import Measure

GRID: dict[str, Any] = {
    **yaml.safe_load(CODEC),
    "axes": {
        "model.codec.sampler": [{"name": "ddrm", "eta": 0.5}, {"label": "fresh", "value": "ddrm"}],
        "model.codec.coder": ["posterior", "raw"],
        "model.codec.quantizer.step": [0.5, 0.1],
    },
    "rate": "model.codec.quantizer.step",
    "baseline": {"model.codec.sampler": "fresh", "model.codec.coder": "posterior"},
    "exclude": [{"model.codec.sampler": "ddrm", "model.codec.coder": "raw"}],
}
TRAINING = {"model": {}, "axes": {"model.decay": [0.3, 0.5]}, "rate": "model.decay", "baseline": {}, "exclude": []}
PSNR = {"psnr": Measure("PSNR", "dB")}
LABELS = [("ddrm", "posterior"), ("fresh", "posterior"), ("fresh", "raw")]


@dataclass(frozen=True)
class Lab:
    """A folder with the grid's file and its results in ``run/``, and the images."""

    folder: Path
    images: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def cells(self) -> list[Path]:
        return sorted((self.run / "cells").iterdir())

    @property
    def tidy(self) -> list[dict[str, str]]:
        return rows_of(self.run / "results.csv")

    def ablate(self, *options: str, **changes: Any) -> int:
        config = self.folder / "grid.yaml"
        config.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))
        where = ["--data.root", str(self.images), "--trainer.default_root_dir", str(self.run)]
        return main(["ablate", "--config", str(config), *where, *options])

    def stamps(self) -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in self.run.glob("cells/*/summary.csv")}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save_images(folder: Path) -> Path:
    """``a.png`` of 32x32 and ``sub/a.png`` of 24x24."""
    (folder / "sub").mkdir(parents=True)
    with Image.open(BUNDLED / "astronaut.png") as image:
        image.crop((0, 0, 32, 32)).save(folder / "a.png")
        image.crop((40, 40, 64, 64)).save(folder / "sub" / "a.png")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, str, str]:
    """The whole grid, run once, and what it printed; tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    lab, out, err = Lab(folder, save_images(folder / "images")), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert lab.ablate() == 0
    return lab, out.getvalue(), err.getvalue()


@pytest.fixture
def copied(finished: tuple[Lab, str, str], tmp_path: Path) -> Lab:
    """The same, to be changed."""
    shutil.copytree(finished[0].run, tmp_path / "run")
    return Lab(tmp_path, finished[0].images)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Nothing was run yet."""
    return Lab(tmp_path, save_images(tmp_path / "images"))


def test_the_grid_is_run_and_the_table_is_tidy(finished: tuple[Lab, str, str]) -> None:
    lab, out, err = finished
    found = [tuple(row[key] for key in (*GRID["axes"], "image")) for row in lab.tidy]
    assert found == [(*curve, step, image) for curve in LABELS for step in ("0.5", "0.1") for image in ("a", "sub__a")]
    for row in lab.tidy:
        folder = lab.run / "cells" / row["cell"]
        own = next(one for one in rows_of(folder / "images.csv") if one.pop("name") == row["image"])
        assert own.items() <= row.items()
        options = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["codec"]["init_args"]
        assert options["quantizer"]["init_args"]["step"] == float(row["model.codec.quantizer.step"])
        assert options["sampler"]["init_args"]["eta"] == {"ddrm": 0.5, "fresh": 1.0}[row["model.codec.sampler"]]
        assert options["sampler"]["init_args"]["steps"] == 2  # of the base, below both values
        assert options["coder"]["class_path"].lower().endswith(row["model.codec.coder"])
    assert err.startswith("pscx: 6 cells, 6 to do\n")
    assert err.count("pscx: cell ") == 6
    assert "cell 6 of 6 (sampler=fresh, coder=raw, quantizer.step=0.1): " in err
    assert (lab.run / "summary.md").read_text().startswith(out.rstrip("\n"))


def test_a_cell_is_what_test_writes(finished: tuple[Lab, str, str], tmp_path: Path) -> None:
    lab = finished[0]
    cell = lab.run / "cells" / lab.tidy[-1]["cell"]
    where = ["--data.root", str(lab.images), "--trainer.default_root_dir", str(tmp_path / "test")]
    options = ["--model.codec.sampler", "ddrm", "--model.codec.coder", "raw", "--model.codec.quantizer.step", "0.1"]
    (tmp_path / "base.yaml").write_text(CODEC)
    assert main(["test", "--config", str(tmp_path / "base.yaml"), *where, *options]) == 0
    for name in ("a", "sub__a"):
        stream = Path("streams") / f"{name}.pscx"
        assert (cell / stream).read_bytes() == (tmp_path / "test" / stream).read_bytes()


def table_after(text: str, title: str) -> list[list[str]]:
    lines = text[text.index(title) :].splitlines()[2:]
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [cells[0], *cells[2:]]


def test_the_tables_hold_means_and_bd_rates(finished: tuple[Lab, str, str]) -> None:
    lab, text, _ = finished
    header, *rows = table_after(text[: text.index("Rate at equal quality")], "Means over images")
    tidy = lab.tidy
    assert len(rows) == 6
    for row in rows:
        means = dict(zip(header, row, strict=True))
        own = [float(one["psnr"]) for one in tidy if one["cell"] == means["cell"]]
        assert float(means["psnr"]) == pytest.approx(sum(own) / len(own), rel=1e-3)
    header, *rows = table_after(text, "Rate at equal quality against the baseline (sampler=fresh, coder=posterior)")
    assert header[:3] == ["sampler", "coder", "BD-rate in % (PSNR)"]
    assert [tuple(row[:2]) for row in rows] == [LABELS[1], LABELS[0], LABELS[2]]  # the baseline first
    assert rows[0][2] == "+0.0"
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in dict.fromkeys(row["cell"] for row in tidy):
        own_rows = [row for row in tidy if row["cell"] == cell]
        rate, quality = (sum(float(row[key]) for row in own_rows) / 2 for key in ("bpp", "psnr"))
        points.setdefault((own_rows[0]["model.codec.sampler"], own_rows[0]["model.codec.coder"]), []).append(
            (rate, quality)
        )
    for row in rows[1:]:
        assert row[2] == f"{bd_rate(points[LABELS[1]], points[row[0], row[1]]):+.1f}"


def test_a_second_run_does_nothing_and_writes_the_same(copied: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["results.csv", "summary.md", "psnr.png", "psnr.svg", "ssim.png", "ssim.svg"]
    cells, before = copied.stamps(), [(copied.run / name).read_bytes() for name in names]
    with Image.open(copied.run / "psnr.png") as picture:
        assert min(picture.size) > 400
    assert copied.ablate() == 0
    assert capsys.readouterr().err == ""
    assert copied.stamps() == cells
    assert [(copied.run / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("sizes", [(1, 1), (3,), (20,), (40,), (4, 4, 2, 2), (2, 7, 4, 8), (9, 2), (20, 3, 2)])
def test_no_two_curves_of_a_panel_look_alike(sizes: tuple[int, ...]) -> None:
    axes = [Axis(f"model.a{number}", {str(value): value for value in range(size)}) for number, size in enumerate(sizes)]
    keys = [axis.key for axis in axes]
    curves = [dict(zip(keys, one, strict=True)) for one in itertools.product(*(axis.values for axis in axes))]
    shown = look(axes)
    seen = {(shown.panel(labels), *sorted(shown.style(labels).items())) for labels in curves}
    assert len(seen) == len(curves)


@pytest.mark.parametrize("coders", [2, 3, 4])
def test_panels_without_a_curve_are_not_drawn(coders: int, tmp_path: Path) -> None:
    sizes = {"sampler": 4, "rows": 5, "quantizer": 4, "coder": coders, "step": 2}
    axes = [Axis(f"model.{name}", {str(value): value for value in range(size)}) for name, size in sizes.items()]
    points = [Results([], {"bpp": str(rate), "psnr": str(20 + rate)}, PSNR) for rate in (1, 2)]
    keys = [axis.key for axis in axes[:4]]
    labels = [dict(zip(keys, one, strict=True)) for one in itertools.product(*(axis.values for axis in axes[:4]))]
    plan = Plan(axes, "model.step", labels[0], [], tmp_path)
    figure = crossed(plan, [Curve(one, points) for one in labels], "psnr", PSNR["psnr"])
    assert sum(panel.get_visible() for panel in figure.axes) == coders


def drawn(plan: Plan, *labels: str) -> Curve:
    """A curve of two points with these labels."""
    points = [Results([], {"bpp": str(rate), "psnr": str(30 + rate)}, PSNR) for rate in (0.5, 1.0)]
    return Curve(dict(zip([axis.key for axis in plan.curve_axes], labels, strict=True)), points)


def plan_of(*sizes: int) -> Plan:
    """Axes ``a``, ``b``, ... with so many values ``0``, ``1``, ..., of which the first is the baseline's."""
    axes = [Axis(f"model.{name}", {str(i): i for i in range(size)}) for name, size in zip("abc", sizes, strict=False)]
    return Plan([*axes, Axis("model.rate", {})], "model.rate", {axis.key: "0" for axis in axes}, [], Path())


def test_axes_that_are_varied_one_at_a_time_have_a_panel_each() -> None:
    plan = plan_of(2, 3, 1)
    found = [drawn(plan, *labels) for labels in ("000", "100", "010", "020")]
    assert varied_alone(plan, found)
    figure = one_at_a_time(plan, found, "psnr", PSNR["psnr"])
    legends = [(panel.get_title(), panel.get_legend()) for panel in figure.axes]
    texts = [(title, [text.get_text() for text in legend.get_texts()]) for title, legend in legends if legend]
    assert texts == [("a", ["0", "1"]), ("b", ["0", "1", "2"])]
    colors = [[line.get_color() for line in panel.get_lines()] for panel in figure.axes]
    assert colors == [["#cccccc", *COLORS[:2]], ["#cccccc", *COLORS[:3]]]
    assert not varied_alone(plan, [*found, drawn(plan, *"110")])
    assert not varied_alone(plan, found[:2])
    many = plan_of(2, 9)
    assert not varied_alone(many, [drawn(many, *labels) for labels in ("00", "10", *(f"0{i}" for i in range(1, 9)))])


def legend_of(plan: Plan, *found: Sequence[str]) -> list[str]:
    figure = crossed(plan, [drawn(plan, *labels) for labels in found], "psnr", PSNR["psnr"])
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_baseline_is_in_the_legend_if_it_is_drawn_and_several_axes_are_varied() -> None:
    assert legend_of(plan_of(2, 2), "00", "01", "10", "11")[-1] == "baseline"
    assert legend_of(plan_of(2, 2), "01", "10", "11")[-1] == "1"
    assert legend_of(plan_of(3), "0", "1", "2")[1:] == ["0", "1", "2"]


def test_an_axis_that_is_varied_alone_has_one_panel() -> None:
    plan, labels = plan_of(20), [str(label) for label in range(20)]
    assert legend_of(plan, *([label] for label in labels))[1:] == labels
    figure = crossed(plan, [drawn(plan, label) for label in labels], "psnr", PSNR["psnr"])
    assert len(figure.axes) == 1


@pytest.mark.parametrize("rates", [(0.04, 0.5), (0.04, 0.6), (0.04, 2.2), (0.01, 5.0)])
def test_labels_of_rates_do_not_meet(rates: tuple[float, float]) -> None:
    figure = Figure(figsize=(5, 3.5))
    axes = figure.subplots()
    axes.plot(rates, (20, 30))
    over_rate(axes)
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) > 3
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def to_do(text: str) -> set[str]:
    """Ids of the cells that a dry run says are to do."""
    return {line.split("  ")[1] for line in text.splitlines() if line.startswith("to do")}


def test_a_changed_option_is_a_new_cell_and_a_default_spelled_out_is_not(
    copied: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [{"name": "ddrm", "eta": 0.5, "steps": 2}, {"label": "fresh", "value": {"name": "ddrm", "eta": 1.0}}]
    assert (
        copied.ablate("--dry-run", "--model.codec.samples", "2", axes={**GRID["axes"], "model.codec.sampler": same})
        == 0
    )
    assert to_do(capsys.readouterr().out) == set()
    assert copied.ablate("--dry-run", axes={**GRID["axes"], "model.codec.quantizer.step": [0.5, 0.2]}) == 0
    assert len(to_do(capsys.readouterr().out)) == 3
    assert copied.ablate("--dry-run", "--model.codec.samples", "3") == 0
    assert len(to_do(capsys.readouterr().out)) == 6


def test_a_cell_counts_as_done_only_when_its_results_are_whole(copied: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    cells = copied.cells
    (cells[0] / "summary.csv").unlink()
    text = (cells[1] / "images.csv").read_text()
    (cells[1] / "images.csv").write_text(text[: text.rindex("sub__a")])
    (cells[2] / "streams" / "a.pscx").write_bytes(b"PSCX")
    (cells[3] / "images.csv").write_bytes(b"\xff")
    assert [read_results(cell) is None for cell in cells] == [True] * 4 + [False] * 2
    assert copied.ablate("--dry-run") == 0
    text = capsys.readouterr().out
    assert to_do(text) == {cell.name for cell in cells[:4]}
    assert text.count("\ndone ") + text.startswith("done ") == 2
    assert text.endswith("6 cells, 4 to do\n")
    assert copied.ablate() == 0
    assert all(read_results(cell) for cell in cells)


def test_a_metric_that_cells_left_out_lack_is_missing(finished: tuple[Lab, str, str]) -> None:
    lab = finished[0]
    where = ["--data.root", str(lab.images), "--trainer.default_root_dir", str(lab.run)]
    plan = read_plan(split_options(["--config", str(lab.folder / "grid.yaml"), *where])[0])
    results = {cell.id: read_results(cell.folder) for cell in plan.cells}
    found = {}
    for number, (key, result) in enumerate(results.items()):
        assert result is not None
        known = {key: measure for key, measure in result.measures.items() if key != "ssim"}
        means = {key: value for key, value in result.means.items() if key != "ssim"}
        found[key] = replace(result, means=means, measures=known) if number < 3 else result
    text = write_report(replace(plan, root=lab.folder / "fewer"), found, {})
    header, *rows = table_after(text[: text.index("Rate at equal quality")], "Means over images")
    assert [row[header.index("ssim")] == "-" for row in rows].count(True) == 3


def test_the_plots_of_an_ablation_are_no_data(copied: Lab) -> None:
    assert (copied.run / "psnr.png").exists()
    with pytest.raises(ImageError, match="must hold images"):
        image_files(copied.folder)


def test_images_and_results_in_one_folder_are_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.ablate("--trainer.default_root_dir", str(lab.images)) == 2
    assert "trainer.default_root_dir must not be the folder of the data, got " in capsys.readouterr().err


def test_dry_run_writes_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.ablate("--dry-run") == 0
    assert not lab.run.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("sampler=ddrm, coder=posterior, quantizer.step=0.5")
    assert lines[-1] == "6 cells, 6 to do"


def at_call(number: int, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``act`` happen in place of the codec's run number ``number``, and each later one."""
    calls = []
    simulate = Codec.simulate

    def counted(self: Codec, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) >= number:
            act()
        return simulate(self, *args, **options)

    monkeypatch.setattr(Codec, "simulate", counted)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_an_ablation_that_was_stopped_goes_on(by: signal.Signals, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore it
    with pytest.MonkeyPatch.context() as monkeypatch:
        at_call(4, lambda: os.kill(os.getpid(), by), monkeypatch)  # the second image of the second cell
        assert lab.ablate() == 128 + by
    says = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated before the work was done (SIGTERM)"}
    assert capsys.readouterr().err.endswith(f"pscx: {says[by]}\n")
    before = lab.stamps()
    assert len(before) == 1
    for name, handler in handlers.items():
        signal.signal(name, handler)
    assert lab.ablate() == 0
    assert capsys.readouterr().err.count("pscx: cell ") == 5
    after = lab.stamps()
    assert len(after) == 6
    assert before.items() <= after.items()


def test_a_cell_that_fails_is_reported_and_the_others_are_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    from pscx.coders.raw import Raw

    def fail(*_: Any) -> None:
        raise RuntimeError("out of\nmemory")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Raw, "encoder", fail)
        assert lab.ablate() == 1
    captured = capsys.readouterr()
    assert captured.err.count("coder=raw") == captured.err.count("failed: RuntimeError: out of memory") == 2
    assert captured.out.count("failed: RuntimeError: out of memory") == 2
    assert {row["model.codec.coder"] for row in lab.tidy} == {"posterior"}
    assert "a curve needs at least 2 points, got 0" in captured.out
    logs = [path.read_text() for path in lab.run.glob("cells/*/log.txt")]
    assert sum("Traceback" in log for log in logs) == 2
    assert lab.ablate() == 0
    assert capsys.readouterr().err.count("pscx: cell ") == 2


def test_an_image_that_cannot_be_read_is_left_out_of_every_cell(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (lab.images / "a.png").read_bytes()
    (lab.images / "a.png").write_bytes(b"no image")
    assert lab.ablate() == 2
    captured = capsys.readouterr()
    assert captured.err.count("1 left out (see '") == 6
    assert captured.out.startswith("Means over images (1 that all cells have):")
    assert captured.out.count("| 1 image left out |") == 6
    assert [row["image"] for row in lab.tidy] == ["sub__a"] * 6
    assert all("is not a PNG" in (cell / "left_out.csv").read_text() for cell in lab.cells)
    (lab.images / "a.png").write_bytes(whole)
    assert lab.ablate() == 0
    assert [row["image"] for row in lab.tidy] == ["a", "sub__a"] * 6
    assert "left out" not in capsys.readouterr().out


def test_means_are_over_the_images_that_all_cells_have() -> None:
    records = [{"name": name, "bpp": bpp, "psnr": "30.0"} for name, bpp in (("a", "1.0"), ("b", "3.0"))]
    known = {**PSNR, "fid": Measure("FID", "", False, of_set=True)}
    both = Results(records, {"images": "2", "bpp": "2.0", "psnr": "30.0", "fid": "7", "left_out": "0"}, known)
    one = Results(records[:1], {"images": "1", "bpp": "1.0", "psnr": "30.0", "fid": "9", "left_out": "1"}, known)
    found = alike({"both": both, "one": one})
    assert [(result.mean("bpp"), len(result.images)) for result in found.values()] == [(1.0, 1), (1.0, 1)]
    assert [result.mean("fid") for result in found.values()] == [None, None]  # of other images
    assert alike({"both": both}) == {"both": both}
    assert alike({"one": one, "b": Results(records[1:], {}, {})})["one"] == one


def points(**columns: Sequence[float]) -> Curve:
    """A curve by its columns, ``gmsd`` better where it is lower."""
    known = {**PSNR, "gmsd": Measure("GMSD", "", higher_is_better=False)}
    means = [dict(zip(columns, map(str, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    return Curve({}, [Results([], one, known) for one in means])


def test_a_metric_that_falls_with_the_rate_is_compared_as_it_is() -> None:
    own = points(bpp=(0.25, 0.5, 1.0), psnr=(28, 31, 34), gmsd=(0.3, 0.2, 0.1))
    half = points(bpp=(0.125, 0.25, 0.5), psnr=(28, 31, 34), gmsd=(0.3, 0.2, 0.1))
    assert list(measures([own])) == ["psnr", "gmsd"]
    value, about = compared(own, half, "gmsd")
    assert value == pytest.approx(-50)
    assert about == "GMSD 0.1 to 0.3"
    assert compared(own, half, "psnr")[0] == pytest.approx(value)


def test_a_point_that_is_no_better_than_one_of_fewer_bits_is_left_out_and_that_is_said() -> None:
    own = points(bpp=(0.25, 0.5, 1.0), psnr=(28, 31, float("inf")), gmsd=(0.3, 0.2, 0.1))
    bent = points(bpp=(0.125, 0.25, 0.3, 0.5), psnr=(28, 31, 30, 34), gmsd=(0.3, 0.2, 0.2, 0.1))
    value, about = compared(own, bent, "gmsd")
    assert value == pytest.approx(-50)
    assert about == "GMSD 0.1 to 0.3, without 1 point no better than one of fewer bits"
    assert own.of("psnr") == [(0.25, 28), (0.5, 31)]
    falling = points(bpp=(1, 2, 3), gmsd=(0.1, 0.2, 0.3))
    value, about = compared(falling, own, "gmsd")
    assert value is None
    assert about == "anchor: a curve needs at least 2 points, got 1, without 2 points no better than one of fewer bits"


def test_metrics_are_measured_in_finished_cells_and_nothing_is_coded_again(
    copied: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = {path: path.stat().st_mtime_ns for path in copied.run.glob("cells/*/streams/*")}
    monkeypatch.setattr(Codec, "simulate", None)
    assert copied.ablate("--model.metrics", "[psnr, gmsd]") == 0
    captured = capsys.readouterr()
    assert captured.err.count("pscx: cell ") == 6
    assert {path: path.stat().st_mtime_ns for path in copied.run.glob("cells/*/streams/*")} == streams
    assert all(0 < float(record["gmsd"]) < 1 for record in copied.tidy)
    assert "ssim" not in copied.tidy[0]
    assert "BD-rate in % (GMSD)" in captured.out
    assert (copied.run / "gmsd.svg").exists()
    before = copied.stamps()
    assert copied.ablate("--model.metrics", "[gmsd]") == 0  # they are there
    assert copied.stamps() == before


def test_a_grid_has_a_bound_and_its_size_is_told(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a cell was looked at")

    monkeypatch.setattr("pscx.ablation.plan.configuration", refuse)
    axes = {"model.codec.seed": [*range(100)], "model.codec.quantizer.step": [0.1 + i / 1000 for i in range(101)]}
    assert lab.ablate("--dry-run", axes=axes, rate="model.codec.quantizer.step", baseline={}) == 2
    error = capsys.readouterr().err
    assert "axes must make at most 10000 cells, got 100 x 101 = 10100" in error
    with pytest.raises(AssertionError, match="was looked at"):
        lab.ablate("--dry-run", axes={**axes, "model.codec.seed": [*range(99)]}, exclude=[], baseline={})


def test_metrics_are_no_axis(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.ablate(axes={**GRID["axes"], "model.metrics": [["psnr"], ["ssim"]]}) == 2
    assert "axes.model.metrics cannot be an axis" in capsys.readouterr().err


def test_every_cell_may_fail(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for image in lab.images.rglob("*.png"):
        image.write_bytes(b"no image")
    assert lab.ablate() == 1
    assert capsys.readouterr().out.count("is not a PNG, JPEG, WebP, TIFF or BMP image") == 2 * 6
    assert not (lab.run / "results.csv").exists()


def axes(**changes: Any) -> dict[str, Any]:
    """Other axes, and nothing that names values of the old ones."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return {"axes": {**GRID["axes"], **changed}, "exclude": []}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (axes(modle__sampler=["ddrm"]), ["axes.modle.sampler", "did you mean 'model'?"]),
        (axes(model__codec__samplr=["ddrm"]), ["model.codec.samplr", "did you mean 'sampler'?", "cell sampler=ddrm"]),
        (
            axes(model__codec__sampler=["ddrn"]),
            ["grid.yaml: model.codec.sampler: unknown sampler 'ddrn'", "did you mean 'ddrm'?"],
        ),
        (axes(model__codec__sampler=[{"name": "ddrm", "etta": 1}]), ["has no option 'etta'", "did you mean 'eta'?"]),
        (
            axes(model__codec__sampler=[{"label": "fresh", "value": {"name": "ddrm", "eta": 7}}]),
            ["sampler.eta must lie in [0, 1], got 7", "cell "],
        ),
        (axes(model__codec__sampler=["ddrm", "ddrm"]), ["two values are called 'ddrm'"]),
        (axes(model__codec__sampler="ddrm"), ["axes.model.codec.sampler must be a list of values"]),
        (axes(model__codec__sampler=[]), ["axes.model.codec.sampler must be a list of values"]),
        (axes(model=["evaluate"]), ["axes.model", "an axis is an option of"]),
        (axes(model__codec__rows=["local", "pca"], model__codec__rows__block=[8]), ["no option 'block'", "rows=pca"]),
        (axes(trainer__default_root_dir=["a", "b"]), ["axes.trainer.default_root_dir cannot be an axis"]),
        ({"axes": {}}, ["axes must hold at least one axis"]),
        ({"axes": ["model.codec.sampler"]}, ["axes must be a mapping"]),
        ({"rate": "model.quantiser.step"}, ["rate must name the axis", "did you mean 'model.codec.quantizer.step'?"]),
        ({"baseline": {"model.codec.sampler": "frsh"}}, ["baseline", "has no value 'frsh'", "did you mean 'fresh'?"]),
        (
            {"baseline": {"model.codec.sampler": "fresh"}},
            ["baseline must give one label for the axis model.codec.coder"],
        ),
        ({"baseline": {"model.codr": "raw"}}, ["no axis 'model.codr'", "did you mean 'model.codec.coder'?"]),
        (
            {"baseline": {**GRID["baseline"], "model.codec.quantizer.step": 0.5}},
            ["there is no axis 'model.codec.quantizer.step'"],
        ),
        (
            {"baseline": {"model.codec.sampler": "ddrm", "model.codec.coder": "raw"}},
            ["baseline is no cell: sampler=ddrm, coder=raw is excluded"],
        ),
        ({"exclude": [{"model.codec.coder": "row"}]}, ["exclude", "has no value 'row'", "did you mean 'raw'?"]),
        ({"exclude": 7}, ["exclude must be a list of combinations"]),
        ({"exclude": ["raw"]}, ["exclude must be a list of combinations"]),
        ({"exclude": {"model.codec.coder": "raw"}}, ["exclude must be a list of combinations"]),
        ({"axs": {}}, ["axs", "did you mean 'axes'?"]),
        ({"base": "nowhere.yaml"}, ["no such config file", "nowhere.yaml"]),
        ({"base": 3}, ["base must be the name of a config file, got 3"]),
        ({"trainer": {"devices": 2}}, ["trainer.devices must be 1"]),
        ({"data": {"crp": 16}}, ["has no option 'crp'", "did you mean 'crop'?"]),
        ({"exclude": [{"model.codec.coder": ["posterior", "raw"]}]}, ["exclude must leave at least one cell"]),
        (
            {"base": str(Path("configs/fit_unet.yaml").resolve()), "data": {"name": "folder"}, **TRAINING},
            ["model must be 'evaluate', got 'TrainDDPM'"],
        ),
    ],
)
def test_a_mistake_is_one_sentence_before_any_cell_runs(
    changes: dict[str, Any], parts: list[str], lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.ablate(**changes) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("pscx: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err
    assert not lab.run.exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model.codec.coder", "raw"], "--model.codec.coder is an axis of this ablation"),
        (["--verbos", "1"], "ablate has no option '--verbos'"),
        (["--data.root", "nowhere"], "'nowhere' does not exist"),
        (["--config", "nowhere.yaml"], "no such config file: 'nowhere.yaml'"),
    ],
)
def test_a_mistake_on_the_command_line(
    options: list[str], part: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.ablate(*options) == 2
    assert part in capsys.readouterr().err
    assert not lab.run.exists()


def test_a_config_without_axes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "codec.yaml").write_text(CODEC)
    assert main(["ablate", "--config", str(tmp_path / "codec.yaml")]) == 2
    assert "needs a config file with axes" in capsys.readouterr().err


def test_the_base_may_be_another_file(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "codec.yaml").write_text(CODEC.replace("steps: 2", "steps: 3"))
    assert lab.ablate("--dry-run", base="codec.yaml", model={}) == 0
    other = capsys.readouterr().out
    assert lab.ablate("--dry-run", "--model.codec.sampler.steps", "3") == 0
    assert capsys.readouterr().out == other
    assert lab.ablate("--dry-run") == 0
    assert capsys.readouterr().out != other


def test_an_option_goes_over_its_component_in_any_order(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"model.codec.rows": ["pca"], "model.codec.rows.per_iteration": [2, 3]}
    grid = {"rate": "model.codec.rows.per_iteration", "baseline": {}, "exclude": []}
    listed = []
    for keys in (list(both), list(both)[::-1]):
        assert lab.ablate("--dry-run", axes={key: both[key] for key in keys}, **grid) == 0
        listed.append(to_do(capsys.readouterr().out))
    assert listed[0] == listed[1]
    assert len(listed[0]) == 2


def test_other_weights_at_the_same_place_are_other_cells(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny import save_prior

    listed = []
    for seed in (1, 1, 2):
        prior = save_prior(tmp_path / "prior", seed)
        assert lab.ablate("--dry-run", "--model.codec.prior", f"{{name: ddpm, path: {prior}}}") == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1]
    assert listed[0] != listed[2]


def away(grid: dict[str, Any], key: str) -> list[str]:
    """The labels on an axis that are not the baseline's; on the rate axis those between its ends."""
    labels = labels_of(grid["axes"][key])
    return (
        labels[1:-1] if key == grid["rate"] else [one for one in labels if one != str(grid["baseline"].get(key, one))]
    )


OF_FAMILIES = Path("configs/ablations/families.yaml")  # its families restore by one denoising
OF_CAPTIONS = Path("configs/ablations/captions.yaml")  # of a prior that takes them: tests/test_captioners.py
GRIDS = sorted(set(Path("configs/ablations").glob("*.yaml")) - {OF_CAPTIONS})


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_every_ablation_of_the_repository_runs(file: Path, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """All cells are checked; those that differ from the baseline on one axis, at both ends of the rate, are run."""
    small = [
        "--model.codec.prior",
        "gaussian",
        "--data.crop",
        "16",
        "--data.subset",
        "1",
    ]
    if file != OF_FAMILIES:
        small += ["--model.codec.restoration.samples", "1"]
    where = ["--data.root", str(lab.images), "--trainer.default_root_dir", str(lab.run)]
    assert main(["ablate", "--config", str(file), *where, *small, "--dry-run"]) == 0
    grid = yaml.safe_load(file.read_text())
    others = {key: away(grid, key) for key in grid["axes"]}
    pairs = itertools.combinations([key for key in others if key != grid["rate"]], 2)
    left_out = [{a: others[a], b: others[b]} for a, b in pairs] + [{grid["rate"]: others[grid["rate"]]}]
    (lab.folder / "grid.yaml").write_text(yaml.safe_dump({**grid, "exclude": [*grid.get("exclude", []), *left_out]}))
    assert main(["ablate", "--config", str(lab.folder / "grid.yaml"), *where, *small]) == 0
    varied = sum(len(labels) for key, labels in others.items() if key != grid["rate"])
    assert len(lab.cells) == len(lab.tidy) == 2 * (1 + varied)
    assert "+0.0" in capsys.readouterr().out
