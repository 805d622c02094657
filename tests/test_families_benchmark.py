"""benchmarks/families.py: what its picture shows."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from pscx.codecs import PSC

SCRIPT = Path("benchmarks/families.py")
POINTS = Path("benchmarks/results/families/points.csv")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def record(image: str, row: str, setting: str, payload: int, psnr: float) -> dict[str, str]:
    values = {"image": image, "crop": "64", "row": row, "setting": setting}
    return values | {"payload": str(payload), "psnr": str(psnr)}


def test_means_are_over_images_that_every_row_has(script: dict[str, Any]) -> None:
    records = [
        *(
            record("a", "fast", "1", 512, 30.0),
            record("a", "fast", "2", 256, 27.0),
            record("a", "turbo", "1", 128, 25.0),
        ),
        *(
            record("b", "fast", "1", 1024, 34.0),
            record("b", "fast", "2", 512, 29.0),
            record("b", "turbo", "1", 256, 26.0),
        ),
        *(
            record("c", "fast", "1", 9999, 1.0),
            record("c", "turbo", "1", 9999, 1.0),
            record("a", "fast", "target 1", 9, 9),
        ),
    ]
    images, found = script["averages"](records)
    assert images == ["a", "b"]
    assert found == {"fast": [(0.75, 28.0), (1.5, 32.0)], "turbo": [(0.375, 25.5)]}


def test_the_picture_of_the_docs_is_drawn_from_the_points(script: dict[str, Any], tmp_path: Path) -> None:
    script["main"](["--points", str(POINTS), "-o", str(tmp_path)])
    drawn = (tmp_path / "psnr.svg").read_text()
    assert drawn.startswith("<?xml")
    shown = Path("docs/images/families.svg").read_text()
    names = ("fast", "turbo", "ddcm-one-atom", "diffc-chunks", "ddcm-published", "mean of 6 images")
    assert all(f"<!-- {name} -->" in text for text in (drawn, shown) for name in names)


def test_rates_over_the_anchor_are_those_of_lines_that_are_straight_in_the_logarithm(script: dict[str, Any]) -> None:
    anchor = [(2.0 ** (psnr / 6), psnr) for psnr in (24.0, 30.0, 36.0)]
    line = [(3 * 2.0 ** (psnr / 6), psnr) for psnr in (23.0, 25.0, 31.0, 36.5)]  # the outer ones are not covered
    qualities, ratios = script["over"](anchor, line)
    assert qualities == [25.0, 31.0]
    assert ratios == pytest.approx([3.0, 3.0])


def test_every_row_is_a_codec_at_each_of_its_settings(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings pass through the table as numbers with a point, which a number of atoms must not have."""
    monkeypatch.chdir(tmp_path)
    for row in script["rows"]().values():
        for setting in row.settings:
            codec = row.make(float(setting)).signal_codec
            turned = (
                [codec.quantizer.parameter] if isinstance(codec, PSC) else [codec.level, getattr(codec, "atoms", 0)]
            )
            assert any(value == pytest.approx(setting, rel=0.01) for value in turned if value)
