"""``pscx compare``: published figures against others' arithmetic on them, and runs beside them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pscx import load_plugins
from pscx.cli.main import PUBLISHED, main
from pscx.comparison import SETS, published
from pscx.comparison.curve import Compared
from pscx.comparison.figure import groups, in_order, styles
from pscx.comparison.numbers import APART, BEYOND, spread
from pscx.comparison.published import AV1, FOLDER, MEASURES
from pscx.comparison.tables import Comparison
from pscx.data.folder import BUNDLED
from pscx.evaluation.bd import bd_rate, front

BOX = re.findall(r"^```python\n(.*?)^```", Path("docs/plugins.md").read_text(), re.MULTILINE | re.DOTALL)[2]
QUALITIES = (10, 30, 70)
SHARES = ("ms_ssim", "lpips", "dists")
PHOTOS = ("astronaut", "coffee")

# BD-rate against CompressAI's AV1 on Kodak from 26 to 35 dB, computed elsewhere with straight lines between points
AGAINST_AV1 = {
    "vtm": -19.9,
    "cheng2020-anchor": -13.3,
    "mbt2018": -6.0,
    "bpg": 4.9,
    "hyperprior": 14.9,
    "webp": 62.6,
    "jpeg": 190.0,
}


def kodak() -> dict[str, list[tuple[float, float]]]:
    return {curve.key: front(curve.points.get("psnr", ())) for curve in published("kodak")}


def by_lines(anchor: list[tuple[float, float]], test: list[tuple[float, float]], low: float, high: float) -> float:
    """BD-rate with straight lines between points, by a fine sum."""
    low = max([low, *(min(quality for _, quality in curve) for curve in (anchor, test))])
    high = min([high, *(max(quality for _, quality in curve) for curve in (anchor, test))])
    at = np.linspace(low, high, 4001)
    logs = [np.interp(at, [q for _, q in curve], [np.log(rate) for rate, _ in curve]) for curve in (anchor, test)]
    return float(100 * np.expm1((logs[1] - logs[0]).mean()))


@pytest.mark.parametrize(("key", "expected"), AGAINST_AV1.items())
def test_published_curves_differ_as_others_have_computed(key: str, expected: float) -> None:
    """With straight lines to the digit; the cubic of bd_rate is within 1.3 % of the ratio of rates."""
    curves = kodak()
    assert by_lines(curves[AV1], curves[key], 26, 35) == pytest.approx(expected, abs=0.1 if expected < 100 else 1)
    ratio = (100 + bd_rate(curves[AV1], curves[key], within=(26, 35))) / (100 + expected)
    assert ratio == pytest.approx(1, abs=0.013)


def test_published_figures_are_facts_with_a_source_and_a_commit() -> None:
    assert set(SETS) == set(PUBLISHED)
    for file in FOLDER.glob("*.json"):
        facts = json.loads(file.read_text(encoding="utf-8"))
        assert re.fullmatch(r"https://github\.com/[\w./-]+@[0-9a-f]{7,} \S.*", facts["source"]), file
        assert facts["metrics"][0] == "bpp"
        assert {*facts["metrics"][1:]} <= MEASURES.keys()
        assert facts["sets"].keys() <= SETS.keys()
    for name in SETS:
        curves = published(name)
        keys = [curve.key for curve in curves]
        assert curves
        assert len(keys) == len(set(keys))
        for curve in curves:
            assert not curve.measured
            assert all(0 < rate < 10 for pairs in curve.points.values() for rate, _ in pairs)
            assert all(5 < value < 60 for _, value in curve.points.get("psnr", ()))
            assert all(
                0 < value <= 1 for key in ("ms_ssim", "lpips", "dists") for _, value in curve.points.get(key, ())
            )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``q10``, ``q30``, ``q70`` of a JPEG codec as ``docs/plugins.md`` has it on two pictures of Kodak's size."""
    root = tmp_path_factory.mktemp("compare")
    (root / "images").mkdir()
    for number, name in enumerate(PHOTOS):
        with Image.open(BUNDLED / f"{name}.png") as image:
            size = (768, 512) if number else (512, 768)
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(root / "images" / f"{name}.png")
    (root / "mine").mkdir()
    (root / "mine" / "jpeg_box.py").write_text(BOX)
    return root


