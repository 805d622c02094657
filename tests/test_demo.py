"""``pscx demo`` without a browser: what its buttons call, what it makes of uploads, and who may reach it."""

from __future__ import annotations

import base64
import inspect
import io
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CODEC, psc_of, write_codec

from pscx import load_codec
from pscx.api import Decompressor
from pscx.config import ConfigError
from pscx.demo.feed import end_all, told
from pscx.demo.offline import OFFLINE, environment, offline
from pscx.demo.rivals import largest, rival
from pscx.demo.views import View, Views, views_of
from pscx.demo.work import Bounds, photograph, scaled_down, stream
from pscx.errors import CancelledError, ImageError, PscxError
from pscx.metrics import psnr
from pscx.rate_control.quality import Quality
from pscx.rate_control.trials import Pixels
from pscx.runtime.cancel import check_cancel

BOUNDS = Bounds(bytes=50_000, pixels=2000)


@pytest.fixture
def config(tmp_path: Path) -> str:
    return write_codec(tmp_path)


@pytest.fixture
def views(config: str) -> Views:
    return views_of(config, None, BOUNDS)


@pytest.fixture
def photo(tmp_path: Path, cat: Pixels) -> Path:
    """40x32 pixels of the cat."""
    path = tmp_path / "cat.png"
    Image.fromarray(cat[20:52, 40:80]).save(path)
    return path


def saved(link: str) -> bytes:
    """What a link saves."""
    found = re.search(r'href="data:application/octet-stream;base64,([^"]*)"', link)
    assert found is not None
    return base64.b64decode(found[1])


def seen(pictures: str) -> dict[str, Pixels]:
    """The pictures of a gallery, by title."""
    figures = re.findall(r'base64,([^"]*)".*?<strong>(.*?)</strong>', pictures)
    return {title: np.array(Image.open(io.BytesIO(base64.b64decode(data)))) for data, title in figures}


def compressed(views: Views, path: Path, quality: float = 50, shrink: bool = False) -> list[View]:
    return list(views.compress(str(path), "codec", quality, shrink))


def mistake(views: Iterator[View]) -> str:
    """The one sentence that the last view is."""
    status, pictures, file = list(views)[-1]
    assert (pictures, file) == ("", "")
    found = re.fullmatch(r'<p class="error" role="alert">(.*)</p>', status)
    assert found is not None, status
    text = unescape(found[1])
    assert text[0].isupper() or text[0] == "'"
    assert text.endswith(".")
    assert str(tempfile.gettempdir()) not in text
    return text


def test_compressing_tells_each_step(views: Views, photo: Path) -> None:
    steps = [re.sub("<[^>]*>", "", status) for status, _, _ in compressed(views, photo)]
    iterations = [f"Compressing, iteration {done} of 3" for done in (1, 2, 3)]
    segments = [f"Decoding, after segment {done} of 3" for done in (1, 2)]
    assert steps[0] == "Loading the recipe codec"
    assert [step for step in steps if step in iterations] == iterations
    assert steps[-3:-1] == segments
    assert re.fullmatch(r"Done: \d+ bytes, \d\.\d{3} bits per pixel\.", steps[-1])


def test_the_saved_stream_decodes_to_the_picture_that_is_shown(views: Views, photo: Path, config: str) -> None:
    status, pictures, file = compressed(views, photo)[-1]
    data, shown = saved(file), seen(pictures)
    assert 'download="cat.pscx"' in file
    assert f"Done: {len(data)} bytes" in status
    np.testing.assert_array_equal(shown["pscx"], Decompressor().decompress(data))
    np.testing.assert_array_equal(shown["Original"], np.array(Image.open(photo)))
    assert f"{psnr(shown['Original'], shown['pscx']):.2f} dB" in pictures
    # what the slider says is what the codec is asked for
    assert data == load_codec(config).encode(shown["Original"], target=Quality(50)).data


def test_gradio_sees_that_both_come_in_steps(views: Views) -> None:
    assert inspect.isgeneratorfunction(views.compress)
    assert inspect.isgeneratorfunction(views.decode)


