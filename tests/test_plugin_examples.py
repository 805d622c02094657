"""The plugins of the repository, against closed forms on a Gaussian prior, and the text that explains them."""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from PIL import Image
from tiny import psc_of, save_prior
from torch import Tensor

import pscx
from pscx import PscxError
from pscx.cli.main import main
from pscx.codecs import PSC
from pscx.coders import Posterior
from pscx.execution.sharding import ALONE
from pscx.format.container import pack, unpack
from pscx.metrics import psnr
from pscx.priors import Gaussian
from pscx.quantizers import Uniform
from pscx.report.curves import curves_of
from pscx.report.runs import read_sources
from pscx.restorations import Mean
from pscx.rows import DCT, ROWS, Local, Random, RowRule, Situation
from pscx.samplers import DDRM, SAMPLERS, Problem, Sampler
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

SHAPE = (3, 4, 4)
PRIOR = Gaussian(correlation=0.5, color=0.5, deviation=0.5)
DOC = Path("docs/plugins.md")
Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def examples(forget_plugins: Callable[[], None]) -> None:
    pscx.load_plugins("plugins")


def dpm_solver(**options: float) -> Sampler:
    return SAMPLERS.get("dpm_solver")(**options)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(rows: Tensor, values: Tensor, variances: Tensor) -> Problem:
    known = DenseRows(Partition(*SHAPE, block=None))
    known.append(torch.zeros(len(rows), dtype=torch.int64), rows, values, variances)
    return Problem(PRIOR, known, Noise(7), iteration=5, shape=SHAPE)


def nothing_known() -> Problem:
    return problem(torch.zeros(0, 48, dtype=torch.float64), *torch.zeros(2, 0, dtype=torch.float64))


def flow(noise: Tensor, stop: float) -> Tensor:
    """Where the probability flow ODE takes noise ``(48,)``, then denoised (Song et al. 2021, section 4.3).

    Under ``N(0, C)`` the marginal at noise level ``s`` is ``N(0, C + s^2)``, and the flow keeps the number of standard
    deviations along each eigenvector of ``C``.
    """
    spectrum, vectors = torch.linalg.eigh(PRIOR.covariance(4, 4))
    first, last = 20.0, stop
    end = ((spectrum + last**2) / (spectrum + first**2)).sqrt() * (vectors.T @ (first * noise))
    draw: Tensor = vectors @ (spectrum / (spectrum + last**2) * end)
    return draw


def test_dpm_solver_is_of_second_order() -> None:
    """Its distance from the exact flow falls with the square of the number of steps; that of DDIM does not."""
    unknown = nothing_known()
    exact = flow(unknown.draw(range(1), 0).flatten(), 0.05)

    def error(sampler: Sampler) -> float:
        return float((sampler.sample(unknown, range(1)).flatten() - exact).norm() / exact.norm())

    steps = (16, 32, 64)
    ours = [error(dpm_solver(steps=n, stop=0.05)) for n in steps]
    first_order = [error(DDRM(n, eta=0.0, start=20.0, stop=0.05, spacing="log")) for n in steps]
    orders = [log(a / b, 2) for a, b in pairwise(ours)]
    assert all(1.8 < order < 2.2 for order in orders), orders
    assert all(own < other / 5 for own, other in zip(ours, first_order, strict=True))


def test_dpm_solver_fits_exact_measurements() -> None:
    rows = torch.linalg.qr(random(48, 20, seed=1)).Q.T
    values = random(20, seed=2)
    sample = dpm_solver(steps=5).sample(problem(rows, values, torch.zeros(20, dtype=torch.float64)), range(2, 4))
    torch.testing.assert_close(sample.reshape(2, 48) @ rows.T, values.expand(2, -1))
    assert not torch.equal(sample[0], sample[1])