@pytest.fixture
def runs(lab: Path, forget_plugins: Callable[[], None]) -> list[str]:
    forget_plugins()
    folders = [str(lab / f"q{quality}") for quality in QUALITIES]
    args = ["--model.codec", "jpeg_box", "--data.root", str(lab / "images")]
    args += ["--model.metrics", "[psnr]"]
    load_plugins(lab / "mine")
    for folder, quality in zip(folders, QUALITIES, strict=True):
        where = ["--trainer.default_root_dir", folder, "--model.codec.quality", str(quality)]
        assert Path(folder).exists() or main(["test", *args, *where]) == 0
    return folders


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_of_jpeg_beside_published_codecs_is_where_jpeg_measured_here_is(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["compare", *runs, "--published", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    found = {(r["curve"], r["against"]): r for r in records(out / "comparison.csv")}
    own = next(key for key, _ in found if key not in kodak() and key != "jpeg-here")
    # the stream is the same file and some tens of bytes; straight lines of three points against eleven
    assert float(found[own, "jpeg-here"]["bd_rate"]) == pytest.approx(0, abs=4)
    assert float(found["vtm", AV1]["bd_rate"]) == pytest.approx(-19.1, abs=0.1)
    assert float(found[own, AV1]["bd_rate"]) < 0  # pictures that were enlarged are smooth
    assert float(found[own, "vtm"]["bd_rate"]) > float(found[own, "jpeg"]["bd_rate"])
    offset = re.search(
        r"The offset: JPEG measured here .* against JPEG as published, ([+-][\d.]+) % at equal PSNR", text
    )
    assert offset is not None
    assert float(offset[1]) == pytest.approx(float(found["jpeg-here", "jpeg"]["bd_rate"]), abs=0.05)
    for part in ("means over 2 images", "means over all 24 images of Kodak", "InterDigitalInc/CompressAI@869a9f5"):
        assert part in text
    assert (out / "comparison.md").read_text().startswith(text.strip()[:200])
    shown = {r["curve"] for r in records(out / "comparison-points.csv")}
    assert {own, "jpeg-here", "jpeg", AV1, "vtm", "ms-illm"} <= shown
    first = (out / "comparison-psnr.svg").read_bytes()
    assert main(["compare", *runs, "--published", "-o", str(out), "--force"]) == 0
    assert (out / "comparison-psnr.svg").read_bytes() == first
    assert (out / "comparison-psnr.png").read_bytes()[:4] == b"\x89PNG"


def test_without_published_figures_runs_stand_against_the_first(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *runs, "-o", str(tmp_path), "--within", "20", "30"]) == 0
    text = capsys.readouterr().out
    assert "Published" not in text
    assert "PSNR from 20 to 30 dB" in text
    assert records(tmp_path / "comparison.csv") == []  # one curve, nothing to compare it with


def write_table(root: Path, codecs: list[tuple[str, str, int]], *more: str) -> str:
    """A folder of ``rate_distortion.py``: codec, how it is set, and how many times as many bytes it takes."""
    root.mkdir()
    lines = ["image,crop,codec,version,setting,bytes,bpp,psnr,seconds,evaluations"]
    for image, cost in (("a", 1), ("b", 2)):
        for n in range(4):
            for codec, how, share in codecs:
                size = 2000 * cost * share * 2**n
                evaluations = "60" if codec == "mine" else ""
                row = [image, "whole", codec, "1", f"quality {n}{how}", size, 8 * size / (768 * 512), 25 + 3 * n, 1]
                lines.append(",".join(map(str, [*row, evaluations])))
    (root / "points.csv").write_text("\n".join([*lines, *more]) + "\n")
    facts = {"title": "PSNR", "unit": "dB", "higher_is_better": True, "of": "image"}
    (root / "about.json").write_text(json.dumps({"metrics": {"psnr": facts}}))
    return str(root)


def bd_rates(folder: Path) -> dict[tuple[str, str], float]:
    """In percent, by curve and anchor."""
    return {(r["curve"], r["against"]): float(r["bd_rate"] or "nan") for r in records(folder / "comparison.csv")}


def test_a_table_of_rate_distortion_gives_a_curve_for_each_variant(tmp_path: Path) -> None:
    """Of the same images at the same quality, one codec takes half of another's rate."""
    root = tmp_path / "table"
    codecs = [("x", " 4:2:0", 2), ("x", " 4:4:4", 4), ("mine", "", 1)]
    write_table(root, codecs, "a,64,x,1,quality 9 4:2:0,100,0.1953125,50,1,")  # another region: no whole image
    assert main(["compare", str(root), "--published", "--against", "x 4:2:0 whole"]) == 0
    found = bd_rates(root)
    assert found["mine", "x 4:2:0 whole"] == pytest.approx(-50, abs=0.01)
    assert found["mine", "x 4:4:4 whole"] == pytest.approx(-75, abs=0.01)
    assert "x 4:2:0 against it" not in (root / "comparison.md").read_text()  # it is none of pscx


def curve(key: str, *points: tuple[float, float], measured: bool = True, own: bool = False) -> Compared:
    return Compared(key, f"title of {key}", "", 1, {"psnr": points}, measured, own)


def test_pscx_is_black_and_red_and_other_codecs_have_a_colour_each() -> None:
    keys = ["jpeg 4:2:0", "jpeg-here", "jpeg 4:4:4", "avif speed 4", "webp (here)", "jxl effort 7", "jxl effort 9"]
    looks = styles([*(curve(key) for key in keys), curve("fast", own=True), curve("default", own=True)])
    assert [looks[key]["color"] for key in ("fast", "default")] == ["#000000", "#D0021B"]
    colors = [looks[key]["color"] for key in keys]
    assert len(set(colors)) == 4
    assert not {"#000000", "#D0021B"} & set(colors)
    assert [looks[key]["linestyle"] for key in keys] == ["-", "--", ":", "-", "-", "-", "--"]
    assert all(looks["fast"][part] > looks["webp (here)"][part] for part in ("linewidth", "markersize", "zorder"))
    many = styles([curve(str(number), own=True) for number in range(30)])
    assert len({(look["color"], look["linestyle"]) for look in many.values()}) == 30


def test_published_curves_are_numbered_from_the_fewest_bits() -> None:
    anchor = curve("x", (1, 30), (2, 33), (4, 36))
    better = curve("a", (0.5, 30), (1, 33), (2, 36), measured=False)
    worse = curve("b", (1.5, 30), (3, 33), (6, 36), measured=False)
    far = curve("c", (1, 50), (2, 60), measured=False)
    comparison = Comparison([anchor, far, worse, better], anchor, {"psnr": MEASURES["psnr"]}, {})
    order = in_order(comparison, [far, worse, better], "psnr")
    assert [one.key for one in order] == ["a", "b", "c"]
    looks = styles([anchor])
    entries = groups([anchor], looks, order)
    assert list(entries) == ["others, measured here", "published"]
    assert [label for label, _ in entries["published"]] == ["1  title of a", "2  title of b", "3  title of c"]
    assert list(groups([anchor], looks, [])) == [""]


def test_numbers_stand_on_their_lines_where_there_is_room() -> None:
    fan = [np.array([[0.0, 0.0], [50.0, 0.0], [100.0, rise]]) for rise in (40.0, 0.0, -40.0)]
    places = np.array(spread(fan, 3))
    assert (places[:, 0] > 55).all()  # not where all three run together
    assert places[0, 1] > 5
    assert places[2, 1] < -5
    same = np.array(spread([fan[1]] * 4, 4))
    gaps = np.hypot(*(same[:, None] - same[None]).T)[~np.eye(4, dtype=bool)]
    assert gaps.min() >= APART
    assert same[:, 1] == pytest.approx(np.zeros(4))
    assert (same[:, 0] >= -BEYOND).all()
    assert (same[:, 0] <= 100 + BEYOND).all()
    point = np.array([[3.0, 4.0]])
    assert spread([point, fan[0]], 1) == [(3.0, 4.0 + BEYOND)]


def test_curves_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Of two folders, or measured and published: each has its rows."""
    one, two = (write_table(tmp_path / name, [("webp", "", n)]) for n, name in ((1, "one"), (2, "two")))
    assert main(["compare", one, two, "-o", str(tmp_path)]) == 0
    assert bd_rates(tmp_path)["webp (2)", "webp (1)"] == pytest.approx(100, abs=0.01)
    assert main(["compare", one, "--published"]) == 0
    found = bd_rates(tmp_path / "one")
    assert {("webp", AV1), ("webp (here)", AV1), ("webp (here)", "webp")} <= found.keys()
    assert found["webp", AV1] != found["webp (here)", AV1]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["compare", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_bad_input_is_one_sentence(
    runs: list[str], lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert "no such folder: 'nowhere'" in refused(capsys, "nowhere", *out)
    assert "the published images of Kodak, central 512x512 have 262144 pixels" in refused(
        capsys, *runs, "--published", "kodak-512", *out
    )
    assert "--against must name a curve of the comparison, got 'av2' (did you mean 'av1'?)" in refused(
        capsys, *runs, "--published", "--against", "av2", *out
    )
    assert "two PSNR in rising order, got 35 26" in refused(capsys, *runs, "--within", "35", "26", *out)
    assert "--originals needs --published" in refused(capsys, *runs, "--originals", str(lab / "images"), *out)
    assert "no such folder of originals: 'nowhere'" in refused(
        capsys, *runs, "--published", "--originals", "nowhere", *out
    )
    assert "invalid choice: 'kodac'" in refused(capsys, *runs, *out, "--published", "kodac")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.csv").touch()
    assert "exists already" in refused(capsys, *runs, *out)
    out = ["-o", str(tmp_path / "third")]
    (tmp_path / "points.csv").write_text("image\n")
    assert "does not hold points.csv and about.json as rate_distortion.py writes them" in refused(
        capsys, str(tmp_path), *out
    )
    shutil.copytree(lab / "q10", tmp_path / "other")
    table = tmp_path / "other" / "images.csv"
    table.write_text(table.read_text().replace("astronaut", "x1").replace("coffee", "x2"))
    for stem, new in (("astronaut", "x1"), ("coffee", "x2")):
        (tmp_path / "other" / "streams" / f"{stem}.pscx").rename(tmp_path / "other" / "streams" / f"{new}.pscx")
    assert "no image in common" in refused(capsys, runs[1], str(tmp_path / "other"), *out)


def test_without_originals_the_offset_is_not_known(
    runs: list[str], lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(empty / "x.png")
    args = [*runs, "--published", "-o", str(tmp_path / "out"), "--originals", str(empty)]
    assert main(["compare", *args]) == 0
    assert (
        "The offset between these images and the published ones is not known. JPEG was not measured: 'astronaut'"
        in (capsys.readouterr().out)
    )
