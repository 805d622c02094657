"""Which streams decode on every machine, what the others say of themselves, and what is said where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import psc_of, save_prior, write_codec

from pscx import Codec, StreamError, load_codec, stream_info
from pscx.cli.main import main
from pscx.coders import CODERS, Coder
from pscx.execution.arithmetic import arithmetic_of, short_arithmetic
from pscx.format.container import pack, unpack
from pscx.priors import Gaussian, Prior
from pscx.quantizers import QUANTIZERS, Quantizer
from pscx.restorations import RESTORATIONS, Restoration
from pscx.rows import ROWS, RowRule
from pscx.samplers import SAMPLERS, Sampler

Pixels = NDArray[np.uint8]
SMALL = {"samples": 2, "iterations": 2}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior"), 1)


@pytest.fixture
def photo(astronaut: Pixels) -> Pixels:
    return astronaut[20:44, 30:60]


def test_the_default_recipe_is_not_marked(prior: str, photo: Pixels) -> None:
    codec = load_codec("default", prior={"path": prior})
    assert codec.signal_codec.exact
    assert unpack(codec.compress(photo))[0].arithmetic == ""


@pytest.mark.parametrize(
    "change",
    [
        {"prior": {"exact": False}},
        {"rows": "local"},
        {"sampler": {"name": "nested", "steps": 1, "inner_steps": 1}},
        {"restoration_sampler": {"name": "nested", "steps": 1, "inner_steps": 1}},
        {"coder": {"degrees": 0}},
    ],
    ids=str,
)
def test_one_part_in_floats_marks_the_stream(change: dict[str, Any], prior: str, photo: Pixels) -> None:
    codec = load_codec("default", **{**SMALL, **change, "prior": {"path": prior, **change.get("prior", {})}})
    assert not codec.signal_codec.exact
    data = codec.compress(photo)
    here = f"torch {torch.__version__}, cpu {torch.backends.cpu.get_cpu_capability()}, float32, 1 thread"
    assert unpack(data)[0].arithmetic == here
    assert np.array_equal(codec.decompress(data), codec.simulate(photo).pixels)


@pytest.mark.parametrize(
    "change",
    [
        {"coder": "raw"},
        {"coder": "static"},
        {"coder": "adaptive"},
        {"quantizer": "float8"},
        {"quantizer": "deadzone"},
        {"quantizer": "rdo"},
        {"restoration": "sample"},
        {"sampler": {"eta": 0.5}},
        {"sampler": {"spacing": "linear"}},
    ],
    ids=str,
)
def test_other_exact_parts_do_not(change: dict[str, Any], prior: str) -> None:
    assert load_codec("default", **{**change, "prior": {"path": prior}}).signal_codec.exact


def test_a_part_is_not_exact_unless_it_says_so() -> None:
    for base in (Prior, Sampler, RowRule, Quantizer, Coder, Restoration):
        assert base.exact is False
    stated = {
        name
        for registry in (SAMPLERS, ROWS, QUANTIZERS, CODERS, RESTORATIONS)
        for name, cls in registry.classes.items()
        if "exact" in vars(cls)
    }
    assert stated.isdisjoint({"pca", "local", "random", "dps", "pigdm", "nested"})


def test_the_words_are_few_and_printable(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic_of(Gaussian()).endswith(", float64, 1 thread")
    torch.set_num_threads(2)
    assert arithmetic_of(Gaussian()).endswith(", 2 threads")
    monkeypatch.setattr(torch, "__version__", "2.0\x1b" + "é" * 300)
    words = arithmetic_of(Gaussian())
    assert words.startswith("torch 2.0???")
    assert len(words) == 200


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return load_codec(write_codec(tmp_path))


def damaged(data: bytes, arithmetic: str) -> bytes:
    """Another payload under a right checksum, as a decoder whose arithmetic differs sees it."""
    header, payload = unpack(data)
    return pack(replace(header, arithmetic=arithmetic), bytes(byte ^ 0x5A for byte in payload) + bytes(40))


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("torch 1.0, cpu AVX2", r"encoded with torch 1\.0, cpu AVX2; this is torch \S+, cpu \w+, float64, 1 thread$"),
        ("here", "encoded with torch .* 1 thread, as here, so the stream is damaged or made on another kind"),
        ("digest", "encoded with torch .* 1 thread, as here, so the stream is damaged or made on another kind"),
        ("#0000", r"encoded with another arithmetic, of which the stream has a digest alone; this is torch \S+, cpu"),
        ("", "its arithmetic is the same on every machine, so the stream is damaged or pscx has a defect"),
    ],
)
def test_what_does_not_decode_says_why(encoded: str, why: str, codec: Codec, photo: Pixels) -> None:
    here = arithmetic_of(psc_of(codec).prior)
    arithmetic = {"here": here, "digest": short_arithmetic(here)}.get(encoded, encoded)
    with pytest.raises(StreamError, match=rf"^segment [123] of 3 does not decode to what was encoded: {why}"):
        codec.decompress(damaged(codec.compress(photo), arithmetic))


def test_info_says_what_a_stream_was_encoded_with(
    codec: Codec, photo: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = codec.compress(photo)
    facts = stream_info(data)
    assert facts["arithmetic"] == arithmetic_of(psc_of(codec).prior)
    assert facts["parameter_name"] == "step"
    (tmp_path / "x.pscx").write_bytes(data)
    assert main(["info", str(tmp_path / "x.pscx")]) == 0
    assert f"arithmetic      {facts['arithmetic']}\n" in capsys.readouterr().out


@pytest.mark.parametrize("spec", ["[" * 900 + "]" * 900, '"\\ud800\\u001b"', "{", '{"quantizer": {"name": ["x"]}}'])
def test_info_shows_any_spec_without_harm(
    spec: str, codec: Codec, photo: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, payload = unpack(codec.compress(photo))
    (tmp_path / "x.pscx").write_bytes(pack(replace(header, spec=spec), payload))
    for options in ([], ["--json"]):
        assert main(["info", str(tmp_path / "x.pscx"), *options]) == 0
        text = capsys.readouterr().out
        assert text.encode("ascii")
        assert "\x1b" not in text
    assert stream_info((tmp_path / "x.pscx").read_bytes())["parameter_name"] == "parameter"
