"""Several images whose network calls are made together: what each comes to is what it comes to alone."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import active_count
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from PIL import Image
from tiny import EXACT, save_prior, write_codec
from torch import Tensor

import pscx
from pscx.api import Codec
from pscx.cli import commands
from pscx.cli.main import main
from pscx.errors import PscxError
from pscx.execution.batching import Task, clock, denoise, together
from pscx.format.container import SIDE_LIMIT
from pscx.priors import DDPM, Gaussian
from pscx.rate_control.base import TargetError

TIMES = {"encode_seconds", "decode_seconds", "network_share"}


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A small codec that is exact."""
    return write_codec(tmp_path, EXACT.format(path=save_prior(tmp_path / "prior", 0)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples went through the network in each call."""
    sizes: list[int] = []
    plain = DDPM.denoise

    def counted(self: DDPM, x: Tensor, sigma: float) -> Tensor:
        sizes.append(len(x))
        return plain(self, x, sigma)

    monkeypatch.setattr(DDPM, "denoise", counted)
    return sizes


def crops(image: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    """Squares of 32 pixels, but every third of 16."""
    return [image[8 * i : 8 * i + (32 if i % 3 else 16), : 32 if i % 3 else 16] for i in range(count)]


@pytest.mark.parametrize("options", [{}, {"max_bytes": 600}])
def test_streams_and_pixels_do_not_depend_on_the_batch(
    options: dict[str, Any], config: str, cat: NDArray[np.uint8], calls: list[int]
) -> None:
    """With images of two sizes, and with a target, where each image is encoded as often as it needs."""
    codec, images = pscx.load_codec(config), crops(cat, 5)
    alone = [codec.compress(image, **options) for image in images]
    counts = []
    for batch in (1, 3, 8):
        calls.clear()
        assert codec.compress_many(images, batch=batch, **options) == alone
        counts.append((len(calls), sum(calls)))
    assert counts[0][0] > counts[1][0] > counts[2][0]
    assert len({samples for _, samples in counts}) == 1  # the same work in fewer calls
    shown = codec.decompress_many(alone, batch=3)
    for data, pixels in zip(alone, shown, strict=True):
        assert not isinstance(pixels, PscxError)
        assert np.array_equal(codec.decompress(data), pixels)


def test_accounts_are_those_of_each_image(config: str, cat: NDArray[np.uint8]) -> None:
    codec, images = pscx.load_codec(config), crops(cat, 4)
    alone = [codec.simulate(image) for image in images]
    started = clock()
    several = codec.simulate_many(images, batch=4)
    elapsed = clock() - started
    for one, other in zip(alone, several, strict=True):
        assert isinstance(other, pscx.Simulation)
        assert other.account.evaluations == one.account.evaluations == 2 * 2 * 2
        assert other.account.segment_bits == one.account.segment_bits
        assert 0 < other.account.network_seconds < other.encode_seconds < other.decode_seconds
    assert sum(done.decode_seconds for done in several if isinstance(done, pscx.Simulation)) <= elapsed


def test_a_bad_image_or_stream_has_its_error_in_its_place(config: str, cat: NDArray[np.uint8]) -> None:
    codec, images = pscx.load_codec(config), crops(cat, 3)
    streams = codec.compress_many([images[0], np.zeros((16, SIDE_LIMIT + 1, 3), np.uint8), images[2]], batch=3)
    assert isinstance(streams[1], pscx.ImageError)
    assert [streams[0], streams[2]] == [codec.compress(images[0]), codec.compress(images[2])]
    (small,) = codec.compress_many([images[0][:10]])
    assert isinstance(small, pscx.ImageError)
    cut = codec.compress(images[1])[:-4]
    pictures = codec.decompress_many([codec.compress(images[0]), cut, b"none of ours"], batch=3)
    assert [isinstance(picture, pscx.StreamError) for picture in pictures] == [False, True, True]
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        codec.compress_many(images, batch=0)
    with pytest.raises(TypeError, match="qualty"):
        codec.compress_many(images, qualty=3)


def test_a_codec_that_is_not_exact_has_its_images_one_at_a_time(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    codec = pscx.load_codec(write_codec(tmp_path))
    images, running = crops(cat, 3), active_count()
    seen = []
    many = codec.compress_many(images, batch=3, progress=lambda done, total: seen.append((done, active_count())))
    assert seen == [(done, running) for _ in images for done in (1, 2, 3)]
    assert many == [codec.compress(image) for image in images]


class Same(Gaussian):
    """A prior that says that it is exact; it counts its calls, and fails on what is not a number."""

    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, int]] = []

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.calls.append((sigma, len(x)))
        if x.isnan().any():
            raise pscx.PscxError("not a number")
        return super().denoise(x, sigma)


def task(prior: Same, levels: list[float], value: float = 0.0, side: int = 4) -> Task[float]:
    def do() -> float:
        return float(sum(denoise(prior, torch.full((1, 3, side, side), value), sigma).sum() for sigma in levels))

    return Task(do)


def test_the_image_that_is_behind_catches_up() -> None:
    prior = Same()
    assert len(list(together([task(prior, [9, 5, 1]), task(prior, [5, 1])], 2))) == 2
    assert prior.calls == [(9, 1), (5, 2), (1, 2)]


def test_other_sizes_other_priors_and_places_that_come_free() -> None:
    one, other = Same(), Same()
    tasks = [task(one, [5]), task(one, [5], side=8), task(other, [5]), task(one, [5]), task(one, [5])]
    assert len(list(together(tasks, 3))) == 5
    assert one.calls == [(5, 1), (5, 1), (5, 2)]
    assert other.calls == [(5, 1)]


def test_an_error_in_a_shared_call_is_that_of_its_image() -> None:
    prior = Same()
    results = list(together([task(prior, [5, 1], 0.5), task(prior, [5, 1], float("nan")), task(prior, [5], 0.5)], 3))
    assert [isinstance(result, pscx.PscxError) for result in results] == [False, True, False]
    assert results[0] == next(together([task(Same(), [5, 1], 0.5)], 1))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["image", "network", "caller"])
def test_what_ends_the_program_ends_all_threads(where: str, stop: type[BaseException]) -> None:
    prior, before = Same(), active_count()
    plain, ended = prior.denoise, []

    def failing(x: Tensor, sigma: float) -> Tensor:
        if sigma == 1 and where == "network":
            raise stop
        return plain(x, sigma)

    def watched(do: Callable[[], float], fails: bool = False) -> Callable[[], float]:
        def work() -> float:
            try:
                if fails and where == "image":
                    denoise(prior, torch.zeros(1, 3, 4, 4), 5)
                    raise stop
                return do()
            finally:
                ended.append(fails)

        return work

    prior.denoise = failing  # type: ignore[method-assign]  # of this object alone
    tasks = [Task(watched(task(prior, [5, 1]).do)), Task(watched(task(prior, [5, 1]).do, True)), task(prior, [7])]
    tasks += [Task(watched(task(prior, [9, 1]).do))]

    def consume(results: Iterator[float | Exception]) -> None:
        for _ in results:
            if where == "caller":
                raise stop

    results = together(tasks, 3)
    with pytest.raises(stop):
        consume(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert active_count() == before
    assert len(ended) == 3 if where == "caller" else len(ended) >= 2


@pytest.mark.parametrize("inference", [False, True])
def test_threads_have_the_callers_inference_mode(inference: bool) -> None:
    prior = Same()

    def do() -> bool:
        x0 = denoise(prior, torch.zeros(1, 3, 4, 4), 5)
        x0 += 1  # not allowed on what was made under inference mode, outside of it
        return torch.is_inference_mode_enabled()

    with torch.inference_mode(inference):
        assert list(together([Task(do), Task(do)], 2)) == [inference, inference]


def test_files_in_batches(
    config: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[int]
) -> None:
    (image_folder / "aa.png").write_bytes(b"\x89PNG and no more")
    Image.open(image_folder / "a.png").save(image_folder / "c.png")
    outputs = []
    for batch in ("1", "3"):
        streams, back = tmp_path / f"streams{batch}", tmp_path / f"back{batch}"
        (tmp_path / "both").mkdir(exist_ok=True)
        names = [str(image_folder / name) for name in ("a.png", "aa.png", "b.webp", "c.png")]
        assert main(["compress", *names, "-o", str(streams), "--config", config, "--batch", batch]) == 2
        prior = ["--prior", str(tmp_path / "prior")]
        (streams / "bb.pscx").write_bytes((streams / "b.pscx").read_bytes()[:-5])
        assert main(["decompress", str(streams), "-o", str(back), "--batch", batch, *prior]) == 2
        captured = capsys.readouterr()
        told = (captured.out + captured.err).replace(f"streams{batch}", "").replace(f"back{batch}", "")
        made = {path.name: path.read_bytes() for folder in (streams, back) for path in folder.iterdir()}
        outputs.append((told, made, sum(calls), len(calls)))
        calls.clear()
    assert len(outputs[0][1]) == 4 + 3
    assert outputs[0][:3] == outputs[1][:3]
    assert outputs[0][3] > outputs[1][3]


@pytest.mark.parametrize(
    ("batch", "small", "shared"),
    [("none", 1 << 14, True), ("none", 1024, True), ("none", 1023, False), ("1", 1 << 14, False), ("2", 1023, True)],
)
def test_small_files_share_calls_unless_told_otherwise(
    batch: str,
    small: int,
    shared: bool,
    config: str,
    image_folder: Path,
    tmp_path: Path,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two images of 32x32, two samples each: four samples a call where they share it."""
    monkeypatch.setattr(commands, "SMALL", small)
    Image.open(image_folder / "a.png").save(image_folder / "c.png")
    names, options = [str(image_folder / name) for name in ("a.png", "c.png")], ["--batch", batch]
    if batch == "none":
        options = []
    assert main(["compress", *names, "-o", str(tmp_path / "out"), "--config", config, *options]) == 0
    encoded = calls.copy()
    prior = ["--prior", str(tmp_path / "prior")]
    assert main(["decompress", str(tmp_path / "out"), "-o", str(tmp_path / "back"), *prior, *options]) == 0
    assert encoded == ([4] * 4 if shared else [2] * 8)
    assert calls[len(encoded) :] == ([4] * 6 if shared else [2] * 12)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_evaluations_in_batches(
    command: str, config: str, image_folder: Path, tmp_path: Path, calls: list[int]
) -> None:
    (image_folder / "aa.png").write_bytes(b"\x89PNG and no more")
    Image.open(image_folder / "a.png").save(image_folder / "c.png")
    found = []
    for size in (1, 3, 8):
        root = tmp_path / str(size)
        options = ["--data.root", str(image_folder), "--trainer.default_root_dir", str(root)]
        calls.clear()
        assert main([command, "--config", config, *options, "--data.batch_size", str(size)]) == 2  # for aa.png
        kinds = ("streams", "reconstructions")
        files = {path.name: path.read_bytes() for kind in kinds for path in (root / kind).iterdir()}
        found.append((files, table(root) if command == "test" else None, sum(calls), len(calls)))
    assert len(found[0][0]) == 2 * 4
    assert found[0][:3] == found[1][:3] == found[2][:3]
    assert found[0][3] > found[2][3]


def test_a_batch_that_was_stopped_goes_on(
    config: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image is interrupted when another of its batch is done; one that misses its target sinks no other."""
    root = tmp_path / "run"
    call = ["test", "--config", config, "--data.root", str(image_folder), "--data.batch_size", "3"]
    call += ["--trainer.default_root_dir", str(root)]
    plain, error = Codec.simulate, [KeyboardInterrupt(), TargetError("too few"), None]

    def simulate(self: Codec, image: Any, **options: Any) -> Any:
        done = plain(self, image, **options)
        if image.shape == (24, 40, 3) and error[0] is not None:
            raise error[0]
        return done

    monkeypatch.setattr(Codec, "simulate", simulate)
    assert main(call) == 130
    kept = {path.stem for path in (root / "records").iterdir()}
    assert "a" in kept
    assert "sub__a" not in kept
    error.pop(0)
    assert main(call) == 2
    assert "'sub__a': too few" in capsys.readouterr().err
    assert [row["name"] for row in table(root)] == ["a", "b"]
    error.pop(0)
    assert main(call) == 0
    assert [row["name"] for row in table(root)] == ["a", "b", "sub__a"]


def table(root: Path) -> list[dict[str, str]]:
    with (root / "images.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("room", "most"), [(None, 4), (9, 3), (7, 2), (2, 1)])
def test_no_more_are_under_way_than_there_is_room_for(room: int | None, most: int, calls: list[int]) -> None:
    """Each of five needs 3, and one 10, more than there is: it waits until it is alone, and is done all the same."""
    under_way: list[int] = []
    now = [0]
    prior = DDPM(exact=True)
    x = torch.zeros(1, 3, 16, 16, dtype=torch.float64)

    def do(needs: int) -> int:
        now[0] += needs
        denoise(prior, x, 1.0)
        under_way.append(now[0])
        now[0] -= needs
        return needs

    wanted = [3, 3, 10, 3, 3, 3]
    done = together((Task(partial(do, needs), needs=needs) for needs in wanted), 4, room)
    assert list(done) == wanted
    assert max(calls) == most
    if room is not None:
        assert max(found for found in under_way if found != 10) <= max(room, 3)
        assert 10 in under_way