def test_a_higher_quality_is_a_larger_stream(views: Views, photo: Path) -> None:
    sizes = [len(saved(compressed(views, photo, quality)[-1][2])) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


def test_every_segment_changes_the_decoder_s_picture(views: Views, photo: Path) -> None:
    shown = [seen(pictures)["pscx"] for _, pictures, _ in compressed(views, photo) if ">pscx<" in pictures]
    assert len(shown) == 3
    assert all((before != after).any() for before, after in pairwise(shown))


def test_an_upload_decodes_to_the_same_pixels(views: Views, photo: Path, tmp_path: Path) -> None:
    _, pictures, file = compressed(views, photo)[-1]
    (tmp_path / "back.pscx").write_bytes(saved(file))
    stages = list(views.decode(str(tmp_path / "back.pscx")))
    assert [re.sub("<[^>]*>", "", status) for status, _, _ in stages] == [
        *("Loading the prior", "Decoding, after segment 1 of 3", "Decoding, after segment 2 of 3", "Done.")
    ]
    ours = seen(pictures)["pscx"]
    np.testing.assert_array_equal(seen(stages[-1][1])["Decoded"], ours)
    assert 'download="back.png"' in stages[-1][2]
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(saved(stages[-1][2])))), ours)
    assert (seen(stages[1][1])["Decoded"] != ours).any()


@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_a_rival_is_the_best_that_fits(name: str, astronaut: Pixels) -> None:
    found = rival(name, astronaut, 2500)
    assert found.fits
    assert found.bytes <= 2500
    assert found.psnr == psnr(astronaut, found.pixels)
    of: dict[str, dict[str, Any]] = {"JPEG": {"optimize": True, "progressive": True}, "WebP": {"method": 6}}
    options = of[name]

    def encoded(quality: int) -> io.BytesIO:
        file = io.BytesIO()
        Image.fromarray(astronaut).save(file, name, quality=quality, **options)
        return file

    assert len(encoded(found.quality).getvalue()) == found.bytes
    assert len(encoded(found.quality + 1).getvalue()) > 2500
    np.testing.assert_array_equal(np.array(Image.open(encoded(found.quality)).convert("RGB")), found.pixels)


def test_a_rival_that_cannot_be_so_small_says_so(views: Views, photo: Path, astronaut: Pixels) -> None:
    found = rival("JPEG", astronaut, 20)
    assert (found.fits, found.quality) == (False, 0)
    assert found.bytes > 20
    pictures = compressed(views, photo, 1)[-1][1]  # some hundred bytes: less than the tables of a JPEG
    assert re.search(r"alt=\"JPEG: \d+ bytes, [\d.]+ dB, quality 0: it makes no smaller file\"", pictures)


@pytest.mark.parametrize("answer", range(-1, 8))
def test_the_largest_number_is_found(answer: int) -> None:
    assert largest(lambda number: number <= answer, 0, 7) == (None if answer < 0 else answer)


def test_rivals_have_no_more_bytes_than_the_stream(views: Views, photo: Path) -> None:
    _, pictures, file = compressed(views, photo, 95)[-1]
    sizes = {title: int(size) for title, size in re.findall(r'alt="(JPEG|WebP): (\d+) bytes', pictures)}
    assert set(sizes) == {"JPEG", "WebP"}
    assert max(sizes.values()) <= len(saved(file))


