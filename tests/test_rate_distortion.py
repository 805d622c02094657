"""The benchmarks against other codecs and of targets, on two photographs and a codec of a moment."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CODEC, write_codec

from pscx.data.folder import BUNDLED
from pscx.metrics import GMSD, PSNR, psnr

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import file_formats  # found through the line above
import ranges
import rate_distortion as benchmark
import targets

SHOWN = PSNR()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for name in ("astronaut", "coffee"):
        (root / f"{name}.png").write_bytes((BUNDLED / f"{name}.png").read_bytes())
    return root


def points(root: Path) -> list[dict[str, str]]:
    with (root / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_written_goes_on_and_takes_another_codec(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    own = write_codec(tmp_path, CODEC, "own.yaml")
    args = [str(folder), "-o", str(out), "--crop", "32", "--steps", "1", "0.1", "--codecs", own]
    benchmark.main([*args, "jpeg"])
    rows = points(out)
    assert len(rows) == 2 * (2 + len(file_formats.FORMATS["jpeg"].settings))
    for row in rows:
        assert (row["crop"], row["ms_ssim"]) == ("32", "")  # too small for it
        assert float(row["bpp"]) == 8 * int(row["bytes"]) / 32**2
        assert (row["evaluations"] == "") == (row["payload"] == "") == (row["codec"] == "jpeg")
        assert row["payload"] == "" or 0 < int(row["payload"]) < int(row["bytes"])
    text = capsys.readouterr().out
    assert (out / "summary.md").read_text().strip() in text
    about = json.loads((out / "about.json").read_text())
    assert "jpeg" in about["codecs"]
    assert about["metrics"]["psnr"]["unit"] == "dB"
    for name in ("psnr", "evaluations"):
        assert (out / f"{name}.svg").read_text().startswith("<?xml")
    assert not (out / "ms_ssim.svg").exists()

    measured: list[str] = []
    once = benchmark.measure

    def counted(cell: Any, *args: Any) -> Any:
        measured.append(cell.setting)
        return once(cell, *args)

    monkeypatch.setattr(benchmark, "measure", counted)
    lines = (out / "points.csv").read_text().splitlines()
    (out / "points.csv").write_text("\n".join(lines[:-1]) + "\n")  # as if it had been stopped before the last
    benchmark.main([*args, "jpeg", "webp"])
    assert measured == [*(2 * list(file_formats.FORMATS["webp"].settings)), "step 0.1"]
    again = points(out)
    columns = ("bytes", "payload", "bpp", "psnr", "ms_ssim", "seconds", "evaluations")
    assert list(again[0]) == [*benchmark.KEY, *columns]
    assert again[: len(rows) - 1] == rows[:-1]
    changed = write_codec(tmp_path, CODEC.replace("iterations: 3", "iterations: 2"), "own.yaml")
    measured.clear()
    benchmark.main([*args[:-1], changed])
    assert measured == 2 * ["step 1.0", "step 0.1"]


def test_any_metric_is_measured_and_compared_the_right_way(folder: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "out", write_codec(tmp_path, CODEC, "own.yaml")
    args = [str(folder), "-o", str(out), "--crop", "32", "--steps", "1", "0.1", "--codecs", own, "jpeg"]
    benchmark.main([*args, "--limit", "1"])
    benchmark.main([*args, "--limit", "1", "--metrics", "gmsd"])  # which the points lack
    assert all(float(record["gmsd"]) > 0 and float(record["psnr"]) > 0 for record in points(out))
    assert "BD-rate in %, GMSD" in (out / "summary.md").read_text()
    assert (out / "gmsd.svg").exists()
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([*args, "--metrics", "fid"])


def test_half_the_rate_at_every_quality_is_50_percent_less_also_where_lower_is_better() -> None:
    def curve(share: float) -> list[benchmark.Point]:
        return [benchmark.Point(f"{n}", {"bpp": share * 2**n, "gmsd": 0.3 - 0.05 * n}) for n in range(5)]

    assert benchmark.pairs(curve(1), "gmsd", False) == [(2**n, 0.3 - 0.05 * n) for n in range(5)]
    assert benchmark._difference(curve(1), curve(0.5), GMSD()) == pytest.approx(-50)


def test_the_paper_is_compared_on_small_crops(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "PAPER", write_codec(tmp_path, CODEC, "published.yaml"))
    monkeypatch.setattr(benchmark, "PAPER_ITERATIONS", (1, 2))
    monkeypatch.setattr(benchmark, "PAPER_SIDE", 16)
    own = write_codec(tmp_path, CODEC, "own.yaml")
    args = [str(folder), "-o", str(tmp_path / "out"), "--crop", "24", "--steps", "1", "0.5", "--codecs", own]
    benchmark.main([*args, "--paper", "1", "--limit", "1"])
    small = [(row["codec"], row["setting"]) for row in points(tmp_path / "out") if row["crop"] == "16"]
    assert [setting for _, setting in small] == ["step 1.0", "step 0.5", "iterations 1", "iterations 2"]
    _, small_tables = capsys.readouterr().out.split("Central 16x16:")
    assert len(re.findall(r"\| own +\| \S*published\S* +\| ", small_tables)) == 2  # whole files, payloads alone


def test_payloads_alone_are_compared_without_headers() -> None:
    """Half the payload at every quality, and files of the same size less a header that is none of it."""
    rows = [
        {
            "image": "a",
            "crop": crop,
            "codec": codec,
            "version": "1",
            "setting": f"step {n}",
            "evaluations": "1",
            "psnr": str(20 + 3 * n),
        }
        | {"payload": str(share * 2**n * 64), "bytes": str(share * 2**n * 64 + header), "ms_ssim": "", "lpips": ""}
        | {"bpp": str(8 * (share * 2**n * 64 + header) / 64**2), "seconds": "1"}
        for crop in ("64", "256")
        for codec, share, header in [("own", 1, 0), ("published", 2, 200)]
        for n in range(5)
    ]
    text, _ = benchmark.report(rows, 256)
    whole, bare = text.split("Central 64x64:")[1].split("payloads alone")
    assert "| own       | published | -50.0 " in bare
    assert "-50.0" not in whole
    rows[-1]["payload"] = ""  # from a table of before
    assert "payloads alone" in benchmark.report(rows, 256)[0]
    rows[0]["payload"] = ""
    assert "payloads alone" not in benchmark.report(rows, 256)[0]


def test_the_sides_of_the_two_comparisons_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main([str(folder), "--crop", "64", "--paper", "1"])
    assert "--crop must be other than 64" in capsys.readouterr().err


def test_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "x.png", "x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(benchmark.images(tmp_path)) == ["a__x", "b__x", "x", "x_2"]
    assert list(benchmark.images(tmp_path, 1)) == ["a__x"]
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(tmp_path), "--codecs", "defualt"])


def test_tables_on_curves_that_are_known() -> None:
    """Half the rate of another codec at every quality is a BD-rate of -50 %."""
    rows = [
        {"image": "a", "codec": codec, "setting": f"{variant} {n}", "bytes": str(share * 2**n * 100)}
        | {"bpp": str(share * 2**n * 0.1), "psnr": str(20.0 + 3 * n + lift), "ms_ssim": ""}
        | dict.fromkeys(("payload", "lpips", "seconds", "evaluations"), "")
        for codec, variant, share, lift in [("jpeg", "x", 2, 0.0), ("jpeg", "y", 2, -0.5), ("own", "step", 1, 0.0)]
        for n in range(5)
    ]
    found = benchmark.curves(rows)
    kept = benchmark.front(found["jpeg"], "psnr")
    assert [point.setting for point in kept] == [f"x {n}" for n in range(5)]
    table = benchmark.bd_table(benchmark.by_image(rows)).splitlines()
    assert [field.strip() for field in table[2].split("|")[1:-1]] == ["own", "jpeg", "-50.0", "-"]
    at = benchmark.equal_bytes_table(rows).splitlines()
    assert at[2].split("|")[2:5] == [" 0.200 ", " 20.00     ", " 23.00    "]
    assert at[6].split("|")[4].strip() == "-"  # beyond the last point of pscx
    rates = [line.split("|")[2].strip() for line in benchmark.rate_table(benchmark.by_image(rows)).splitlines()]
    assert rates == ["0.1 bpp", rates[1], "-", "20.00"]


def test_bd_rates_are_averaged_over_images_and_not_taken_of_average_curves() -> None:
    """One codec's settings are rates, the other's are qualities; image by image the one needs half the bits."""
    rows = []
    for image, cost in (("a", 1.0), ("b", 4.0), ("c", 1.0)):
        for n in range(5):
            quality = 20.0 + 3 * n + (100 if image == "c" else 0)  # nothing in common there
            by_quality = {"codec": "jpeg", "setting": f"quality {n}", "bpp": 0.2 * 2**n * cost, "psnr": 20.0 + 3 * n}
            by_rate = {"codec": "own", "setting": f"step {n}", "bpp": 0.1 * 2**n, "psnr": quality - 3 * np.log2(cost)}
            for facts in (by_quality, by_rate):
                texts = {key: str(value) for key, value in facts.items()}
                rows.append(
                    {"image": image} | dict.fromkeys(("payload", "ms_ssim", "seconds", "evaluations"), "") | texts
                )
    for row in rows:
        row["bytes"] = str(float(row["bpp"]) * 1000)
    assert "| -50.0 (2 of 3) " in benchmark.bd_table(benchmark.by_image(rows))


def test_a_variant_is_kept_where_it_is_better() -> None:
    def point(setting: str, rate: float, quality: float) -> benchmark.Point:
        return benchmark.Point(setting, {"bpp": rate, "psnr": quality})

    low = [point(f"quality {n} 4:2:0", 0.1 * 2**n, 20.0 + 2 * n) for n in range(4)]
    high = [point(f"quality {n} 4:4:4", 0.11 * 2**n, 18.5 + 3 * n) for n in range(4)]
    kept = benchmark.front(sorted([*low, *high], key=lambda p: p.values["bpp"] or 0), "psnr")
    assert [p.setting for p in kept] == [
        *("quality 0 4:2:0", "quality 1 4:2:0"),
        *("quality 2 4:4:4", "quality 3 4:4:4"),
    ]


@pytest.mark.parametrize("name", file_formats.FORMATS)
def test_every_format_rises_with_its_settings(name: str) -> None:
    form = file_formats.FORMATS[name]
    if form.implementation() is None:
        pytest.skip(f"{name} is not installed here")
    with Image.open(BUNDLED / "coffee.png") as image:
        pixels = np.array(image.convert("RGB"))[:64, :64]
    groups: dict[str, list[str]] = {}
    for setting in form.settings:
        groups.setdefault(benchmark.variant(setting), []).append(setting)
    for settings in groups.values():
        ends = [form.encode(pixels, settings[place]) for place in (0, -1)]
        low, high = sorted(ends, key=len)
        assert len(low) < len(high)
        assert psnr(pixels, form.decode(low)) < psnr(pixels, form.decode(high))


def test_a_comment_is_taken_out_of_a_codestream() -> None:
    comment, size = b"\xff\x64\x00\x05\x00\x01!", b"\xff\x51\x00\x04ab"
    assert file_formats.without_comment(b"\xff\x4f" + size + comment + b"\xff\x90rest") == (
        b"\xff\x4f" + size + b"\xff\x90rest"
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--codecs", "jpeg", "--crop", "400"], "--crop must fit into every image, got 400 for 128x128"),
        (["--codecs", "avif"], "avif is not installed here"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    options: list[str], part: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_formats.AVIF, "implementation", lambda self: None)
    with pytest.raises(SystemExit, match=part):
        benchmark.main([str(folder), "-o", str(tmp_path / "out"), *options])


def test_targets_are_counted_and_a_run_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_codec(tmp_path, CODEC, "own.yaml")
    args = [str(folder), "-o", str(tmp_path / "out"), "--recipe", own, "--crop", "32", "--bpp", "4", "--psnr", "90"]
    assert targets.main(args) == 0
    lines = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line] for line in lines[1:]] == [
        ["bpp 4", "2 of 2", "0"],
        ["psnr 90", "0 of 2", "2"],
    ]
    table = tmp_path / "out" / "targets.csv"
    before = table.read_text()
    assert before.count("cannot be reached") == 2
    table.write_text("".join(line.replace(",4,3.9", ",4,3.8") for line in before.splitlines(keepends=True)))
    assert table.read_text() != before
    assert targets.main(args) == 1  # what is there is not measured again, and is judged
    assert "bpp 4 | 0 of 2" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        targets.main([str(tmp_path / "nowhere")])


def test_whole_images_are_the_default_and_a_protocol_says_how_many_of_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "kodak", tmp_path / "out"
    folder.mkdir()
    generator = np.random.default_rng(0)
    smooth = np.kron(generator.integers(0, 256, (8, 12, 3)), np.ones((64, 64, 1))).astype(np.uint8)
    Image.fromarray(smooth).save(folder / "a.png")
    Image.fromarray(smooth.swapaxes(0, 1)).save(folder / "b.png")
    args = [str(folder), "-o", str(out), "--protocol", "kodak", "--codecs", "jp2", "--metrics", "psnr"]
    benchmark.main(args)
    rows = points(out)
    assert {row["crop"] for row in rows} == {"whole"}
    assert all(float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (768 * 512)) for row in rows)
    text = capsys.readouterr().out
    assert "Means over 2 of the 24 images of Kodak, whole images" in text
    assert "bare codestream without its comment" in text
    benchmark.main([*args[:4], "kodak-512", *args[5:]])
    assert {row["crop"] for row in points(out)} == {"whole", "512"}
    assert "central 512x512" in capsys.readouterr().out
    Image.fromarray(smooth[:500]).save(folder / "c.png")
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(args)
    assert "the images of Kodak are 768x512 or 512x768, but" in capsys.readouterr().err


def known(share: float, lift: float = 0.0, codec: str = "own", images: int = 3) -> list[dict[str, str]]:
    """Points of images whose curves are one another's, at rates of their own, times ``share``."""
    return [
        {"image": f"{image}", "codec": codec, "setting": f"step {n}", "psnr": str(20.0 + n + lift * (n > 5))}
        | {"bpp": str(share * 0.03 * 1.5**n * (1 + image)), "bytes": "100", "payload": ""}
        | dict.fromkeys(("seconds", "evaluations", "ms_ssim"), "")
        for image in range(images)
        for n in range(12)
    ]


