"""What an error of each coefficient counts: the weights, and what they do to a codec of a Gaussian prior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

import pscx
from pscx.codecs import PSC
from pscx.codecs.psc.loop import Known
from pscx.evaluation.bd import bd_rate
from pscx.quantizers.trellis import NOISE
from pscx.rate_control import Step
from pscx.rows import DCT
from pscx.rows.weighting import Weighting
from pscx.signal.measurements import Coordinates

CPU = torch.device("cpu")
WEIGHTED = {"chroma": 0.5, "knee": 0.08}


@pytest.mark.parametrize(("axes", "block", "chroma", "knee"), [(3, 16, 0.5, 0.2), (4, 8, 2.0, 0.07), (1, 4, 1.0, 0.02)])
def test_weights_follow_the_formula_to_one_part_in_256(axes: int, block: int, chroma: float, knee: float) -> None:
    weights = Weighting(chroma, knee).of(axes, block, CPU)
    assert weights is not None
    assert torch.equal(weights * 256, (weights * 256).round())
    for axis, row, column in np.ndindex(axes, block, block):
        frequency = math.hypot(row, column) / (2 * block)
        formula = (chroma if axis else 1.0) / math.sqrt(1 + (frequency / knee) ** 2)
        found = float(weights.view(axes, block, block)[axis, row, column])
        assert found == pytest.approx(max(formula, 1 / 256), abs=0.5 / 256 + 1e-12)


def test_equal_weights_are_none() -> None:
    assert Weighting().of(3, 16, CPU) is None


@pytest.mark.parametrize(
    ("chroma", "knee", "sentence"),
    [
        (0.05, 0.0, r"rows.chroma must lie in \[1/16, 4\], got 0.05"),
        (math.nan, 0.0, r"rows.chroma must lie in \[1/16, 4\], got nan"),
        (1.0, 0.005, "rows.knee must be 0 or over 0.01, got 0.005"),
        (1.0, math.inf, "rows.knee must be 0 or over 0.01, got inf"),
    ],
)
def test_weights_out_of_range(chroma: float, knee: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DCT(chroma=chroma, knee=knee)


def gaussian(**rows: float) -> pscx.Codec:
    """The loop on the Gaussian prior, with block-local rows."""
    return pscx.load_codec(
        "fast", prior="gaussian", rows={"name": "dct", "block": 8, "per_iteration": 6.0, **rows}, iterations=6
    )


def coefficients(pixels: np.ndarray) -> Tensor:
    """Of the transform that the codec measures, ``(blocks, dim)``."""
    codec = gaussian().signal_codec
    assert isinstance(codec, PSC)
    signal = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None] / 127.5 - 1
    return codec.rows.start(codec.prior, tuple(signal.shape[1:])).split(signal)[0]


def test_a_weight_is_how_finely_a_coefficient_is_quantized(astronaut: np.ndarray) -> None:
    """The noise of a value is that of the trellis over the square of its weight."""
    codec = gaussian(**WEIGHTED).signal_codec
    assert isinstance(codec, PSC)
    signal = torch.from_numpy(astronaut[:32, :32].astype(np.float64)).permute(2, 0, 1) / 127.5 - 1
    outcome = codec.encode(signal)[1]
    assert isinstance(outcome, Known)
    known = outcome.measurements
    assert isinstance(known, Coordinates)
    weights = Weighting(**WEIGHTED).of(3, 8, CPU)
    assert weights is not None
    noise = (known.variances * weights.square())[known.known] / codec.quantizer.resolution**2
    assert len(noise) > 100
    levels = torch.tensor(NOISE, dtype=torch.float64)
    assert float((noise[:, None] - levels).abs().amin(1).max()) < 1e-12


def test_the_error_that_is_counted_falls_at_equal_bits(astronaut: np.ndarray) -> None:
    """The weighted codec gains by the weighted error, and more than by the plain one."""
    image = astronaut[40:104, 60:124]
    truth = coefficients(image)
    weights = Weighting(**WEIGHTED).of(3, 8, CPU)
    assert weights is not None

    def curve(rows: dict[str, float], steps: tuple[float, ...], square: Tensor) -> list[tuple[float, float]]:
        points = []
        for step in steps:
            done = gaussian(**rows).simulate(image, target=Step(step))
            error = (coefficients(done.pixels) - truth).square() * square
            points.append((sum(done.account.segment_bits), -10 * math.log10(float(error.mean()))))
        return points

    counted, plain = weights.square(), torch.ones_like(weights)
    coarse, fine = (1.0, 0.6, 0.4), (0.6, 0.35, 0.2)
    gain = bd_rate(curve({}, coarse, counted), curve(WEIGHTED, fine, counted))
    assert gain < -10
    assert gain < bd_rate(curve({}, coarse, plain), curve(WEIGHTED, fine, plain)) - 5
