"""The row rule ``learned``: its features against their definition, its weights against known ones, and ``pscx fit``."""

from __future__ import annotations

import csv
from math import hypot, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from test_calibrate import fit
from tiny import psc_of, write_codec
from torch import Tensor

import pscx
from pscx.cli.main import main
from pscx.codecs import PSC, Segment, SignalCodec
from pscx.codecs.pixels import signal_of
from pscx.codecs.psc.loop import Seal
from pscx.data.folder import BUNDLED
from pscx.exact import logarithm
from pscx.priors import Gaussian
from pscx.registry import parameters_of
from pscx.rows import DCT, ROWS, Learned, Situation
from pscx.rows.block_transform import prior_variances
from pscx.rows.learned import FEATURES, SMALLEST, TRENDS, features_of
from pscx.rows.regression import Observed, fit_weights, mean_bits, observe, predicted_by
from pscx.rows.statistics import BlockStatistics, radii_of
from pscx.signal.measurements import Coordinates
from pscx.training import fit_rows

PRIOR = Gaussian(correlation=0.8, color=0.5, deviation=0.5)
SHAPE = (3, 12, 16)  # three rows of four blocks
BLOCK, DIM = 4, 48
EXPENSIVE = 0.01  # bits a coefficient

DCT_CODEC = """\
model:
  codec:
    prior: gaussian
    sampler: {name: ddrm, steps: 2}
    rows: {name: dct, block: 8, per_iteration: 4.0, floor: 0.1}
    quantizer: {name: uniform, step: 0.02}
    coder: posterior
    restoration: {name: mean, samples: 2}
    samples: 3
    iterations: 4
"""
FIT = DCT_CODEC.replace("model:", "model:\n  name: fit_rows")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(seed: int = 1) -> Coordinates:
    """A third of all coefficients, and all of one block, measured; gains that differ from block to block."""
    coordinates = Learned(block=BLOCK).start(PRIOR, SHAPE)
    block, row = torch.nonzero(random(12, DIM, seed=seed) > 0.4, as_tuple=True)
    full = torch.arange(DIM)
    block, row = torch.cat([block[block != 5], torch.full((DIM,), 5)]), torch.cat([row[block != 5], full])
    coordinates.append(block, row, random(len(row), seed=2), torch.full((len(row),), 0.1, dtype=torch.float64))
    coordinates.gains = random(12, seed=3).exp()
    return coordinates


def situation(measurements: Coordinates, samples: Tensor | None, iteration: int = 2, iterations: int = 5) -> Situation:
    return Situation(PRIOR, measurements, samples, iteration, iterations, 1e-6, PRIOR)


def test_the_logarithm_is_that_of_the_library() -> None:
    x = torch.cat([2.0 ** torch.linspace(-126, 127, 100_001), torch.linspace(0.5, 2, 100_001)]).float()
    exact = x.double().log()
    error = (logarithm(x).double() - exact).abs()
    assert float((error / (2e-7 * exact.abs()).clamp_min(2.5e-6)).max()) < 1
    assert torch.equal(torch.cat([logarithm(part) for part in torch.split(x, 7777)]), logarithm(x))


