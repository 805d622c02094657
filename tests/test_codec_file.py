"""What ``pscx fit`` learnt as one file: the codec with its overlay, and a user recipe as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tiny import CODEC, write_codec

from pscx import Decompressor, load_codec, load_recipes, stream_info
from pscx.api import build_codec
from pscx.cli.main import main
from pscx.codecs.specs import codec_spec
from pscx.config import read_yaml
from pscx.config.recipes import folders

TURBO = """\
model:
  codec:
    name: turbo_ddcm
    prior: gaussian
    steps: 6
    level: 0.4
"""
DCT = CODEC.replace("local, block: 8, per_iteration: 2.5", "dct, block: 8, per_iteration: 4.0").replace("0.25", "0.02")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_named", {})


def fit(module: str, text: str, images: Path, folder: Path) -> Path:
    """The folder of a fit with that module, of the codec in ``text``."""
    config = write_codec(folder, f"{text}    seed: 3\n  name: {module}\n", "own.yaml")
    options = ["--data.root", str(images), "--trainer.default_root_dir", str(folder / module)]
    assert main(["fit", "--config", config, *options]) == 0
    return folder / module


@pytest.mark.parametrize(
    ("module", "text", "overlay"),
    [
        ("calibrate", CODEC, "posterior"),
        ("calibrate", CODEC.replace("coder: posterior", "coder: raw"), "posterior"),
        ("calibrate", CODEC.replace("coder: posterior", "coder: adaptive"), "adaptive"),
        ("fit_rows", DCT, "rows"),
        ("fit_curve", TURBO, "curve"),
    ],
)
def test_fit_writes_a_whole_codec_that_is_a_recipe(
    module: str,
    text: str,
    overlay: str,
    image_folder: Path,
    tmp_path: Path,
    cat: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = fit(module, text, image_folder, tmp_path)
    monkeypatch.setenv("PSCX_TABLES", str(root))
    layers = [read_yaml(write_codec(tmp_path, text)), read_yaml(root / f"{overlay}.yaml")]
    expected = build_codec(layers).signal_codec
    assert list(yaml.safe_load((root / "codec.yaml").read_text())) == ["model"]
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    shutil.copy(root / "codec.yaml", recipes / "learnt.yaml")
    load_recipes(recipes)
    codec = load_codec("learnt")
    assert codec_spec(codec.signal_codec) == codec_spec(expected)
    assert codec_spec(codec.signal_codec) != codec_spec(build_codec(layers[:1]).signal_codec)
    assert (codec.signal_codec.parameter, codec.signal_codec.seed) == (expected.parameter, 3)
    done = codec.simulate(cat[:24, :30])
    assert stream_info(done.data)["recipe"] == "learnt"
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
