"""Targets: the rate or the PSNR that was asked for, over grids of targets, and what the search does on the way."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from math import ceil, log, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load
from numpy.typing import NDArray
from PIL import Image
from tiny import CODEC, write_codec

from pscx import Codec, ConfigError, Decompressor, PscxError, Simulation, load_codec
from pscx.cli.main import main
from pscx.images import to_pixels
from pscx.metrics import psnr
from pscx.priors import Gaussian
from pscx.rate_control import BPP, PSNR, TARGETS, MaxBytes, Quality, Step, Target, TargetError
from pscx.rate_control.ladder import Ladder
from pscx.rate_control.search import Bracket, Window, search

Pixels = NDArray[np.uint8]
FAST = CODEC.replace("samples: 2}", "samples: 1}").replace("per_iteration: 2.5", "per_iteration: 6")
FLAGS = {"--quality": "50", "--bpp": "1", "--psnr": "22", "--max-bytes": "600", "--step": "0.5"}


def target_of(name: str, value: float) -> Target:
    """Each kind takes one number."""
    kind: Any = TARGETS.get(name)
    target = kind(value)
    assert isinstance(target, Target)
    return target


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_codec(tmp_path_factory.mktemp("config"), FAST)


@pytest.fixture(scope="module")
def codec(config: str) -> Codec:
    return load_codec(config)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """An image of the prior, 48x48."""
    image = Gaussian().draw(48, 48, torch.Generator().manual_seed(0))
    return to_pixels(image)


@pytest.fixture(scope="module")
def speck() -> Pixels:
    """So few pixels that bytes and PSNR jump between neighbouring parameters."""
    return load("astronaut")[20:44, 30:60]


# The numbers a stream can carry


@pytest.mark.parametrize(("coarsest", "finest"), [(8.0, 0.01), (0.01, 8.0), (1.0, 1.0)])
def test_a_ladder_is_every_bfloat16_number_in_between(coarsest: float, finest: float) -> None:
    ladder = Ladder(coarsest, finest)
    found = [ladder[position] for position in range(len(ladder))]
    assert torch.tensor(found, dtype=torch.float64).bfloat16().double().tolist() == found
    bits = torch.tensor(found).bfloat16().view(torch.int16).diff().abs()
    assert (bits == 1).all()
    assert found[0] == pytest.approx(coarsest, rel=2**-7)
    assert found[-1] == pytest.approx(finest, rel=2**-7)
    assert [ladder.position(parameter) for parameter in found] == list(range(len(ladder)))
    beyond = 1.5 if coarsest >= finest else 1 / 1.5
    assert ladder.position(coarsest * beyond) == 0
    assert ladder.position(finest / beyond) == len(ladder) - 1
    ends = sorted((ladder.position(1e300), ladder.position(1e-300)))
    assert ends == ([0, len(ladder) - 1] if coarsest != finest else [0, 0])
    with pytest.raises(IndexError, match="position must lie in"):
        ladder[len(ladder)]


# The search, on functions whose answer is known


def searched(function: Callable[[int], float], window: Window, slope: float, start: int, size: int = 1000) -> list[int]:
    """The positions that are visited, the last the one that was found; empty where none was."""
    visited: list[int] = []

    def value(position: int) -> float:
        visited.append(position)
        return function(position)

    found = search(value, window, Bracket(size, slope), start)
    assert found is None or (found == visited[-1] and window.low <= function(found) <= window.high)
    return visited if found is not None else []


@pytest.mark.parametrize("aim", [0.5, 3.0, 7.7])
@pytest.mark.parametrize("start", [0, 444, 999])
def test_a_line_is_met_at_once(aim: float, start: int) -> None:
    """With the right slope: as many visits as moves of 256 positions need, and the start."""
    visited = searched(lambda x: x / 100, Window(aim - 0.03, aim, aim + 0.03), 0.01, start)
    assert 1 <= len(visited) <= 1 + max(1, ceil(abs(100 * aim - start) / 256))


@pytest.mark.parametrize("slope", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("aim", [2.0, 5.0, 9.0])
def test_a_curve_is_met_soon(aim: float, power: float, slope: float) -> None:
    visited = searched(lambda x: 10 * (x / 999) ** power, Window(aim - 0.1, aim, aim + 0.1), slope, 500)
    assert 1 <= len(visited) <= 12
    assert len(set(visited)) == len(visited)


def test_every_value_of_a_rough_function_is_found() -> None:
    """A function that rises by one with each position but for a saw-tooth: any window with a value is hit in time."""
    for aim in range(5, 995, 30):
        visited = searched(lambda x: x + 3 * (x % 4), Window(aim - 5, aim, aim + 5), 1.0, 500)
        assert 1 <= len(visited) <= 12


@pytest.mark.parametrize("flat", [0.03, 0.1])
def test_the_last_of_many_rows_that_cost_nearly_nothing_are_passed_soon(flat: float) -> None:
    """The last fifth of 16,000 rows is far flatter than was assumed."""
    slope, knee = 1 / 16000, 12800
    visited = searched(
        lambda x: slope * (min(x, knee) + flat * max(x - knee, 0)), Window(0.77, 0.78, 0.79), slope, 15999, 16000
    )
    assert 1 <= len(visited) <= 8


@pytest.mark.parametrize("height", [5.0, 300.0])
def test_a_jump_over_the_window_ends_the_search(height: float) -> None:
    positions: list[int] = []

    def jump(x: int) -> float:
        positions.append(x)
        return 0.01 * x + (0.0 if x < 613 else height)

    bracket = Bracket(1000, 0.01)
    assert search(jump, Window(8.0, 8.1, 8.2), bracket, 500) is None
    assert bracket.below < 613 <= bracket.above <= bracket.below + 2
    assert len(positions) <= 12


@pytest.mark.parametrize(("aim", "end"), [(-1.0, 0), (11.0, 999)])
def test_what_is_out_of_reach_is_known_at_the_end(aim: float, end: int) -> None:
    bracket = Bracket(1000, 0.01)
    assert search(lambda x: x / 100, Window(aim - 0.1, aim, aim + 0.1), bracket, 500) is None
    assert (bracket.below, bracket.above) == ((-1, 0) if end == 0 else (999, 1000))


# What was asked for


def smallest(codec: Codec, pixels: Pixels) -> int:
    """Bytes of about the smallest stream of an image, most of it the header."""
    return len(codec.compress(pixels, quality=1))


@pytest.mark.parametrize("share", [1.05, 1.2, 1.5, 2.6, 3.2])
def test_bits_per_pixel_are_never_above_and_close(share: float, codec: Codec, photo: Pixels) -> None:
    bpp = share * 8 * smallest(codec, photo) / photo[..., 0].size
    encoded = codec.encode(photo, target=BPP(bpp))
    rate = 8 * len(encoded.data) / photo[..., 0].size
    assert 0.98 * bpp <= rate <= bpp
    assert encoded.account.encodings <= 16


@pytest.mark.parametrize("share", [1.1, 1.4, 2.8])
def test_bytes_are_never_above_and_close(share: float, codec: Codec, photo: Pixels) -> None:
    limit = round(share * smallest(codec, photo))
    data = codec.encode(photo, target=MaxBytes(limit)).data
    assert 0.98 * limit <= len(data) <= limit


@pytest.mark.parametrize("wanted", [17.0, 20.0, 23.0, 26.0])
def test_the_decoder_shows_the_psnr(wanted: float, codec: Codec, photo: Pixels) -> None:
    done = codec.simulate(photo, target=PSNR(wanted))
    decoded = Decompressor().decompress(done.data)
    assert np.array_equal(decoded, done.pixels)
    assert psnr(photo, decoded) == pytest.approx(wanted, abs=0.1)
    assert done.account.encodings <= 16


class Octaves(list[float]):
    """A ladder with one step to the octave: from each to the next, sizes jump by far more than a search may be off."""

    def __init__(self, coarsest: float, finest: float) -> None:
        super().__init__(coarsest / 2**octave for octave in range(1 + int(log2(coarsest / finest))))

    def position(self, parameter: float) -> int:
        return min(range(len(self)), key=lambda place: abs(log(self[place] / parameter)))


@pytest.mark.parametrize("finer", [0.125, 0.0625])
def test_a_jump_between_two_steps_is_filled_by_the_number_of_rows(
    finer: float, codec: Codec, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last encodings are at the finer step, and the stream is as close as any other."""
    below, above = (len(codec.compress(photo, step=step)) for step in (2 * finer, finer))
    limit = (below + above) // 2
    assert below < 0.95 * limit < 1.05 * limit < above
    steps: list[float | None] = []
    monkeypatch.setattr("pscx.rate_control.search.Ladder", Octaves)
    done = codec.simulate(photo, target=MaxBytes(limit), on_trial=lambda _, step: steps.append(step))
    assert 0.98 * limit <= len(done.data) <= limit
    assert steps.count(finer) > 1
    assert steps[-1] == finer
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)


