"""benchmarks/latent.py: what a run that goes on measures again."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def test_a_codec_that_has_changed_is_measured_again(tmp_path: Path) -> None:
    script = runpy.run_path("benchmarks/latent.py")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "x.png")
    measured, found = [], []

    def task(version: str) -> Any:
        def run(pixels: Any) -> list[dict[str, float]]:
            measured.append(version)
            return [dict.fromkeys(script["FIGURES"], 1.0)]

        return script["Task"]("codec", version, ["1"], run)

    for version in ("one", "one", "other"):
        found = script["fill"]([task(version)], {"x": tmp_path / "x.png"}, 16, tmp_path / "points.csv")
    assert measured == ["one", "other"]
    assert [record["version"] for record in found] == ["other"]
