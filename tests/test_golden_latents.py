"""Stored streams of latents are encoded to the same bytes and decoded to the same latents; see golden_latents.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from golden_latents import FACTS, GOLDEN, STREAMS, encoded, facts_of, save_prior
from machine_settings import INSTRUCTION_SETS

from pscx import stream_info

CODE = """
import json, sys
from pathlib import Path
from golden_latents import STREAMS, encoded, facts_of, save_prior
prior = save_prior(Path(sys.argv[1]) / "prior")
print(json.dumps({name: facts_of(encoded(name, prior), prior) for name in STREAMS}))
"""


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("golden") / "prior")


def test_there_are_as_many_as_are_told_of() -> None:
    facts = json.loads(FACTS.read_text())
    assert facts.keys() == STREAMS.keys() == {file.stem for file in GOLDEN.glob("*.pscx")}
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) <= 30_000


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_latents_is_encoded_and_decoded_as_ever(name: str, prior: str) -> None:
    facts = json.loads(FACTS.read_text())[name]
    data = (GOLDEN / f"{name}.pscx").read_bytes()
    assert sha256(data).hexdigest() == facts["stream"]
    assert stream_info(data)["arithmetic"] is None
    assert facts_of(data, prior) == facts
    assert encoded(name, prior) == data


def test_another_process_with_fewer_instructions_does_the_same(tmp_path: Path) -> None:
    """It makes the prior's weights too, so the fingerprint in the bytes is also that of its own."""
    command = [sys.executable, "-W", "error", "-c", CODE, str(tmp_path)]
    environment = {**os.environ, **INSTRUCTION_SETS["AVX2"]}
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(FACTS.read_text())
