"""Streams that were cut or damaged: what arrived whole is shown, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import CODEC, psc_of, write_codec

from pscx import Codec, PscxError, StreamError, load_codec, read_image
from pscx.cli.main import main
from pscx.codecs.pixels import signal_of
from pscx.codecs.psc.loop import Known
from pscx.coders import CODERS
from pscx.format.container import pack, unpack

Pixels = NDArray[np.uint8]
ITERATIONS = 5


@pytest.fixture
def name(tmp_path: Path) -> str:
    text = CODEC.replace("per_iteration: 2.5", "per_iteration: 4, growth: 1.0").replace("step: 0.25", "step: 0.0625")
    return write_codec(tmp_path, text.replace("iterations: 3", f"iterations: {ITERATIONS}"))


@pytest.fixture
def codec(name: str) -> Codec:
    return load_codec(name)


@pytest.fixture
def photos(astronaut: Pixels, cat: Pixels, rocket: Pixels) -> list[Pixels]:
    return [photo[40:60, 50:68] for photo in (astronaut, cat, rocket)]


def error(one: Pixels, other: Pixels) -> float:
    return float(np.square(one.astype(float) - other).mean())


def shown(codec: Codec, data: bytes) -> tuple[int, Pixels | None, str]:
    """Segments and image of what is whole of a stream, and why no more; no segments where it is refused."""
    try:
        done = codec.decode(data, partial=True)
    except StreamError as refusal:
        return 0, None, str(refusal)
    return done.segments, done.images[0], done.cut


def test_every_cut_decodes_or_is_refused_and_more_bytes_are_more_segments(codec: Codec, photos: list[Pixels]) -> None:
    """Segments never fall with the bytes, each number of them occurs, and the mean error falls with their number."""
    errors: dict[int, list[float]] = {}
    for photo in photos:
        data = codec.compress(photo)
        header = len(data) - len(unpack(data)[1])
        found = [shown(codec, data[:size]) for size in range(len(data) + 1)]
        counts = [segments for segments, _, _ in found]
        assert counts == sorted(counts)
        assert set(counts) == set(range(ITERATIONS + 1))
        assert set(counts[:header]) == {0}
        for segments, (image, cut) in {segments: (image, cut) for segments, image, cut in found}.items():
            assert cut == "" if segments == ITERATIONS else f"ends in segment {segments + 1} of {ITERATIONS}" in cut
            if image is not None:
                assert image.shape == photo.shape
                errors.setdefault(segments, []).append(error(image, photo))
        whole = found[-1][1]
        assert whole is not None
        assert np.array_equal(whole, codec.decompress(data))
    means = [float(np.mean(errors[segments])) for segments in range(1, ITERATIONS + 1)]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] / 2


def held(outcome: Known) -> list[torch.Tensor]:
    known = outcome.measurements
    return [known.values, known.variances, known.gains]


@pytest.mark.parametrize("coder", sorted(CODERS.classes))
def test_a_cut_stream_holds_what_an_encoder_of_fewer_iterations_measures(
    coder: str, name: str, photos: list[Pixels]
) -> None:
    codec = load_codec(name, coder=coder)
    signal = signal_of(codec.signal_codec, photos[0])
    payload, whole = codec.signal_codec.encode(signal)
    bits = np.cumsum(np.array(whole.account.segment_bits) + 4)
    seen = set()
    for size in (bits // 8 + 3).astype(int).tolist():
        outcome = psc_of(codec).decode(payload[:size], tuple(signal.shape), partial=True)
        _, short = psc_of(load_codec(name, coder=coder, iterations=outcome.segments)).encode(signal)
        assert len(outcome.account.segment_symbols) == outcome.segments
        for mine, theirs in zip(held(outcome), held(short), strict=True):
            assert torch.equal(mine, theirs)
        seen.add(outcome.segments)
    assert len(seen) >= 4
    with pytest.raises(StreamError, match=r"^the payload ends in segment 1 of 5$"):
        codec.signal_codec.decode(payload[:1], tuple(signal.shape))


@pytest.mark.parametrize("coder", ["posterior", "raw"])
def test_decoding_stops_where_the_damage_is(coder: str, name: str, photos: list[Pixels]) -> None:
    """A byte changed in the middle: the segments before it are those of the whole stream; not partial, it is refused.

    A seal of three bits lets one damaged segment of eight pass, so of many places most must stop in time.
    """
    codec = load_codec(name, coder=coder)
    data = codec.compress(photos[1])
    start = len(data) - len(unpack(data)[1])
    late = []
    for place in range(start, len(data), 3):
        before, _, _ = shown(codec, data[:place])
        damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        with pytest.raises(StreamError, match="damaged or cut short"):
            codec.decompress(damaged)
        segments, _, cut = shown(codec, damaged)
        assert segments >= before
        assert segments == ITERATIONS or "does not decode" in cut or "symbol" in cut or "ends in segment" in cut
        late.append(segments > before)
    assert np.mean(late) < 0.3


def test_without_partial_nothing_is_shown(codec: Codec, photos: list[Pixels]) -> None:
    data = codec.compress(photos[0])
    for size in range(len(data)):
        with pytest.raises(StreamError):
            codec.decompress(data[:size])
    header, payload = unpack(data)
    with pytest.raises(StreamError, match=r"^the payload ends in segment [2-5] of 5$"):
        codec.decompress(pack(header, payload[:-4]))
    assert np.array_equal(codec.decompress(data, partial=True), codec.decompress(data))
    assert len(codec.decompress_samples(data[:-3], 2, partial=True)) == 2


def test_a_header_must_be_whole_and_valid(codec: Codec, photos: list[Pixels]) -> None:
    data = codec.compress(photos[0])
    header = len(data) - len(unpack(data)[1])
    with pytest.raises(StreamError, match=f"cut short: {header - 1} bytes do not hold its header"):
        codec.decompress(data[: header - 1], partial=True)
    with pytest.raises(StreamError, match="there is nothing to show, as no segment is whole: the payload ends in seg"):
        codec.decompress(data[:header], partial=True)
    with pytest.raises(StreamError, match="has version 15"):
        codec.decompress(data[:3] + b"\xff" + data[4:], partial=True)
    with pytest.raises(StreamError, match="damaged header: its checksum does not match"):
        codec.decompress(data[:12] + bytes([data[12] ^ 1]) + data[13:], partial=True)


@pytest.fixture
def stream(codec: Codec, photos: list[Pixels], tmp_path: Path) -> Path:
    path = tmp_path / "photo.pscx"
    path.write_bytes(codec.compress(photos[0]))
    return path


def test_the_command_says_how_much_it_shows(stream: Path, codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    data = stream.read_bytes()
    cut = stream.with_name("cut.pscx")
    cut.write_bytes(data[:-4])
    done = codec.decode(data[:-4], partial=True)
    assert 0 < done.segments < ITERATIONS
    line = f"pscx: '{cut}': {done.segments} of 5 segments used: the payload ends in segment {done.segments + 1} of 5\n"
    assert main(["decompress", str(cut), "--partial"]) == 0
    assert capsys.readouterr() == (f"{cut.with_suffix('.decoded.png')}\n", line)
    assert np.array_equal(read_image(cut.with_suffix(".decoded.png")), done.images[0])
    assert main(["decompress", str(stream), "--max-bytes", str(len(data) - 4)]) == 0
    assert capsys.readouterr().err == line.replace("cut.pscx", "photo.pscx")
    assert stream.with_suffix(".decoded.png").read_bytes() == cut.with_suffix(".decoded.png").read_bytes()


def test_the_command_is_silent_where_all_is_there(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--partial"], ["--max-bytes", "100000"]):
        assert main(["decompress", str(stream), "--force", *options]) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "is damaged or cut short"),
        (["--max-bytes", "2"], "is not a pscx stream"),
        (["--max-bytes", "8"], "is cut short: 8 bytes cannot hold a header"),
        (["--max-bytes", "30"], "is cut short: 30 bytes do not hold its header"),
        (["--max-bytes", "0"], "must be an integer of at least 1, got '0'"),
        (["--max-bytes", "few"], "must be an integer of at least 1, got 'few'"),
    ],
)
def test_what_is_too_short_is_one_sentence(
    options: list[str], part: str, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream.write_bytes(stream.read_bytes()[:-4])
    assert main(["decompress", str(stream), *options]) == 2
    message = capsys.readouterr().err
    assert part in message
    assert message.count("\n") == 1
    assert not stream.with_suffix(".decoded.png").exists()


def test_errors_of_streams_are_pscx_errors() -> None:
    assert issubclass(StreamError, PscxError)