def test_dpm_solver_weighs_noisy_measurements() -> None:
    """One step, written out with dense matrices: Wiener filter, then the gain of the docstring."""
    rows, values = torch.linalg.qr(random(48, 20, seed=1)).Q.T, random(20, seed=2)
    variances = torch.linspace(0.1, 2, 20, dtype=torch.float64)
    known = problem(rows, values, variances)
    covariance, power = PRIOR.covariance(4, 4), 20.0**2
    noise = known.draw(range(1), 0).flatten()
    clean = covariance @ torch.linalg.solve(covariance + power * torch.eye(48), 20.0 * noise)
    q = power / (1 + power)
    expected = clean + rows.T @ (q / (q + variances) * (values - rows @ clean))
    torch.testing.assert_close(dpm_solver(steps=1).sample(known, range(1)).flatten(), expected)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"stop": -1.0}, "start must be over sampler.stop, and that at least 0, got 20.0 and -1.0"),
        ({"start": 0.01}, "got 0.01 and 0.02"),
        ({"stop": float("nan")}, "got 20.0 and nan"),
    ],
)
def test_dpm_solver_refuses(options: dict[str, float], part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        dpm_solver(**options)


def checkerboard(inner: RowRule) -> RowRule:
    cls: Any = ROWS.get("checkerboard")
    rule = cls(inner)
    assert isinstance(rule, RowRule)
    return rule


@pytest.mark.parametrize("inner", [Local(block=4, per_iteration=3.0, base=1.0), DCT(block=4, per_iteration=3.0)])
def test_checkerboard_parts_the_proposal_of_the_inner_rule(inner: RowRule) -> None:
    rule = checkerboard(inner)
    measurements = rule.start(PRIOR, (3, 12, 20))
    samples = random(4, 3, 12, 20, seed=3)
    whole = inner.propose(Situation(PRIOR, measurements, samples, 1, 3, 0.01, PRIOR))
    white = torch.from_numpy(np.indices((3, 5)).sum(0).ravel() % 2)
    for turn, iteration in enumerate((2, 3)):
        part = rule.propose(Situation(PRIOR, measurements, samples, iteration, 6, 0.01, PRIOR))
        kept = white[whole.block] == turn
        assert 0 < int(kept.sum()) < len(kept)
        assert torch.equal(part.block, whole.block[kept])
        assert torch.equal(part.rows, whole.rows[kept])
        assert torch.equal(part.variance, whole.variance[kept])
        assert sum(part.groups) == len(part.block)
        assert all(part.groups)


def test_checkerboard_asks_for_samples_where_its_inner_rule_does() -> None:
    """Of blocks of random rows: from the first iteration on."""
    rule = checkerboard(Random(per_iteration=1, block=4))
    assert rule.needs_samples(0)
    samples = random(4, *SHAPE, seed=3)
    assert rule.propose(Situation(PRIOR, rule.start(PRIOR, SHAPE), samples, 0, 2, 0.01, PRIOR)).groups
    rule = checkerboard(DCT(block=4))
    assert [rule.needs_samples(iteration) for iteration in range(3)] == [False, True, True]


def test_checkerboard_has_nothing_to_measure_in_white_where_there_is_one_block() -> None:
    rule = checkerboard(DCT(block=4))
    proposal = rule.propose(Situation(PRIOR, rule.start(PRIOR, SHAPE), random(4, *SHAPE, seed=3), 1, 2, 0.01, PRIOR))
    assert (len(proposal.block), proposal.groups) == (0, [])


def test_known_neighbours_make_the_white_blocks_cheaper() -> None:
    """One coefficient in each block of images of the prior, half of them first: only the neighbours can help."""
    prior = Gaussian(correlation=0.98)
    rule = checkerboard(DCT(block=4, per_iteration=1.0, depth=1))
    codec = PSC(prior, DDRM(20), rule, Uniform(0.1), Posterior(), Mean(1), samples=8, iterations=2, batch=8)
    costs = []
    for seed in range(4):
        signal = prior.draw(16, 16, torch.Generator().manual_seed(seed))[0]
        payload, outcome = codec.encode(signal)
        assert outcome.account.segment_symbols == [8, 8]
        costs.append(outcome.account.segment_bits)
        assert torch.equal(codec.decode(payload, (3, 16, 16)).measurements.values, outcome.measurements.values)
    black, white = np.mean(costs, axis=0)
    assert white < 0.8 * black, (black, white)


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    text = re.sub(r"<!--.*?-->", "", DOC.read_text(), flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line)[1:] for block in blocks("sh") for line in block.splitlines()]


BOX = blocks("python")[2]


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configs and plugins of the repository, in which the text has been followed up to the table."""
    for name in ("configs", "plugins"):
        shutil.copytree(name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "median.py").write_text(blocks("python")[0])
    (tmp_path / "mine" / "jpeg_box.py").write_text(BOX)
    photos = tmp_path / "pscx" / "data" / "photos"
    photos.mkdir(parents=True)
    shutil.copy("pscx/data/photos/chelsea.png", photos)
    for text in blocks("yaml"):
        named = re.match(r"# (\S+\.yaml): ", text)
        assert named is not None
        (tmp_path / named[1]).write_text(text)
    return tmp_path


def test_the_text_can_be_followed(
    followed: Path,
    forget_plugins: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every command as it stands, each from nothing, but for smaller pictures and a smaller network."""
    code, todo = blocks("python")[1], commands()
    monkeypatch.chdir(followed)
    prior = ["--model.codec.prior.path", save_prior(followed / "prior", 1)]
    for args in todo:
        forget_plugins()
        small = ["--data.crop", "16", "--data.subset", "1"] if args[0] in ("test", "ablate") else []
        small += prior if "mine/network.yaml" in args else []
        assert main([*args, *small]) == 0, capsys.readouterr().err
        assert "warning" not in capsys.readouterr().err
    others = ["ablate", "components", "compress", "decompress", "decompress", "info", "report"]
    assert sorted(args[0] for args in todo) == [*others, *["test"] * 7]
    for run in ("mean", "median"):
        with (followed / "runs" / run / "summary.csv").open(newline="") as file:
            (line,) = csv.DictReader(file)
        assert float(line["psnr"]) > 15
    original = followed / "runs" / "median" / "reconstructions" / "astronaut.png"
    assert (followed / "back.png").read_bytes() == original.read_bytes()
    assert "| median " in (followed / "runs" / "ablation" / "summary.md").read_text()
    assert "class_path: pscx_plugins.median.Median" in (followed / "runs" / "median" / "config.yaml").read_text()
    forget_plugins()
    scope: dict[str, pscx.Codec] = {}
    exec(code, scope)
    assert vars(psc_of(scope["codec"]).restoration)["samples"] == 3