def test_few_pixels_get_the_largest_stream_below(codec: Codec, speck: Pixels) -> None:
    """Where no stream may be within 2 %, still none is above, and none is far below."""
    encodings = []
    for share in (1.04, 1.1, 1.2, 1.3):
        limit = round(share * smallest(codec, speck))
        encoded = codec.encode(speck, target=MaxBytes(limit))
        assert 0.93 * limit < len(encoded.data) <= limit
        assert Decompressor().decompress(encoded.data).shape == speck.shape
        encodings.append(encoded.account.encodings)
    assert max(encodings) <= 24


def test_the_same_target_gives_the_same_bytes(codec: Codec, photo: Pixels) -> None:
    first, second = (codec.encode(photo, target=BPP(3.3)) for _ in range(2))
    assert first.data == second.data
    assert first.account.encodings == second.account.encodings


def test_compress_takes_each_target_by_its_name(codec: Codec, photo: Pixels) -> None:
    small = photo[:32, :32]
    limit = round(1.2 * smallest(codec, small))
    pairs: list[tuple[dict[str, Any], Target]] = [
        ({"quality": 60}, Quality(60)),
        ({"bpp": limit / 128}, BPP(limit / 128)),
        ({"psnr": 18}, PSNR(18)),
        ({"max_bytes": limit}, MaxBytes(limit)),
        ({"step": 0.7}, Step(0.7)),
    ]
    assert {name for options, _ in pairs for name in options} == set(TARGETS.classes)
    for options, target in pairs:
        assert codec.compress(small, **options) == codec.encode(small, target=target).data
    with pytest.raises(PscxError, match=r"at most one of .* may be given, got bpp and step"):
        codec.compress(small, bpp=1, step=0.5)
    with pytest.raises(PscxError, match=r"target.value of quality must lie in 1..100, got 0"):
        codec.compress(small, quality=0)


