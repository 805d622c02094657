"""The benchmark that puts pictures of several codecs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import features

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from contact_sheet import GAP, TEXT, Picture, finest, of_format, settings_of, sheet  # found through the line above
from file_formats import FORMATS

Pixels = NDArray[np.uint8]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("budget", [800, 1500])
def test_the_finest_setting_that_fits_is_taken(astronaut: Pixels, budget: int) -> None:
    form, settings = FORMATS["avif-looks"], settings_of("avif-looks")
    image = astronaut[:64, :64]
    best = finest(form, settings, image, budget)
    qualities = [setting for setting in settings if form.encode(image, setting) == best]
    following = settings[settings.index(qualities[-1]) + 1]
    assert len(best) <= budget < len(form.encode(image, following))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_a_codec_that_cannot_go_that_low_is_shown_at_its_coarsest(astronaut: Pixels) -> None:
    image, form = astronaut[:64, :64], FORMATS["avif-looks"]
    assert of_format("avif-looks", image, 100).size == len(form.encode(image, "quality 0 4:2:0 speed 4")) > 100


def test_settings_of_jpeg_xl_fall_in_distance() -> None:
    distances = [float(setting.split()[1]) for setting in settings_of("jxl")]
    assert distances == sorted(distances, reverse=True)
    assert (distances[0], distances[-1]) == (25.0, 0.3)


def test_both_halves_hold_the_same_pictures(astronaut: Pixels) -> None:
    pictures = [Picture("face", astronaut[:64, :64]), Picture("flat", np.full((64, 64, 3), 9, np.uint8), 12)]
    found = np.asarray(sheet([("face", pictures)], 64))
    places = [GAP + column * (64 + GAP) for column in range(2)]
    upper = [found[GAP : GAP + 64, left : left + 64] for left in places]
    top = GAP + 64 + GAP
    lower = [found[top : top + 64, left : left + 64] for left in places]
    assert found.shape[:2] == (GAP + 2 * (64 + GAP) + TEXT, GAP + 2 * (64 + GAP))
    for picture, shown in zip(pictures, lower, strict=True):
        np.testing.assert_array_equal(shown, picture.pixels)
        assert any(np.array_equal(picture.pixels, other) for other in upper)
    assert pictures[1].label(pictures[0].pixels).startswith("flat, 12 bytes\n")