def test_ranges_of_the_rate_are_those_of_the_codec_that_is_compared_with() -> None:
    """80 % of its rate at every quality in the lower range, and in the upper too unless the upper half is lifted."""
    rows = [*known(1, codec="avif"), *known(0.8)]
    table = benchmark.range_table(benchmark.by_image(rows), [(0.05, 0.25), (0.25, 1.0)], [SHOWN])
    assert [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]] == [
        *("PSNR", "own", "avif"),
        *2 * ["-20.0 [-20.0, -20.0]"],
    ]
    lifted = benchmark.range_table(
        benchmark.by_image([*known(1, codec="avif"), *known(0.8, lift=1.0)]), [(0.02, 0.1), (0.25, 1.0)], [SHOWN]
    )
    low, high = (float(cell.split("[")[0]) for cell in lifted.splitlines()[2].split("|")[4:6])
    assert low == pytest.approx(-20.0)
    assert high < -25


def test_a_curve_that_reaches_less_than_half_of_a_range_has_no_figure_there() -> None:
    rows = [*known(1, codec="avif"), *(row for row in known(0.8) if float(row["psnr"]) > 23.5)]
    table = benchmark.range_table(benchmark.by_image(rows), [(0.03, 0.1), (0.25, 1.0)], [SHOWN])
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[4:6]]
    assert cells[0].startswith("- (")
    assert cells[1] == "-20.0 [-20.0, -20.0]"


