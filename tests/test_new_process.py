"""A stream decodes, in a process of its own, to the pixels that the encoder's simulation gave."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pscx

ROWS = (
    {"name": "pca", "per_iteration": 3},
    {"name": "local", "block": 8, "per_iteration": 2.0},
    {"name": "dct", "block": 8, "per_iteration": 2.0},
    {"name": "random", "block": 16, "per_iteration": 3},
    {"name": "tweedie", "per_iteration": 4, "extra": 1, "passes": 2, "corrections": 1},
)
QUANTIZERS = ("float8", {"name": "uniform", "step": 0.2})
MORE_QUANTIZERS = ({"name": "deadzone", "step": 0.2}, {"name": "rdo", "step": 0.2})
CODERS = ("raw", "posterior")
MORE_CODERS = (
    *("static", "adaptive", {"name": "adaptive", "table": "photographs"}),
    {"name": "posterior", "degrees": 8, "gains": [1.5, 0.75]},
)
RESTORATIONS = ({"name": "mean", "samples": 2}, "sample")
COMBINATIONS = [
    *itertools.product(ROWS, QUANTIZERS, CODERS, RESTORATIONS),
    *itertools.product(ROWS[1:2], MORE_QUANTIZERS, CODERS + MORE_CODERS, RESTORATIONS[:1]),
    *itertools.product(ROWS[2:3], QUANTIZERS, MORE_CODERS, RESTORATIONS[:1]),
]

DECODE = """
import sys
from pathlib import Path
import numpy as np
import pscx
for stream in sorted(Path(sys.argv[1]).glob("*.pscx")):
    np.save(stream.with_suffix(".npy"), pscx.Decompressor().decompress(stream.read_bytes()))
"""


def codec(prior: str, number: int) -> pscx.Codec:
    rows, quantizer, coder, restoration = COMBINATIONS[number]
    return pscx.load_codec(
        prior=prior,
        sampler={"name": "ddrm", "steps": 3},
        restoration_sampler={"name": "ddrm", "steps": 3, "eta": 0.5},
        rows=rows,
        quantizer=quantizer,
        coder=coder,
        restoration=restoration,
        samples=4,
        iterations=2,
        batch=4,
    )


@pytest.mark.parametrize("prior", ["ddpm", "gaussian"])
def test_every_combination_decodes_in_a_new_process(
    prior: str, tmp_path: Path, astronaut: NDArray[np.uint8], cat: NDArray[np.uint8], rocket: NDArray[np.uint8]
) -> None:
    photographs = [p[30:61, 40:75] for p in (astronaut, cat, rocket)]
    expected = {}
    every = 3 if prior == "ddpm" else 1  # a network takes time; a third has every component
    for number in range(0, len(COMBINATIONS), every):
        result = codec(prior, number).simulate(photographs[number % 3])
        (tmp_path / f"{number:02}.pscx").write_bytes(result.data)
        expected[f"{number:02}"] = result.pixels
    subprocess.run([sys.executable, "-c", DECODE, tmp_path], check=True, timeout=300)
    decoded = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    assert decoded.keys() == expected.keys()
    for name, pixels in expected.items():
        np.testing.assert_array_equal(decoded[name], pixels, err_msg=str(COMBINATIONS[int(name)]))


def test_container_of_a_default_stream_is_small(astronaut: NDArray[np.uint8]) -> None:
    default = pscx.load_codec()
    result = default.simulate(astronaut[:64, :64])
    container = len(result.data) - sum(result.account.segment_bits) / 8
    assert container <= 24
