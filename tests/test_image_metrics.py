"""Metrics of one image against other implementations of them, on bundled photographs."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import load
from numpy.typing import NDArray
from pairs import blocky, coarse, jpeg
from PIL import Image

from pscx.errors import PscxError
from pscx.metrics import FLIP, GMSD, METRICS, PSNR, SSIM, SSIMULACRA2, HaarPSI, ImageMetric

Pixels = NDArray[np.uint8]
HAS_FLIP = importlib.util.find_spec("flip_evaluator") is not None
needs_flip = pytest.mark.skipif(not HAS_FLIP, reason="flip-evaluator is not installed")
PLAIN = [
    pytest.param(name, marks=needs_flip) if name == "flip" else name
    for name in ("psnr", "ssim", "ms_ssim", "ssimulacra2", "haarpsi", "gmsd", "flip")
]
BEST = {"psnr": math.inf, "ssimulacra2": 100.0, "gmsd": 0.0, "flip": 0.0}
KINDS: dict[str, Callable[[Pixels], Pixels]] = {"coarse": coarse, "blocky": blocky}
CROPS: dict[str, Any] = {
    "": np.s_[:],
    "odd": np.s_[:53, :61],
    "small": np.s_[40:56, 40:56],
}


def made(name: str) -> ImageMetric:
    metric = METRICS.get(name)()
    assert isinstance(metric, ImageMetric)
    return metric


def enlarged(image: Pixels) -> Pixels:
    """``(200, 250, 3)``: large enough for every metric, with a side that does not halve evenly."""
    return np.array(Image.fromarray(image).resize((250, 200), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", PLAIN)
def test_equal_pictures_are_best(name: str, cat: Pixels) -> None:
    picture = enlarged(cat)
    assert made(name)(picture, picture.copy()) == pytest.approx(BEST.get(name, 1.0), abs=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_less_of_jpeg_is_worse(name: str, astronaut: Pixels) -> None:
    metric, picture = made(name), enlarged(astronaut)
    values = [metric(picture, jpeg(picture, quality)) for quality in (95, 60, 30, 10, 3)]
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", PLAIN)
def test_the_smallest_picture_and_a_smaller_one(name: str, cat: Pixels) -> None:
    metric, side = made(name), made(name).least_side
    picture = enlarged(cat)
    assert math.isfinite(metric(picture[:side, : side + 5], jpeg(picture, 30)[:side, : side + 5]))
    if side == 1:
        return
    for smaller in (picture[: side - 1], picture[:, : side - 1]):
        assert metric.value(smaller, smaller) is None
        with pytest.raises(ValueError, match=f"{name} needs sides of at least {side} pixels, got .*{side - 1}"):
            metric(smaller, smaller)


@pytest.mark.parametrize("name", PLAIN)
def test_sixteen_pixels(name: str, rocket: Pixels) -> None:
    metric, picture = made(name), rocket[50:66, 30:46]
    value = metric.value(picture, jpeg(picture, 20))
    assert (value is None) == (metric.least_side > 16) == (name == "ms_ssim")


@pytest.mark.parametrize("name", PLAIN)
def test_pictures_of_two_sizes(name: str, cat: Pixels, rocket: Pixels) -> None:
    with pytest.raises(ValueError, match=r"same size, got \(112, 160\) and \(128, 96\)"):
        made(name)(cat, rocket)


@pytest.mark.parametrize("name", PLAIN)
def test_flat_pictures(name: str) -> None:
    black = np.zeros((180, 180, 3), np.uint8)
    same, apart = made(name)(black, black), made(name)(black, black + 255)
    assert same == pytest.approx(BEST.get(name, 1.0), abs=1e-6)
    assert math.isfinite(apart)
    assert apart < same if made(name).higher_is_better else apart >= same


# Of the tool `ssimulacra2` of libjxl 0.11.2, which computes in float32.
LIBJXL = {
    ("astronaut", "", "coarse"): 43.05502371,
    ("astronaut", "", "blocky"): 39.01894573,
    ("astronaut", "odd", "coarse"): -52.52974760,
    ("astronaut", "odd", "blocky"): 56.43346957,
    ("astronaut", "small", "coarse"): 79.54026882,
    ("astronaut", "small", "blocky"): 73.73971281,
    ("chelsea", "", "coarse"): 38.75029599,
    ("chelsea", "", "blocky"): 54.14774410,
    ("chelsea", "odd", "coarse"): -25.03638451,
    ("chelsea", "odd", "blocky"): 33.66964712,
    ("chelsea", "small", "coarse"): 79.86009422,
    ("chelsea", "small", "blocky"): 73.49048645,
    ("rocket", "", "coarse"): 17.02570584,
    ("rocket", "", "blocky"): 28.00708851,
    ("rocket", "odd", "coarse"): 17.46489745,
    ("rocket", "odd", "blocky"): -1.47519896,
    ("rocket", "small", "coarse"): 92.01426590,
    ("rocket", "small", "blocky"): 96.88948521,
}


@pytest.mark.parametrize(("name", "crop", "kind"), LIBJXL)
def test_ssimulacra2_is_that_of_libjxl(name: str, crop: str, kind: str) -> None:
    picture = load(name)
    value = SSIMULACRA2()(picture[CROPS[crop]], KINDS[kind](picture)[CROPS[crop]])
    assert value == pytest.approx(LIBJXL[name, crop, kind], abs=0.05)


# Of piqa 1.3.2 with the authors' matrix for chroma, whose last digits piqa rounds otherwise: GMSD and HaarPSI.
PIQA = {
    ("astronaut", "", "coarse"): (0.078391543, 0.824371457),
    ("astronaut", "", "blocky"): (0.126051517, 0.572882652),
    ("astronaut", "small", "coarse"): (0.026076928, 0.885367572),
    ("astronaut", "small", "blocky"): (0.132595492, 0.588544130),
    ("chelsea", "", "coarse"): (0.044800150, 0.893531561),
    ("chelsea", "", "blocky"): (0.108080149, 0.593808711),
    ("rocket", "", "coarse"): (0.072155105, 0.826930821),
    ("rocket", "", "blocky"): (0.096464838, 0.619564354),
}


@pytest.mark.parametrize(("name", "crop", "kind"), PIQA)
def test_gmsd_and_haarpsi_are_those_of_piqa(name: str, crop: str, kind: str) -> None:
    picture = load(name)
    pair = picture[CROPS[crop]], KINDS[kind](picture)[CROPS[crop]]
    gmsd, haarpsi = PIQA[name, crop, kind]
    assert GMSD()(*pair) == pytest.approx(gmsd, abs=1e-8)
    assert HaarPSI()(*pair) == pytest.approx(haarpsi, abs=5e-6)


def same(image: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """MATLAB's ``conv2(image, kernel, 'same')``, in which the authors of both metrics wrote them, one tap at a time."""
    height, width = image.shape
    down, across = kernel.shape
    full = np.zeros((height + down - 1, width + across - 1))
    for y in range(down):
        for x in range(across):
            full[y : y + height, x : x + width] += kernel[y, x] * image
    top, left = math.ceil((down - 1) / 2), math.ceil((across - 1) / 2)
    return full[top : top + height, left : left + width]