def test_bootstrap_intervals_are_those_of_a_mean() -> None:
    """For many values, the normal approximation: the mean and 1.96 standard errors."""
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = ranges.interval(values.tolist())
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.03)
    assert ranges.interval([3.0, 3.0]) == (3.0, 3.0)


def test_a_range_of_rates_is_read_off_a_curve_as_far_as_it_goes() -> None:
    curve = [(0.1, 30.0), (1.0, 20.0)]  # lower is better
    assert ranges.quality_range(curve, (0.01, 0.1 * 10**0.5)) == pytest.approx((25.0, 30.0))
    assert ranges.share(curve, (15.0, 25.0)) == 0.5
    with pytest.raises(ValueError, match="no part"):
        ranges.quality_range(curve, (2.0, 3.0))
    assert ranges.range_of("0.05-0.25") == (0.05, 0.25)
    for text in ("0.2", "0.3-0.1", "0-1", "a-b"):
        with pytest.raises(argparse.ArgumentTypeError, match="two rates over 0 in rising order"):
            ranges.range_of(text)


def test_on_crops_a_file_with_a_container_is_also_compared_without_it() -> None:
    pixels = np.kron(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8, 1), np.ones((8, 8, 3), np.uint8))
    avif = file_formats.FORMATS["avif"]
    if avif.implementation() is None:
        pytest.skip("avif is not installed here")
    data = avif.encode(pixels, avif.settings[0])
    media = avif.payload(data)
    assert media is not None
    assert data[-media - 4 : -media] == b"mdat"
    assert 200 < len(data) - media < 350
    rows = [row | {"payload": "50"} for row in known(1, codec="avif")]
    for row in rows:
        row["crop"], row["version"] = "64", "1"
    own = [row | {"crop": "64", "version": "1"} for row in known(1)]
    text, _ = benchmark.report([*rows, *own], 64, [SHOWN])
    table = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in text.splitlines()}
    assert ("own", "avif", "+0.0") in table
    assert ("own", "avif without container", "+100.0") in table
    whole = [row | {"crop": "whole"} for row in [*rows, *own]]
    assert "without container" not in benchmark.report(whole, None, [SHOWN])[0]