def test_the_cost_is_that_of_all_encodings(codec: Codec, photo: Pixels) -> None:
    seen: list[tuple[int, float | None]] = []
    done = codec.simulate(photo, target=BPP(3.1), on_trial=lambda *trial: seen.append(trial))
    once = codec.simulate(photo)
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert done.account.encodings == len(seen) > 1
    assert done.account.evaluations == len(seen) * once.account.evaluations
    assert done.encode_seconds == done.account.seconds > done.decode_seconds
    assert once.account.encodings == 1
    assert sum(done.account.segment_bits) < 8 * len(done.data)


# One knob


def test_quality_is_linear_in_the_logarithm_of_the_step(codec: Codec, photo: Pixels) -> None:
    steps = [codec.info(codec.compress(photo[:16, :16], quality=q))["parameter"] for q in range(1, 101, 3)]
    expected = [log(8.0) + (q - 1) / 99 * log(0.01 / 8.0) for q in range(1, 101, 3)]
    assert np.log(steps) == pytest.approx(expected, abs=2**-8)
    assert all(fine < coarse for coarse, fine in itertools.pairwise(steps))
    assert codec.info(codec.compress(photo[:16, :16], quality=50))["parameter"] == pytest.approx(0.293, rel=0.01)


def test_bytes_and_psnr_rise_with_quality(codec: Codec, photo: Pixels) -> None:
    done = [codec.simulate(photo, target=Quality(q)) for q in (1, 20, 40, 70, 100)]
    for before, after in itertools.pairwise(done):
        assert len(before.data) < len(after.data)
        assert psnr(photo, before.pixels) < psnr(photo, after.pixels)
        assert after.account.encodings == 1


# Rows that are not measured


