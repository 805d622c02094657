"""Places of priors by fingerprint: remembered by ``compress`` and ``decompress``, filled in by hand, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tiny import save_prior
from tiny_latent import no_hub  # noqa: F401  # a fixture

import pscx
from pscx.cli.main import main
from pscx.compression.known_priors import KnownPriors, users_file
from pscx.errors import PscxError

CODEC = """\
model:
  codec:
    prior: {{name: ddpm, path: {path}}}
    sampler: {{name: ddrm, steps: 1}}
    rows: {{name: dct, block: 8}}
    quantizer: {{name: uniform, step: 0.5}}
    coder: posterior
    restoration: {{name: mean, samples: 1}}
    samples: 2
    iterations: 1
"""


@pytest.fixture
def stream(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Compressed by the command line, with a prior of a folder."""
    (tmp_path / "codec.yaml").write_text(CODEC.format(path=save_prior(tmp_path / "prior", seed=3)))
    pscx.write_image(tmp_path / "a.png", astronaut[:16, :16])
    assert main(["compress", str(tmp_path / "a.png"), "--config", str(tmp_path / "codec.yaml")]) == 0
    return tmp_path / "a.pscx"


def table() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(users_file().read_text())
    return found


@pytest.mark.usefixtures("no_hub")
def test_a_prior_is_found_again(stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``decompress`` needs no ``--prior`` where ``compress``, or an earlier ``--prior``, had one."""
    fingerprint = pscx.stream_info(stream.read_bytes())["fingerprint"]
    assert table() == {fingerprint: str(tmp_path / "prior")}
    assert main(["decompress", str(stream)]) == 0
    assert main(["info", "--segments", str(stream)]) == 0
    users_file().unlink()
    assert main(["decompress", str(stream), "--force"]) == 2
    assert "made with another prior" in capsys.readouterr().err
    moved = shutil.copytree(tmp_path / "prior", tmp_path / "elsewhere")
    assert main(["decompress", str(stream), "--force", "--prior", str(moved)]) == 0
    assert table() == {fingerprint: str(moved)}
    assert main(["decompress", str(stream), "--force"]) == 0
    shutil.rmtree(moved)
    capsys.readouterr()
    assert main(["decompress", str(stream), "--force"]) == 2
    message = capsys.readouterr().err
    assert "say where it is (--prior PATH)" in message
    assert message.count("\n") == 1


@pytest.mark.usefixtures("no_hub")
def test_a_table_filled_by_hand(stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hub id in it is not fetched unasked, and the sentence names it; the library reads no table unless given one."""
    fingerprint = pscx.stream_info(stream.read_bytes())["fingerprint"]
    users_file().write_text(f"'{fingerprint}': somebody/model  # mine\n")
    capsys.readouterr()
    assert main(["decompress", str(stream)]) == 2
    assert "or have 'somebody/model' downloaded (--download)" in capsys.readouterr().err
    users_file().write_text(f"'{fingerprint}': {tmp_path / 'prior'}\n")
    assert main(["decompress", str(stream)]) == 0
    known = pscx.Decompressor(known=KnownPriors(users_file())).decompress(stream.read_bytes())
    np.testing.assert_array_equal(known, pscx.read_image(tmp_path / "a.decoded.png"))
    with pytest.raises(PscxError, match="made with another prior"):
        pscx.Decompressor().decompress(stream.read_bytes())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must be a table, 'fingerprint: place'"),
        ("abc: here", "must have twelve hexadecimal digits"),
        ("'0123456789ab': 3", "must have twelve hexadecimal digits"),
        ("{", "is not valid YAML"),
    ],
)
def test_a_table_that_is_none(text: str, words: str, stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users_file().write_text(text)
    capsys.readouterr()
    assert main(["decompress", str(stream)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_the_embedded_prior_needs_no_place(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    pscx.write_image(tmp_path / "a.png", astronaut[:16, :16])
    fast = ["--recipe", "fast", "--model.codec.iterations", "1"]
    assert main(["compress", str(tmp_path / "a.png"), *fast]) == 0
    assert not users_file().exists()


def test_where_the_table_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PSCX_PRIORS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert users_file() == tmp_path / "pscx" / "priors.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert users_file() == tmp_path / "home" / ".config" / "pscx" / "priors.yaml"