def by_definition(samples: Tensor, measurements: Coordinates, block: int, place: int) -> list[float]:
    """The features of one coefficient, number by number as the docstring of ``Learned`` says."""
    coefficients = measurements.transform.forward(samples).reshape(len(samples), 3, 4, 3, BLOCK, BLOCK).numpy()
    free = ~measurements.known.reshape(3, 4, 3, BLOCK, BLOCK).numpy()
    variance, square = coefficients.var(0, ddof=1), coefficients.mean(0) ** 2
    by, bx = divmod(block, 4)
    axis, rest = divmod(place, BLOCK * BLOCK)
    v, u = divmod(rest, BLOCK)

    def mean(what: NDArray[np.float64], where: NDArray[np.bool_], blocks: int, frequencies: int) -> float:
        total = weights = 0.0
        for y in range(max(by - blocks, 0), min(by + blocks, 2) + 1):
            for x in range(max(bx - blocks, 0), min(bx + blocks, 3) + 1):
                for q in range(max(v - frequencies, 0), min(v + frequencies, BLOCK - 1) + 1):
                    for p in range(max(u - frequencies, 0), min(u + frequencies, BLOCK - 1) + 1):
                        weight = 0.5 ** (abs(y - by) + abs(x - bx)) * where[y, x, axis, q, p]
                        total, weights = total + weight * what[y, x, axis, q, p], weights + weight
        return total / weights if weights else 0.0

    everywhere = np.ones_like(free)
    means = [mean(variance, free, 0, 1), mean(variance, free, 1, 2)]
    means += [mean(square, everywhere, 0, 1), mean(square, everywhere, 1, 2)]
    unknown = free[by, bx].mean()
    gain, prior = float(measurements.gains[block]), float(prior_variances(PRIOR, BLOCK)[place])
    return [
        *(log(value + SMALLEST) for value in (*means, gain)),
        float(unknown),
        log(prior + SMALLEST),
        log(1 + hypot(v, u)),
        float(axis == 0),
    ]


def all_features(samples: Tensor, measurements: Coordinates) -> Tensor:
    parts = [
        torch.stack([feature.expand(blocks.stop - blocks.start, DIM) for feature in features], 2)
        for blocks, features in features_of(situation(measurements, samples), prior_variances(PRIOR, BLOCK))
    ]
    return torch.cat(parts)


def test_features_are_what_the_docstring_says() -> None:
    samples, measurements = 0.3 * random(3, *SHAPE), known()
    found = all_features(samples, measurements)
    for block in (0, 1, 5, 6, 11):
        for place in (0, 1, 6, 15, 16, 21, 47):
            wanted = torch.tensor(by_definition(samples, measurements, block, place))
            torch.testing.assert_close(found[block, place], wanted, rtol=1e-4, atol=1e-4)


def test_bands_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, measurements = 0.3 * random(3, *SHAPE), known()
    whole = all_features(samples, measurements)
    monkeypatch.setattr("pscx.rows.learned.WORKED", 1)
    assert len(list(features_of(situation(measurements, samples), prior_variances(PRIOR, BLOCK)))) == 3
    assert torch.equal(all_features(samples, measurements), whole)


def test_the_variance_is_the_exponential_of_weighted_features() -> None:
    samples, measurements = 0.3 * random(3, *SHAPE), known()
    weights = (0.1 * random(TRENDS * FEATURES, seed=7)).tolist()
    predicted = Learned(block=BLOCK, weights=weights).predicted(situation(measurements, samples))
    a, b, c = np.array(weights).reshape(TRENDS, FEATURES)
    combined = torch.from_numpy(a + b * 2 / 4 + c / 2**2)
    wanted = (all_features(samples, measurements).double() @ combined[:-1] + combined[-1]).exp()
    free = ~measurements.known
    torch.testing.assert_close(predicted[free], wanted[free], rtol=1e-4, atol=0)
    assert not predicted[measurements.known].any()


def test_the_first_iteration_takes_the_variances_of_the_prior() -> None:
    measurements = Learned(block=BLOCK).start(PRIOR, SHAPE)
    proposals = [rule(block=BLOCK).propose(situation(measurements, None, 0)) for rule in (Learned, DCT)]
    assert len(proposals[0].block) > 0
    assert torch.equal(proposals[0].variance, proposals[1].variance)
    assert torch.equal(proposals[0].rows, proposals[1].rows)