def test_rows_that_are_left_out_cost_little_and_decode(codec: Codec, photo: Pixels) -> None:
    from pscx.codecs.pixels import signal_of

    signal = signal_of(codec.signal_codec, photo)
    psc = codec.signal_codec.with_parameter(0.03125)
    whole, outcome = psc.encode(signal)
    first, second, third = outcome.account.segment_symbols
    assert min(first, second, third) > 40
    sizes = []
    for keep in (0, first // 2, first, first + second // 2, first + second + third):
        payload, kept = psc.encode(signal, keep=keep)
        assert (kept.account.segment_bits[0] == outcome.account.segment_bits[0]) == (keep >= first)
        decoded = psc.decode(payload, tuple(signal.shape))
        images = [psc.restore(one, tuple(signal.shape)) for one in (kept, decoded)]
        assert torch.equal(*images)
        sizes.append(len(payload))
    assert payload == whole
    assert sizes == sorted(set(sizes))
    assert sizes[0] < len(whole) / 5


# What cannot be


@pytest.mark.parametrize("name", ["quality", "bpp", "psnr", "max_bytes", "step"])
def test_a_quantizer_without_parameter_has_no_target(name: str, config: str) -> None:
    sentence = f"target {name} needs a codec with a parameter, such as psc with the quantizer trellis, uniform"
    with pytest.raises(ConfigError, match=sentence):
        load_codec(config, quantizer="float8", target={"name": name, "value": 50})
    target: dict[str, Any] = {name: 50}
    with pytest.raises(PscxError, match=sentence):
        load_codec(config, quantizer="float8").compress(np.zeros((16, 16, 3), np.uint8), **target)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"bpp": 0.2}, "0.2 bpp cannot be reached: this image needs at least "),
        ({"bpp": 20}, "20 bpp cannot be reached: this image needs at most "),
        ({"max_bytes": 9}, "9 bytes cannot be reached: this image needs at least "),
        ({"psnr": 1}, "1 dB cannot be reached: this image has at least "),
        ({"psnr": 70}, "70 dB cannot be reached: this image has at most "),
    ],
)
def test_what_is_out_of_reach_is_a_sentence(options: dict[str, Any], part: str, codec: Codec, photo: Pixels) -> None:
    with pytest.raises(TargetError) as caught:
        codec.compress(photo, **options)
    assert str(caught.value).startswith(part)
    number = float(str(caught.value).split()[-2])
    ends = [codec.simulate(photo, target=Quality(q)) for q in (1, 100)]

    def amount(done: Simulation) -> float:
        of = {"bpp": 8 * len(done.data) / 48**2, "psnr": psnr(photo, done.pixels)}
        return of.get(next(iter(options)), len(done.data))

    reached = [amount(done) for done in ends]
    assert number == pytest.approx(reached["most" in part], rel=0.02)


def test_a_limit_beyond_all_streams_gives_the_finest(codec: Codec, photo: Pixels) -> None:
    data = codec.compress(photo, max_bytes=10**6)
    assert codec.info(data)["parameter"] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("quality", 0.5, "must lie in 1..100, got 0.5"),
        ("quality", 101, "must lie in 1..100, got 101"),
        ("quality", float("nan"), "must lie in 1..100"),
        ("bpp", 0, "must be over 0 and finite, got 0"),
        ("bpp", float("inf"), "must be over 0 and finite, got inf"),
        ("psnr", -3, "must be over 0 and finite, got -3"),
        ("max_bytes", 0, "must be at least 1, got 0"),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: float, part: str) -> None:
    with pytest.raises(ValueError, match=f"target.value of {name} {part}"):
        target_of(name, value)


# The command line and configs


@pytest.fixture
def picture(photo: Pixels, tmp_path: Path) -> Path:
    path = tmp_path / "pictures" / "x.png"
    path.parent.mkdir()
    Image.fromarray(photo[:32, :32]).save(path)
    return path


@pytest.mark.parametrize("flags", list(itertools.combinations(FLAGS, 2)))
def test_two_targets_are_refused(
    flags: tuple[str, str], picture: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [text for flag in flags for text in (flag, FLAGS[flag])]
    assert main(["compress", str(picture), "--config", config, *options]) == 2
    message = capsys.readouterr().err
    assert "not allowed with argument" in message
    assert all(flag in message for flag in flags)
    assert not picture.with_suffix(".pscx").exists()


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_is_what_python_has(
    flag: str, picture: Path, config: str, codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"--bpp": "3.5", "--max-bytes": "400"}.get(flag, FLAGS[flag])
    assert main(["compress", str(picture), "--config", config, flag, value]) == 0
    says = capsys.readouterr().out
    data = picture.with_suffix(".pscx").read_bytes()
    name = flag[2:].replace("-", "_")
    number = int(value) if name == "max_bytes" else float(value)
    pixels = np.array(Image.open(picture))
    encoded = codec.encode(pixels, target=target_of(name, number))
    assert data == encoded.data
    searched = flag in ("--bpp", "--psnr", "--max-bytes")
    reached = psnr(pixels, Decompressor().decompress(data))
    came_to = f" bpp, {reached:.2f} dB" if flag == "--psnr" else " bpp"
    assert says.endswith(f"{came_to}, {encoded.account.encodings} encodings\n" if searched else f"{came_to}\n")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--bpp", "0.001"], "cannot be reached"),
        (["--bpp", "0"], "target.value must be over 0 and finite, got 0"),
        (["--bpp", "much"], "argument --bpp: must be a number, got 'much'"),
        (["--max-bytes", "1.5"], "argument --max-bytes: must be an integer of at least 1, got '1.5'"),
        (["--quality", "200"], "target.value must lie in 1..100, got 200"),
        (["--step", "1e4"], "quantizer.step must lie in (0, 1000)"),
        (["--bpp", "1", "--model.codec.quantizer", "float8"], "target bpp needs a codec with a parameter"),
    ],
)
def test_a_target_that_cannot_be_is_one_sentence(
    options: list[str], part: str, picture: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(picture), "--config", config, *options]) == 2
    message = capsys.readouterr().err
    assert part in message
    assert message.startswith("pscx: ")
    assert message.count("\n") == 1
    assert not picture.with_suffix(".pscx").exists()


