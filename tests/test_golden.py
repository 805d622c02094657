"""Stored streams: what is encoded today is what was encoded then, and shows the same pixels; see golden_streams.py."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from golden_streams import FACTS, GOLDEN, STREAMS, facts_of, golden_codec, save_golden_prior
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from reference_decoder import Decoder

from pscx import Decompressor, StreamError, stream_info


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_golden_prior(tmp_path_factory.mktemp("golden"))


def test_there_are_as_many_as_are_told_of() -> None:
    facts = json.loads(FACTS.read_text())
    assert facts.keys() == STREAMS.keys() == {file.stem for file in GOLDEN.glob("*.pscx")}
    assert all(one["bytes"] < 1000 for one in facts.values())


@pytest.mark.parametrize("name", list(STREAMS))
def test_a_golden_stream_is_encoded_and_decoded_as_ever(name: str, prior: str) -> None:
    facts = json.loads(FACTS.read_text())[name]
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    assert sha256(data).hexdigest() == facts["stream"]
    assert facts_of(data, Decompressor(prior_path=prior).decompress(data)) == facts
    codec, image = golden_codec(name, prior)
    assert codec.psc.exact
    assert codec.compress(image) == data
    assert stream_info(data)["arithmetic"] is None


def test_a_second_decoder_shows_the_same_pixels(prior: str) -> None:
    """One that shares no code with this one: docs/format.md says all that is needed."""
    name = "uniform_posterior"
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    pixels = Decoder(data, Path(prior)).image()
    assert facts_of(data, np.ascontiguousarray(pixels)) == json.loads(FACTS.read_text())[name]


def test_another_version_is_refused_by_its_number(prior: str) -> None:
    data = bytearray((GOLDEN / "float8_raw.pscx").read_bytes())
    data[3] = data[3] & 15 | 2 << 4
    with pytest.raises(StreamError, match="version 2 of the stream format; this program reads version 1"):
        Decompressor(prior_path=prior).decompress(bytes(data))