def test_bad_uploads_are_one_sentence(views: Views, photo: Path, tmp_path: Path) -> None:
    def upload(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    def compress(path: str | None) -> str:
        return mistake(views.compress(path, "codec", 50, False))

    assert compress(None) == "Choose a photograph first."
    assert compress(upload("text.png", b"no image")).startswith("'text.png' is not a PNG")
    assert "at most 50000 are accepted" in compress(upload("large.png", bytes(50_001)))
    assert "upload it again" in compress(str(tmp_path / "gone.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    assert "16" in compress(str(tmp_path / "small.png"))
    Image.new("RGB", (41, 50)).save(tmp_path / "wide.png")
    assert "41x50 = 2050 pixels; at most 2000" in compress(str(tmp_path / "wide.png"))

    assert mistake(views.decode(None)) == "Choose a .pscx file first."
    assert "the file is empty" in mistake(views.decode(upload("empty.pscx", b""))).lower()
    assert "at most 50000 are accepted" in mistake(views.decode(upload("large.pscx", bytes(50_001))))
    assert "not a pscx stream" in mistake(views.decode(str(photo))).lower()
    whole = saved(compressed(views, photo)[-1][2])
    mistake(views.decode(upload("cut.pscx", whole[:-9])))
    damaged = bytearray(whole)
    damaged[-5] ^= 255
    mistake(views.decode(upload("damaged.pscx", bytes(damaged))))


@pytest.mark.parametrize(
    ("name", "quality", "perception", "part"),
    [
        ("none", 50, 0.0, "choose a recipe from codec"),
        (["codec"], 50, 0.0, "choose a recipe from codec"),
        ("codec", 0, 0.0, "quality must lie in 1..100, got 0"),
        ("codec", "50", 0.0, "quality must lie in 1..100, got '50'"),
        ("codec", math.nan, 0.0, "quality must lie in 1..100, got nan"),
        ("codec", None, 0.0, "quality must lie in 1..100, got none"),
        ("codec", 50, 1.5, "perception must lie in 0..1, got 1.5"),
        ("codec", 50, "x" * 999, "perception must lie in 0..1, got 'xx"),
    ],
)
def test_a_click_that_no_slider_sends_is_one_sentence(
    views: Views, photo: Path, tmp_path: Path, name: Any, quality: Any, perception: Any, part: str
) -> None:
    said = mistake(views.compress(str(photo), name, quality, False, True, perception))
    assert part in said.lower()
    assert len(said) < 200
    if "perception" in part:
        assert part in mistake(views.decode(str(photo), True, perception)).lower()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_of_no_file_is_one_sentence(views: Views, tmp_path: Path, path: str) -> None:
    for one in (path, str(tmp_path)):
        for said in (mistake(views.compress(one, "codec", 50, False)), mistake(views.decode(one))):
            assert said == "The file is no longer here: upload it again."


def test_a_stream_of_a_larger_image_is_not_decoded(photo: Path, tmp_path: Path, config: str) -> None:
    (tmp_path / "a.pscx").write_bytes(load_codec(config).compress(np.array(Image.open(photo))))
    views = views_of(config, None, Bounds(pixels=1000))
    assert "40x32 = 1280 pixels; at most 1000" in mistake(views.decode(str(tmp_path / "a.pscx")))
    assert len(stream(tmp_path / "a.pscx", Bounds(pixels=1280))) > 0


def test_text_of_an_upload_is_escaped(views: Views, photo: Path, tmp_path: Path) -> None:
    photo.rename(tmp_path / '"><b>.png')
    _, _, file = compressed(views, tmp_path / '"><b>.png')[-1]
    assert "<b>" not in file
    (tmp_path / "<b>.png").write_bytes(b"no image")
    status = list(views.compress(str(tmp_path / "<b>.png"), "codec", 50, False))[-1][0]
    assert "&lt;b&gt;.png" in status
    assert "<b>" not in status


def test_a_photograph_is_scaled_down_when_that_is_asked_for(views: Views, tmp_path: Path, cat: Pixels) -> None:
    Image.fromarray(cat).save(tmp_path / "cat.png")
    with pytest.raises(ImageError, match="160x112"):
        photograph(tmp_path / "cat.png", BOUNDS)
    small = photograph(tmp_path / "cat.png", BOUNDS, shrink=True)
    assert small.shape == (37, 53, 3)
    pictures = seen(compressed(views, tmp_path / "cat.png", shrink=True)[-1][1])
    assert {picture.shape for picture in pictures.values()} == {small.shape}


@pytest.mark.parametrize("size", [(16, 4000), (4000, 16), (100, 100), (44, 45)])
def test_scaling_down_keeps_the_bounds(size: tuple[int, int]) -> None:
    height, width = scaled_down(np.zeros((*size, 3), np.uint8), 2000).shape[:2]
    assert height * width <= 2000
    assert min(height, width) >= 16
    assert (height > width) == (size[0] > size[1])
    if size == (44, 45):  # is small enough
        assert (height, width) == size


def test_bounds_are_checked() -> None:
    with pytest.raises(PscxError, match="at least 1 byte, got 0"):
        Bounds(bytes=0)
    with pytest.raises(PscxError, match="at least 256 pixels, got 255"):
        Bounds(pixels=255)


def test_recipes_that_ship_and_the_config_s_codec_are_offered(config: str, tmp_path: Path) -> None:
    assert list(views_of(None, None, BOUNDS).codecs) == ["default", "fast", "best", "perceptual"]
    assert list(views_of(config, None, BOUNDS).codecs) == ["codec", "default", "fast", "best", "perceptual"]
    named = views_of(write_codec(tmp_path, name="fast.yaml"), None, BOUNDS).codecs
    assert list(named) == ["fast (own)", "default", "fast", "best", "perceptual"]
    assert psc_of(named["fast (own)"]()).samples == 2
    coarse = write_codec(tmp_path, CODEC.replace("{name: uniform, step: 0.25}", "float8"), "float8.yaml")
    with pytest.raises(ConfigError, match=r"float8\.yaml"):
        views_of(coarse, None, BOUNDS)


def test_what_is_told_comes_at_once_and_errors_are_raised_here() -> None:
    seen_first = Event()

    def work(tell: Callable[[int], None]) -> None:
        tell(1)
        assert seen_first.wait(10)
        tell(2)
        raise ValueError("three")

    items = told(work)
    assert next(items) == 1
    seen_first.set()
    assert next(items) == 2
    with pytest.raises(ValueError, match="three"):
        next(items)


def test_work_ends_when_nobody_listens() -> None:
    count = 0

    def work(tell: Callable[[int], None]) -> None:
        nonlocal count
        while True:
            count += 1
            tell(count)

    items = told(work)
    next(items)
    items.close()  # type: ignore[attr-defined]  # a generator
    at_the_end = count
    Event().wait(0.05)
    assert count == at_the_end


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSCX_A", "before")
    monkeypatch.delenv("PSCX_B", raising=False)
    with environment({"PSCX_A": "inside", "PSCX_B": "inside"}):
        assert (os.environ["PSCX_A"], os.environ["PSCX_B"]) == ("inside", "inside")
    assert os.environ["PSCX_A"] == "before"
    assert "PSCX_B" not in os.environ
    with offline():
        assert {name: os.environ[name] for name in OFFLINE} == OFFLINE


@pytest.fixture
def quick_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pscx.demo.feed.BEAT", 0.01)


def without_end(evaluations: list[int]) -> Callable[[Callable[[int], None]], None]:
    """Work that tells nothing, as a long restoration."""

    def work(tell: Callable[[int], None]) -> None:
        while True:
            check_cancel()
            evaluations.append(1)
            sleep(0.001)

    return work


@pytest.mark.usefixtures("quick_beat")
def test_work_that_tells_nothing_can_be_left_and_ends() -> None:
    """Who serves the page sees between two beats that a visitor has left; the next evaluation is not made."""
    evaluations: list[int] = []
    steps = told(without_end(evaluations))
    assert next(steps) is None
    assert next(steps) is None
    steps.close()  # type: ignore[attr-defined]  # a generator; waits for the work
    count = len(evaluations)
    assert count > 0
    sleep(0.02)
    assert len(evaluations) == count


@pytest.mark.usefixtures("quick_beat")
def test_all_work_can_be_ended() -> None:
    steps = [told(without_end([])) for _ in range(2)]
    assert [next(step) for step in steps] == [None, None]
    end_all()
    for step in steps:
        with pytest.raises(CancelledError):
            list(step)


@pytest.mark.usefixtures("quick_beat")
def test_a_view_is_shown_again_while_nothing_happens(
    views: Views, photo: Path, tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cat.pscx"
    path.write_bytes(load_codec(config).compress(np.array(Image.open(photo))))
    expected = list(views.decode(str(path)))
    decode = Decompressor.decode

    def slow(*args: Any, **options: Any) -> Any:
        sleep(0.1)
        return decode(*args, **options)

    monkeypatch.setattr(Decompressor, "decode", slow)
    shown = list(views.decode(str(path)))
    assert list(dict.fromkeys(shown)) == list(dict.fromkeys(expected))
    assert shown.count(shown[0]) > 3


def test_an_uploaded_stream_may_take_little(views: Views, photo: Path, tmp_path: Path, config: str) -> None:
    path = tmp_path / "cat.pscx"
    codec = load_codec(config, restoration={"samples": 400})
    path.write_bytes(codec.compress(np.array(Image.open(photo))))
    assert "evaluations times pixels" in mistake(views.decode(str(path)))
    Decompressor().limits.check_work(codec.signal_codec.evaluations(1), 32, 40)  # what the command takes
    for recipe in ("default", "fast", "best", "perceptual"):
        views.decompressor.limits.check_work(load_codec(recipe).signal_codec.evaluations(1), 40, 50)