def test_a_target_in_a_config_stands_until_another_is_given(photo: Pixels, tmp_path: Path) -> None:
    config = write_codec(tmp_path, f"{FAST}  target: {{name: quality, value: 30}}\n")
    own = load_codec(config)
    small = photo[:32, :32]
    assert own.compress(small) == own.compress(small, quality=30) != own.compress(small, quality=70)
    assert load_codec(config, step=0.5).compress(small) == own.compress(small, step=0.5)
    assert load_codec(config, target=None).target is None
    path = tmp_path / "x.png"
    Image.fromarray(small).save(path)
    assert main(["compress", str(path), "--config", config, "--quality", "70"]) == 0
    assert path.with_suffix(".pscx").read_bytes() == own.compress(small, quality=70)


@pytest.mark.parametrize("simulate", ["true", "false"])
def test_an_evaluation_at_one_rate(simulate: str, photo: Pixels, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, part in (("a", photo), ("b", photo[::-1, ::-1])):
        Image.fromarray(part).save(images / f"{name}.png")
    target = "{name: bpp, value: 3}"
    root = tmp_path / "run"
    options = ["--data.root", str(images), "--trainer.default_root_dir", str(root), "--model.simulate", simulate]
    assert main(["test", "--config", write_codec(tmp_path, FAST), "--model.target", target, *options]) == 0
    with (root / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(2.94 <= float(row["bpp"]) <= 3 for row in rows)
    assert all(int(row["encodings"]) > 1 for row in rows)
    assert all(int(row["evaluations"]) == int(row["encodings"]) * 2 * 2 * 2 for row in rows)


def test_an_image_that_cannot_be_as_asked_does_not_stop_the_others(
    photo: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, root = tmp_path / "images", tmp_path / "run"
    images.mkdir()
    Image.fromarray(photo[:24, :24]).save(images / "a.png")
    Image.new("RGB", (24, 24), "gray").save(images / "plain.png")
    options = ["--data.root", str(images), "--trainer.default_root_dir", str(root)]
    options += ["--config", write_codec(tmp_path, FAST), "--model.target", "{name: psnr, value: 16}"]
    for command in ("test", "predict"):
        assert main([command, *options]) == 2
        message = capsys.readouterr().err
        assert "one of the images could not be coded, all others are done: 'plain': 16 dB cannot be reached" in message
    with (root / "images.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a"]


def test_another_target_is_not_taken_for_the_same_run(picture: Path, tmp_path: Path) -> None:
    rates = []
    for value, root in ((20, tmp_path / "run"), (80, tmp_path / "run-1")):
        options = ["--data.root", str(picture.parent), "--trainer.default_root_dir", str(tmp_path / "run")]
        target = f"{{name: quality, value: {value}}}"
        assert main(["test", "--config", write_codec(tmp_path, FAST), "--model.target", target, *options]) == 0
        rates.append((root / "images.csv").read_text().splitlines()[1].split(",")[3])
    assert int(rates[0]) < int(rates[1])


def test_a_trial_is_shown(
    picture: Path, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    assert main(["compress", str(picture), "--config", config, "--step", "0.5"]) == 0
    assert "x.png, trial 1 at 0.5" in capsys.readouterr().err


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "target", "--json"]) == 0
    names = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert names == {"quality", "bpp", "psnr", "max_bytes", "step"}
