"""Large images: tiles without seams, bands that change no bit, and memory that follows the pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_streams import SMALL, golden_image, save_golden_prior
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from reference_decoder import Decoder
from reference_decoder import Prior as ReferencePrior
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pscx import Codec, Decompressor, load_codec
from pscx.codecs.psc.gains import likely_gains
from pscx.format.limits import Limits
from pscx.images import to_tensor
from pscx.priors import DDPM
from pscx.priors.tiles import Tiles

Pixels = NDArray[np.uint8]
TINY = Tiles(limit=32, core=16, halo=8, fade=4)
SIZE = (40, 83)


@pytest.mark.parametrize(("side", "stride", "count"), [(1024, 16, 1), (1040, 16, 2), (1539, 9, 3), (4000, 16, 6)])
def test_pieces_of_a_side(side: int, stride: int, count: int) -> None:
    tiles = Tiles()
    pieces = tiles.pieces(side, stride)
    assert len(pieces) == count
    assert (pieces[0].start, pieces[-1].stop) == (0, side)
    total = torch.zeros(side, dtype=torch.float64)
    for piece in pieces:
        assert piece.start % stride == piece.stop % stride == 0
        assert piece.stop - piece.start <= tiles.limit
        total[piece.start : piece.stop] += piece.weight
        if count > 1:  # what lies next to a cut through the halo weighs nothing
            assert piece.start == 0 or not piece.weight[: tiles.halo - tiles.fade].any()
            assert piece.stop == side or not piece.weight[tiles.fade - tiles.halo :].any()
    assert torch.equal(total, torch.ones(side, dtype=torch.float64))
    for one, other in pairwise(pieces):
        assert 2 * tiles.halo <= one.stop - other.start <= 2 * tiles.halo + 2 * stride


def test_tiles_of_a_filter_are_the_whole_bit_for_bit() -> None:
    """One that sees no further than the halo less the fade, on integers, whose mixtures are exact."""

    def filtered(x: Tensor) -> Tensor:
        return avg_pool2d(x, 9, 1, padding=4) * 81

    x = torch.randint(-500, 500, (2, 3, 46, 100), generator=torch.Generator().manual_seed(0)).double()
    parts: list[tuple[int, ...]] = []

    def watched(part: Tensor) -> Tensor:
        parts.append(tuple(part.shape[2:]))
        return filtered(part).round()

    assert torch.equal(TINY.denoise(watched, x, 2), filtered(x).round())
    assert len(parts) == 3 * 7
    assert max(height * width for height, width in parts) == TINY.largest(46, 100, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fade": 12}, "tiles.fade must be a power of two below tiles.halo"),
        ({"fade": 64}, "tiles.fade must be a power of two below tiles.halo"),
        ({"core": 64}, r"tiles.core must lie in 96\.\.1024, got 64"),
        ({"core": 2048}, r"tiles.core must lie in 96\.\.1024, got 2048"),
    ],
)
def test_tiles_refuse(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Tiles(**options)


@pytest.mark.parametrize("exact", [False, True])
def test_the_shipped_prior_has_no_seams(exact: bool, astronaut: Pixels) -> None:
    """In grey levels: little of a float network; of an exact one rounding, no larger at the cuts.

    Coarse levels see further than the halo of 48 pixels. What is beyond it matters where all is noise (level 10).
    """
    prior = DDPM(exact=exact)
    x = to_tensor(astronaut).double()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigma in (10.0, 0.5, 0.05):
        whole = prior.denoise(x + sigma * noise, sigma)
        prior.tiles = Tiles(limit=96, core=96)
        error = (prior.denoise(x + sigma * noise, sigma) - whole) * 127.5
        prior.tiles = Tiles()
        if not exact:
            assert float(error.abs().max()) < (0.25 if sigma == 10 else 0.1)
            assert float(error.square().mean().sqrt()) < (0.05 if sigma == 10 else 0.006)
            continue
        across = error[..., 64 - 16 : 64 + 16].square().mean().sqrt()
        aside = torch.cat([error[..., :48], error[..., 80:]], -1).square().mean().sqrt()
        assert 0 < float(across) < min(0.4, 1.3 * float(aside))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_golden_prior(tmp_path_factory.mktemp("large"))


def codec_of(prior: str) -> Codec:
    rows = {"name": "dct", "block": 8, "per_iteration": 4.0}
    sampler = {**SMALL["sampler"], "eta": 0.5}
    options = {**SMALL, "restoration_sampler": sampler, "rows": rows, "quantizer": {"name": "uniform", "step": 0.25}}
    return load_codec("default", prior={"path": prior, "exact": True}, **options)


DECODE = """
import sys
from pathlib import Path
import numpy as np
from pscx import Decompressor
from pscx.priors import DDPM
from pscx.priors.tiles import Tiles
DDPM.tiles = Tiles(32, 16, 8, 4)
data = Path(sys.argv[1]).read_bytes()
np.save(sys.argv[3], Decompressor(prior_path=sys.argv[2]).decompress(data))
"""


def test_a_tiled_stream_decodes_anywhere(prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = golden_image(*SIZE)
    whole = codec_of(prior).compress(image)
    monkeypatch.setattr(DDPM, "tiles", TINY)
    codec = codec_of(prior)
    done = codec.simulate(image)
    assert done.data != whole  # tiles are part of what a stream means
    (tmp_path / "tiled.pscx").write_bytes(done.data)
    command = [sys.executable, "-c", DECODE, str(tmp_path / "tiled.pscx"), prior, str(tmp_path / "pixels.npy")]
    subprocess.run(command, check=True, env={**os.environ, "ATEN_CPU_CAPABILITY": "default"})
    assert np.array_equal(np.load(tmp_path / "pixels.npy"), done.pixels)
    others = [golden_image(*SIZE)[::-1].copy(), image]
    streams = codec.compress_many(others, batch=2)
    assert streams[1] == done.data
    shown = Decompressor(prior_path=prior).decompress_many([data for data in streams if isinstance(data, bytes)])
    second = shown[1]
    assert isinstance(second, np.ndarray)
    assert np.array_equal(second, done.pixels)


def test_a_second_decoder_knows_the_tiles(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DDPM, "tiles", TINY)
    assert ReferencePrior.tiles == (Tiles().limit, Tiles().core, Tiles().halo, Tiles().fade)
    monkeypatch.setattr(ReferencePrior, "tiles", (TINY.limit, TINY.core, TINY.halo, TINY.fade))
    done = codec_of(prior).simulate(golden_image(*SIZE))
    assert np.array_equal(Decoder(done.data, Path(prior)).image(), done.pixels)


PARTS = {
    "pscx.signal.transforms.BAND": 1,
    "pscx.signal.noise.CHUNK": 1,
    "pscx.execution.sharding.LARGE": 1,
    "pscx.priors.ddpm.CALL": 1,
    "pscx.coders.posterior.LEARNT": 5,
    "pscx.codecs.psc.encoding.LARGE": 1,
}


@pytest.mark.parametrize("name", list(PARTS))
def test_parts_change_no_bit(name: str, prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = golden_image(*SIZE)
    whole = codec_of(prior).simulate(image)
    monkeypatch.setattr(name, PARTS[name])
    parts = codec_of(prior).simulate(image)
    assert parts.data == whole.data
    assert np.array_equal(parts.pixels, whole.pixels)
    assert np.array_equal(codec_of(prior).decompress(whole.data), whole.pixels)


def test_gains_are_learnt_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.Generator().manual_seed(0)
    block = torch.randint(0, 5, (300,), generator=source)
    low = torch.randn(300, generator=source, dtype=torch.float64) * (1 + block)
    whole = likely_gains(5, block, low - 0.1, low + 0.1)
    assert len(set(whole.tolist())) > 2
    monkeypatch.setattr("pscx.codecs.psc.gains.LEARNT", 7)
    assert torch.equal(likely_gains(5, block, low - 0.1, low + 0.1), whole)


PEAK = '''
import sys
from pathlib import Path
import numpy as np
from pscx import load_codec

def peak():
    """Bytes; getrusage would begin at what the parent process held."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