def test_a_rule_that_has_samples_at_once_may_wrap_it() -> None:
    """As plugins/checkerboard.py does: the first iteration then has the weights of the second, even where it is all."""
    samples, measurements = 0.3 * random(3, *SHAPE), known()
    rule = Learned(block=BLOCK)
    first, second = (rule.predicted(situation(measurements, samples, i, 5)) for i in (0, 1))
    assert torch.equal(first, second)
    assert rule.predicted(situation(measurements, samples, 0, 1)).isfinite().all()


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([0.0] * 29, "rows.weights must be 30 numbers, got 29"),
        ([0.0] * 29 + [1e4], "rows.weights must lie within ±1000, got 10000"),
        ([0.0] * 29 + [float("nan")], "rows.weights must lie within ±1000, got nan"),
    ],
)
def test_learned_refuses(weights: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Learned(weights=weights)


def drawn(weights: list[float], count: int, seed: int) -> list[Observed]:
    """Residuals that are Student's t of the variances that the weights predict."""
    generator = np.random.default_rng(seed)
    found = []
    for iteration in range(1, 6):
        features = generator.normal(size=(count, FEATURES - 1))
        one = Observed(iteration, 6, features, np.zeros(count), np.ones(count))
        residual = generator.standard_t(4, count) * np.sqrt(predicted_by(one, weights) / 2)
        found.append(Observed(iteration, 6, features, residual, one.predicted))
    return found


def test_weights_are_found_again() -> None:
    """Maximum likelihood of 50,000 residuals: weights to within some standard errors, and nearly the same mean_bits."""
    true = (0.4 * random(TRENDS * FEATURES, seed=5)).tolist()
    observed, others = drawn(true, 10_000, 0), drawn(true, 10_000, 1)
    found = fit_weights(observed)
    for place in ((1, 5), (5, 5)):
        both = [np.array(w).reshape(TRENDS, FEATURES) for w in (found, true)]
        sums = [w[0] + w[1] * place[0] / place[1] + w[2] / place[0] ** 2 for w in both]
        assert np.abs(sums[0] - sums[1]).max() < 0.1
    bits = [mean_bits(others, [predicted_by(one, w) for one in others]) for w in (found, true, [0.0] * 30)]
    assert abs(bits[0] - bits[1]) < 0.002
    assert bits[2] > bits[1] + 0.3


def test_nothing_to_learn_from_is_said() -> None:
    """Nor is too little: there must be as many residuals as weights."""
    nothing = Observed(1, 3, np.zeros((0, FEATURES - 1)), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="weights need 30 coefficients or more"):
        fit_weights([nothing])


def test_the_shipped_weights_predict_better_than_the_rule_dct() -> None:
    """On photographs that they were not learnt from, in the shipped codec: bits a coefficient of the same residuals."""
    codec = pscx.load_codec("fast", step=0.5)
    rule = psc_of(codec).rows
    assert isinstance(rule, Learned)
    before = DCT(rule.block, base=0.4, neighbours=0.7, evenness=0.75)
    observed: list[Observed] = []
    for name in ("astronaut", "coffee"):
        pixels = np.ascontiguousarray(pscx.read_image(BUNDLED / f"{name}.png")[64:160, 64:160])
        signal = signal_of(codec.signal_codec, pixels).double()

        def watch(psc: SignalCodec, seal: Segment, signal: Tensor = signal) -> None:
            assert isinstance(psc, PSC)
            assert isinstance(seal, Seal)
            if seal.samples is None:
                return
            here = psc.loop.situation(seal.before, seal.samples, seal.segment, psc.prior)
            predicted, rows = before.predicted(here), len(seal.measured.symbols)
            observed.append(observe(here, before.spectrum(psc.prior), signal, predicted, rows, 2000))

        codec.signal_codec.encode(signal_of(codec.signal_codec, pixels), watch=watch)
    old = mean_bits(observed, [one.predicted for one in observed])
    new = mean_bits(observed, [predicted_by(one, rule.weights or pscx.rows.learned.PHOTOGRAPHS) for one in observed])
    assert new < old - 0.05


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_fit_learns_a_rule_that_a_codec_takes(image_folder: Path, tmp_path: Path) -> None:
    config, root = write_codec(tmp_path, DCT_CODEC), tmp_path / "fit"
    options = ["--model.steps", "[0.01, 0.02]", "--model.held_out", "3"]
    assert fit(root, write_codec(tmp_path, FIT, "fit.yaml"), image_folder, *options) == 0
    before, learned = rows_of(root / "rows.csv")
    assert (before["rows"], learned["rows"]) == ("before", "learned")
    assert float(learned["learnt_bits"]) < float(before["learnt_bits"]) - EXPENSIVE
    assert abs(float(learned["saved_bits"]) - float(before["held_out_bits"]) + float(learned["held_out_bits"])) < 1e-6
    rule = yaml.safe_load((root / "rows.yaml").read_text())["model"]["codec"]["rows"]
    assert (rule["name"], rule["block"], rule["per_iteration"]) == ("learned", 8, 4.0)
    options = ["--config", config, "--config", str(root / "rows.yaml"), "--data.root", str(image_folder)]
    assert main(["test", *options, "--trainer.default_root_dir", str(tmp_path / "test")]) == 0
    again = tmp_path / "a.png"
    assert main(["decompress", str(tmp_path / "test" / "streams" / "a.pscx"), "-o", str(again)]) == 0
    codec = pscx.load_codec(config, rows=rule)
    assert np.array_equal(pscx.read_image(again), codec.simulate(pscx.read_image(image_folder / "a.png")).pixels)


def test_an_interrupted_fit_goes_on(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, root = write_codec(tmp_path, FIT), tmp_path / "fit"
    encode, calls = PSC.encode, []

    def counted(self: PSC, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(PSC, "encode", counted)
    assert fit(root, config, image_folder) == 130
    assert not (root / "rows.csv").exists()
    assert fit(root, config, image_folder) == 0
    assert len(calls) == 4
    assert fit(tmp_path / "whole", config, image_folder) == 0
    assert (tmp_path / "whole" / "rows.yaml").read_bytes() == (root / "rows.yaml").read_bytes()
    before = len(calls)
    assert fit(root, config, image_folder, "--model.steps", "[0.03]") == 0
    assert len(calls) == before + 3


@pytest.mark.parametrize("kind", [DCT, Learned])
def test_what_is_learnt_keeps_the_options_of_the_rule(
    kind: type[DCT | Learned], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the two rules share, so an option that is added to them cannot be forgotten."""
    given: dict[str, Any] = {
        **{"block": 8, "per_iteration": 3.0, "growth": 1.5, "depth": 32, "floor": 0.25, "complete": 0.5},
        **{"first": "pyramid", "chroma": 2.0, "knee": 0.25, "coarse": 3.5},
        "statistics": BlockStatistics.of([0.5, 1.0, *[0.25] * radii_of(8)], 8).numbers(),
    }
    shared = (parameters_of(DCT).keys() & parameters_of(Learned).keys()) - {"pyramid"}
    assert shared == given.keys()
    monkeypatch.setattr(fit_rows, "fit_weights", lambda seen: [0.0] * 30)
    learned = ROWS.spec(fit_rows.likeliest(kind(**given), [], []))
    assert {key: learned[key] for key in shared} == given


def test_nothing_measured_is_said(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_codec(tmp_path, FIT)
    assert fit(tmp_path / "fit", config, image_folder, "--model.steps", "[100.0]") == 2
    assert "weights need 30 coefficients or more, measured where there are samples, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.codec.rows", "pca"], "rows must be dct or learned to fit weights, got pca"),
        (["--model.codec.iterations", "2"], "iterations must be at least 3"),
        (["--model.steps", "[]"], "steps must be none or at least one number"),
        (["--model.steps", "[-1.0]"], "quantizer.step must"),
        (["--model.coefficients", "0"], "coefficients must be at least 1"),
        (["--model.held_out", "1"], "held_out must be at least 2"),
    ],
)
def test_fit_rows_refuses(
    options: list[str], sentence: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_codec(tmp_path, FIT)
    assert fit(tmp_path / "fit", config, image_folder, *options) == 2
    assert sentence in capsys.readouterr().err