def test_the_median_of_the_text_is_a_median(followed: Path) -> None:
    pscx.load_plugins(followed / "mine")
    restoration = psc_of(pscx.load_codec("configs/gaussian.yaml", restoration="median")).restoration
    unknown, sampler = nothing_known(), DDRM(3)
    draws = np.median(sampler.sample(unknown, range(5, 10)).numpy(), axis=0)
    for batch in (1, 3, 8):
        draw = partial(ALONE.draws, sampler, unknown, batch=batch)
        np.testing.assert_allclose(restoration.restore(draw, 1).numpy(), draws, atol=1e-12)


def test_the_examples_are_short() -> None:
    files = sorted(Path("plugins").glob("*.py"))
    assert [file.stem for file in files] == ["checkerboard", "dpm_solver"]
    assert all(len(file.read_text().splitlines()) < 60 for file in files)


@pytest.fixture
def box(tmp_path: Path, forget_plugins: Callable[[], None]) -> pscx.Codec:
    """The codec family of the text at quality 60."""
    forget_plugins()
    (tmp_path / "jpeg_box.py").write_text(BOX)
    pscx.load_plugins(tmp_path)
    (tmp_path / "box.yaml").write_text("model: {codec: {name: jpeg_box, quality: 60}}")
    return pscx.load_codec(tmp_path / "box.yaml")


def test_a_family_without_prior_is_short() -> None:
    assert len(BOX.splitlines()) < 80


def test_a_family_without_prior_codes_as_its_library(box: pscx.Codec, cat: Pixels) -> None:
    header, payload = unpack(box.compress(cat))
    file = io.BytesIO()
    Image.fromarray(cat).save(file, "JPEG", quality=60)
    assert payload[:-4] == file.getvalue()
    assert (header.parameter, header.seed, header.fingerprint) == (60, 0, bytes(6))
    np.testing.assert_array_equal(box.decompress(box.compress(cat)), np.array(Image.open(file)))
    done = box.simulate(cat)
    np.testing.assert_array_equal(done.pixels, np.array(Image.open(file)))
    assert (done.account.evaluations, pscx.stream_info(done.data)["parameter_name"]) == (0, "quality")


def test_rate_control_of_a_family_with_whole_parameters(box: pscx.Codec, cat: Pixels) -> None:
    """The stream says the parameter that was used, not the one between two that the search asked for."""
    data = box.compress(cat, max_bytes=3000)
    assert 0.98 * 3000 < len(data) <= 3000
    parameter = unpack(data)[0].parameter
    assert parameter is not None
    assert parameter == round(parameter)
    assert data == box.compress(cat, step=parameter)
    assert abs(psnr(cat, box.decompress(box.compress(cat, psnr=32))) - 32) < 0.3
    with pytest.raises(PscxError, match=r"quality must lie in 1\.\.100, got 300"):
        box.compress(cat, step=300)


def test_a_damaged_stream_of_a_family_without_prior(box: pscx.Codec, cat: Pixels) -> None:
    header, payload = unpack(box.compress(cat))
    for bad in (payload[:900], payload[:-1] + bytes([payload[-1] ^ 1]), b""):
        for partial_ in (False, True):
            with pytest.raises(pscx.StreamError, match="JPEG file in the payload is damaged"):
                box.decompress(pack(header, bad), partial=partial_)
    with pytest.raises(pscx.StreamError, match="its quality is missing"):
        box.decompress(pack(replace(header, parameter=None), payload))
    with pytest.raises(pscx.StreamError, match="does not match"):
        box.decompress(pack(replace(header, height=header.height + 1), payload))


def test_a_replay_of_a_family_without_prior(box: pscx.Codec, cat: Pixels) -> None:
    data = box.compress(cat)
    played = box.replay(data)
    assert (len(played.steps), played.bits, played.in_pixels) == (1, 8 * len(unpack(data)[1]), True)


def test_curves_of_a_family_without_prior(
    box: pscx.Codec, tmp_path: Path, forget_plugins: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its runs at two qualities are one curve; without the plugin one sentence says what is missing."""
    runs = [tmp_path / "a", tmp_path / "b"]
    plugins = ["--plugins", str(tmp_path)]
    for run, quality in zip(runs, ("40", "80"), strict=True):
        args = [
            "--config",
            str(tmp_path / "box.yaml"),
            "--model.codec.quality",
            quality,
            *plugins,
            "--data.root",
            "bundled",
        ]
        assert (
            main(["test", *args, "--data.subset", "1", "--data.crop", "64", "--trainer.default_root_dir", str(run)])
            == 0
        )
    (curve,) = curves_of(read_sources(runs))
    assert len(curve.runs) == 2
    forget_plugins()
    capsys.readouterr()
    with pytest.raises(PscxError, match=r"^a run has the unknown codec .*; if it is in a plugin, name the folder"):
        curves_of(read_sources(runs))