height, width = 768, 1024
image = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
image = image.repeat(16, 0).repeat(16, 1)
sampler = {"steps": 1}
rows = {"name": sys.argv[2], "per_iteration": 2.5, "growth": 2.0, "complete": 0.0}
codec = load_codec(
    "fast", prior={"path": sys.argv[1]}, sampler=sampler, restoration_sampler=sampler, rows=rows, iterations=3, step=2.0
)
codec.compress(image[:64, :64])
before = peak()
data = codec.compress(image)
print((peak() - before) / (height * width))
'''


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("rows", ["dct", "learned"])
def test_peak_memory_of_a_pixel(rows: str, prior: str) -> None:
    """At this size bands are a good part of it; with all blocks in one band it is 680 bytes.

    How many rows a random network has left at the end does not belong to it: nothing is completed.
    """
    done = subprocess.run([sys.executable, "-c", PEAK, prior, rows], stdout=subprocess.PIPE, text=True, check=True)
    assert 100 < float(done.stdout) < 580


def test_twelve_megapixels_are_admitted() -> None:
    """And the memory that is foretold is linear: no more than twice that of half as many pixels."""
    limits = Limits(memory=16_000_000_000)
    for recipe in ("fast", "default", "best", "perceptual"):
        psc = load_codec(recipe).signal_codec
        limits.check(psc, 3008, 4000, (3, 3008, 4000), 1)
        assert psc.memory((3, 3008, 4000)) < 2 * psc.memory((3, 1504, 4000))


def test_a_network_takes_memory_for_a_tile() -> None:
    exact, rounded = (DDPM(exact=exact) for exact in (True, False))
    tile = exact.memory((3, 3008, 4000), 1)
    assert tile == exact.memory((3, 3008, 4000), 4) < 0.6e9
    assert rounded.memory((3, 3008, 4000), 4) == 4 * tile
    assert exact.memory((3, 64, 64), 4) == 4 * exact.memory((3, 64, 64), 1)