def halved(channel: NDArray[np.float64]) -> NDArray[np.float64]:
    return same(channel, np.full((2, 2), 0.25))[::2, ::2]


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("kind", KINDS)
def test_gmsd_written_out(crop: str, kind: str, rocket: Pixels) -> None:
    pair = rocket[CROPS[crop]], KINDS[kind](rocket)[CROPS[crop]]
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    magnitudes = []
    for picture in pair:
        luma = halved(picture @ np.array([0.299, 0.587, 0.114]))
        magnitudes.append(np.hypot(same(luma, prewitt), same(luma, prewitt.T)))
    a, b = magnitudes
    assert GMSD()(*pair) == pytest.approx(np.std((2 * a * b + 170) / (a**2 + b**2 + 170), ddof=1), abs=1e-12)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("kind", KINDS)
def test_haarpsi_written_out(crop: str, kind: str, rocket: Pixels) -> None:
    pair = rocket[CROPS[crop]], KINDS[kind](rocket)[CROPS[crop]]
    matrix = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    (y1, i1, q1), (y2, i2, q2) = ([halved(image @ row) for row in matrix] for image in pair)

    def alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (2 * a * b + 30) / (a**2 + b**2 + 30)

    locals_, weights = [], []
    for turn in (False, True):
        pairs = []
        for scale in (1, 2, 3):
            kernel = np.full((2**scale, 2**scale), 2.0**-scale)
            kernel[: 2**scale // 2] *= -1
            pairs.append([np.abs(same(y, kernel.T if turn else kernel)) for y in (y1, y2)])
        locals_.append((alike(*pairs[0]) + alike(*pairs[1])) / 2)
        weights.append(np.maximum(*pairs[2]))
    box = np.full((2, 2), 0.25)
    chroma = [alike(*(np.abs(same(c, box)) for c in two)) for two in ((i1, i2), (q1, q2))]
    locals_.append((chroma[0] + chroma[1]) / 2)
    weights.append((weights[0] + weights[1]) / 2)
    squashed = 1 / (1 + np.exp(-4.2 * np.array(locals_)))
    mean = (squashed * weights).sum() / np.sum(weights)
    assert HaarPSI()(*pair) == pytest.approx((np.log(mean / (1 - mean)) / 4.2) ** 2, abs=1e-10)


@needs_flip
@pytest.mark.parametrize(("kind", "value"), [("coarse", 0.1555686), ("blocky", 0.1392885)])
def test_flip_of_files(kind: str, value: float, astronaut: Pixels, tmp_path: Path) -> None:
    """The package reads the same pictures from PNG, at the distance that it assumes by itself (flip-evaluator 1.7)."""
    other = KINDS[kind](astronaut)
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    Image.fromarray(other).save(tmp_path / "b.png")
    evaluate = importlib.import_module("flip_evaluator").evaluate
    _, mean, _ = evaluate(str(tmp_path / "a.png"), str(tmp_path / "b.png"), "LDR")
    assert FLIP()(astronaut, other) == pytest.approx(mean, abs=1e-6)
    assert mean == pytest.approx(value, abs=1e-5)


@needs_flip
def test_flip_from_farther_away_sees_less(astronaut: Pixels) -> None:
    near, far = (FLIP(pixels_per_degree=ppd)(astronaut, blocky(astronaut)) for ppd in (30, 120))
    assert far < near


@pytest.mark.parametrize("ppd", [0.0, -1.0, math.inf, math.nan])
def test_flip_refuses(ppd: float) -> None:
    with pytest.raises(ValueError, match="pixels_per_degree must be a finite number over 0"):
        FLIP(pixels_per_degree=ppd)


def test_flip_without_its_package(astronaut: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    for ask in (FLIP().prepare, lambda: FLIP()(astronaut, astronaut)):
        with pytest.raises(PscxError, match=re.escape("the metric flip needs the library flip_evaluator")):
            ask()


def test_ssimulacra2_is_not_symmetric(astronaut: Pixels) -> None:
    other = blocky(astronaut)
    assert abs(SSIMULACRA2()(astronaut, other) - SSIMULACRA2()(other, astronaut)) > 1


def test_what_a_metric_says_of_itself() -> None:
    metric = PSNR()
    assert (metric.name, metric.column, metric.title, metric.unit) == ("psnr", "psnr", "PSNR", "dB")
    assert (metric.digests(), SSIM().least_side) == ({}, 11)
