"""Networks of every kind as one denoiser: their own equations, and the same draws from every sampler."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from tiny import psc_of
from torch import Tensor

import pscx
from pscx.cli.main import main
from pscx.codecs import Account
from pscx.codecs.counted import CountedPrior
from pscx.execution.batching import Task, together
from pscx.priors import DDPM, Gaussian, Prior
from pscx.priors.parameterisations import EDM, FlowMatching, Network, Parameterisation, VariancePreserving
from pscx.priors.schedules import PREDICTIONS, nearest
from pscx.samplers import DDRM, DPS, SAMPLERS, Nested, PiGDM, Problem, Sampler
from pscx.samplers.steps import schedule
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

SHAPE, SIZE = (3, 4, 4), 48
CLOSED = Gaussian(correlation=0.5, color=0.5, deviation=0.5)
GRID = CLOSED.levels
SMALL = ["--data.crop", "16", "--data.subset", "1", "--model.codec.iterations", "2", "--trainer.default_root_dir"]
Target = Callable[[Tensor, float, Callable[[Tensor, float], Tensor]], Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variance_preserving(prediction: str) -> Target:
    """Ho et al. 2020 and Salimans and Ho 2022: of ``x_t = sqrt(a) x0 + sqrt(1 - a) z`` at step ``t``."""

    def target(x_t: Tensor, t: float, clean: Callable[[Tensor, float], Tensor]) -> Tensor:
        a = 1 / (1 + float(GRID[int(t)]) ** 2)
        x0 = clean(x_t / sqrt(a), sqrt((1 - a) / a))
        z = (x_t - sqrt(a) * x0) / sqrt(1 - a)
        return {"epsilon": z, "v_prediction": sqrt(a) * z - sqrt(1 - a) * x0, "sample": x0}[prediction]

    return target


def velocity(x_s: Tensor, time: float, clean: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Lipman et al. 2023: of ``x_s = (1 - s) x0 + s z``, told ``1000 s``."""
    s = time / 1000
    x0 = clean(x_s / (1 - s), s / (1 - s))
    return (x_s - (1 - s) * x0) / s - x0


def edm_target(x: Tensor, c_noise: float, clean: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Karras et al. 2022, Eq. 8 with Table 1: of ``c_in x``, told ``ln(sigma) / 4``; signals of deviation 0.4."""
    sigma, data = exp(4 * c_noise), 0.4
    noisy = x * sqrt(sigma**2 + data**2)
    x0 = clean(noisy, sigma)
    return (x0 - data**2 / (sigma**2 + data**2) * noisy) * sqrt(sigma**2 + data**2) / (sigma * data)


KINDS: dict[str, tuple[Parameterisation, Target]] = {
    **{kind: (VariancePreserving(GRID, kind), variance_preserving(kind)) for kind in PREDICTIONS},
    "flow": (FlowMatching(time_scale=1000.0), velocity),
    "edm": (EDM(sigma_data=0.4), edm_target),
}


class Toy(Gaussian):
    """The closed form behind a network of another kind, whose levels are its own or those of ``grid``."""

    def __init__(self, kind: str, grid: Tensor | None = None) -> None:
        super().__init__(CLOSED.correlation, CLOSED.color, CLOSED.deviation)
        self.parameterisation, self.target = KINDS[kind]
        self.levels = self.parameterisation.levels if grid is None else grid
        self.continuous = self.parameterisation.continuous and grid is None

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        network: Network = lambda scaled, told: self.target(scaled, told, CLOSED.denoise)  # noqa: E731
        return self.parameterisation.denoise(network, x, sigma)


class OnGrid(Gaussian):
    """The closed form at the levels of another prior."""

    def __init__(self, other: Prior) -> None:
        super().__init__(CLOSED.correlation, CLOSED.color, CLOSED.deviation)
        self.levels, self.continuous = other.levels, other.continuous


def problem(prior: Prior) -> Problem:
    """Eight rows of an image were measured, with and without noise; an estimate is held."""
    rows = torch.linalg.qr(random(SIZE, 8, seed=1)).Q.T
    known = DenseRows(Partition(*SHAPE, block=None))
    variances = torch.tensor([0, 1e-4, 1e-3, 0.01, 0.1, 0.3, 1, 3], dtype=torch.float64)
    known.append(torch.zeros(8, dtype=torch.int64), rows, random(8, seed=2), variances)
    return Problem(prior, known, Noise(7), iteration=5, shape=SHAPE, estimate=random(*SHAPE, seed=3))


def of_plugin(steps: int) -> Sampler:
    cls: Any = SAMPLERS.get("dpm_solver")
    sampler = cls(steps=steps)
    assert isinstance(sampler, Sampler)
    return sampler


SAMPLERS_OF_ALL_KINDS: dict[str, Callable[[], Sampler]] = {
    "ddrm": lambda: DDRM(6),
    "ddrm-log": lambda: DDRM(6, 0.5, 20.0, 2.0, 0.03, "log"),
    "dps": lambda: DPS(6, 0.1, start=20.0, stop=0.03),
    "dps-log": lambda: DPS(6, 0.1, False, 0.5, 20.0, 2.0, 0.03, "log"),
    "pigdm": lambda: PiGDM(6, stop=0.03),
    "pigdm-score": lambda: PiGDM(6, 0.5, "score", 20.0, 2.0, 0.03, "log"),
    "nested": lambda: Nested(4, 3),
    "nested-log": lambda: Nested(4, 3, 20.0, 2.0, 0.03, "log"),
    "dpm_solver": lambda: of_plugin(steps=6),
}


@pytest.fixture
def plugins(forget_plugins: Callable[[], None]) -> None:
    pscx.load_plugins("plugins")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("name", list(SAMPLERS_OF_ALL_KINDS))
@pytest.mark.parametrize("kind", ["flow", "edm", "epsilon", "sample"])
def test_a_sampler_does_not_see_what_the_network_predicts(kind: str, name: str) -> None:
    """The draws under a network of any kind are those under a variance-preserving one of v, at the same levels."""
    sampler = SAMPLERS_OF_ALL_KINDS[name]()
    wanted = sampler.sample(problem(Toy("v_prediction")), range(3))
    found = sampler.sample(problem(Toy(kind, GRID)), range(3))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    assert wanted.std() > 0.1


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("name", list(SAMPLERS_OF_ALL_KINDS))
@pytest.mark.parametrize("kind", ["flow", "edm"])
def test_levels_of_the_network_s_own(kind: str, name: str) -> None:
    """Continuous networks over their own grids: the draws are those of the closed form at the same levels."""
    sampler, toy = SAMPLERS_OF_ALL_KINDS[name](), Toy(kind)
    wanted = sampler.sample(problem(OnGrid(toy)), range(3))
    torch.testing.assert_close(sampler.sample(problem(toy), range(3)), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("sigma", GRID[[0, 300, 700, 900]].tolist())
def test_a_network_that_knows_the_image_gives_it(sigma: float, kind: str) -> None:
    """From the training target alone: what it is shown is the mixture that it was trained on."""
    parameterisation, target = KINDS[kind]
    x0, z = random(2, *SHAPE), random(2, *SHAPE, seed=1)

    def network(x: Tensor, told: float) -> Tensor:
        s, edm, a = sigma / (1 + sigma), sqrt(sigma**2 + 0.16), 1 / (1 + sigma**2)
        discrete = sqrt(a), sqrt(1 - a), nearest(GRID, sigma)
        mixtures = {"flow": (1 - s, s, 1000 * s), "edm": (1 / edm, sigma / edm, log(sigma) / 4)}
        signal, noise, wanted = mixtures.get(kind, discrete)
        torch.testing.assert_close(x, signal * x0 + noise * z, rtol=1e-12, atol=1e-12)
        assert told == pytest.approx(wanted, rel=1e-12)
        return target(x, told, lambda noisy, level: x0)

    found = parameterisation.denoise(network, x0 + sigma * z, sigma)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-9)
    single = parameterisation.denoise(lambda x, told: torch.zeros_like(x), (x0 + sigma * z).float(), sigma)
    assert single.dtype == torch.float32


def test_a_discrete_network_is_told_the_nearest_step_of_a_level_between() -> None:
    """What it is shown and what is made of its answer are those of the level itself."""
    told = []

    def network(x: Tensor, t: float) -> Tensor:
        told.append(t)
        return torch.zeros_like(x)

    sigma = 0.4 * float(GRID[500]) + 0.6 * float(GRID[501])
    x = random(1, *SHAPE)
    found = VariancePreserving(GRID, "v_prediction").denoise(network, x, sigma)
    torch.testing.assert_close(found, x / (1 + sigma**2), rtol=1e-14, atol=0)
    VariancePreserving(GRID, "sample").denoise(network, x, 1e9)
    VariancePreserving(GRID, "sample").denoise(network, x, 1e-9)
    assert told == [501, 999, 0]


def test_grids() -> None:
    """Flow matching: even times. EDM: Eq. 5 from end to end."""
    levels = FlowMatching(times=4).levels
    torch.testing.assert_close(levels, torch.tensor([1 / 3, 1, 3], dtype=torch.float64))
    levels = EDM(sigma_min=0.01, sigma_max=100.0, rho=2.0, count=3).levels
    torch.testing.assert_close(levels, torch.tensor([0.01, 5.05**2, 100], dtype=torch.float64))
    for prior in (CLOSED, DDPM(), DDPM(exact=True), Toy("flow"), Toy("edm"), CountedPrior(Toy("flow"), Account())):
        assert prior.levels.dtype == torch.float64
        assert bool((prior.levels.diff() > 0).all())
        assert float(prior.levels[0]) > 0
        assert prior.continuous == (not isinstance(prior, DDPM))


@pytest.mark.parametrize("kind", ["flow", "edm"])
def test_a_schedule_of_a_continuous_model_has_the_levels_that_are_asked_for(kind: str) -> None:
    levels = schedule(Toy(kind), 10.0, 0.1, 5, "log")
    assert levels == pytest.approx([10, 10**0.5, 1, 10**-0.5, 0.1], rel=1e-12)
    even = schedule(Toy(kind), 10.0, 0.1, 4, "linear")
    places = [nearest(Toy(kind).levels, level) for level in even]
    assert max(a - b for a, b in pairwise(places)) - min(a - b for a, b in pairwise(places)) <= 1


def test_calls_of_one_level_are_made_together() -> None:
    """And those of two levels are not, however near they are."""

    class Same(Toy):
        exact = True
        sizes: tuple[int, ...] = ()

        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            self.sizes += (len(x),)
            return super().denoise(x, sigma)

    def total(prior: Prior, sigma: float) -> float:
        return float(prior.denoise(random(1, *SHAPE), sigma).sum())

    for other, sizes in ((0.5, (2,)), (0.5 + 1e-12, (1, 1))):
        prior = Same("flow")
        counted = CountedPrior(prior, Account())
        tasks = [Task(partial(total, counted, level)) for level in (0.5, other)]
        assert len(list(together(tasks, 2))) == 2
        assert prior.sizes == sizes


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: VariancePreserving(GRID, "flow"), "must be one of epsilon, v_prediction, sample, got 'flow'"),
        (lambda: FlowMatching(times=2), "times must be at least 3, got 2"),
        (lambda: FlowMatching(time_scale=0.0), "time_scale must be over 0, got 0.0"),
        (lambda: EDM(sigma_data=0.0), "sigma_data must be over 0, got 0.0"),
        (lambda: EDM(sigma_min=-1.0), "sigma_min must be over 0, got -1.0"),
        (lambda: EDM(rho=0.0), "rho must be over 0, got 0.0"),
        (lambda: EDM(sigma_max=0.001), r"sigma_max must be over sigma_min \(0.002\), got 0.001"),
        (lambda: EDM(count=1), "count must be at least 2, got 1"),
    ],
)
def test_parameterisations_refuse(make: Callable[[], Parameterisation], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_flow_prior_of_the_text(tmp_path: Path, forget_plugins: Callable[[], None]) -> None:
    """The file of docs/priors.md as it stands, over a tiny network: its equation, and a stream there and back."""
    from diffusers import UNet2DModel
    from test_plugin_examples import python_blocks

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet2DModel(
            **{"in_channels": 3, "out_channels": 3, "block_out_channels": (8, 8), "norm_num_groups": 4},
            **{"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1},
        ).eval()
    network.save_pretrained(tmp_path / "network")
    (tmp_path / "mine").mkdir()
    (code,) = (block for block in python_blocks(Path("docs/priors.md")) if "pixel_flow" in block)
    (tmp_path / "mine" / "pixel_flow.py").write_text(code)
    pscx.load_plugins(tmp_path / "mine")
    options = {"name": "pixel_flow", "path": str(tmp_path / "network")}
    codec = pscx.load_codec("configs/gaussian.yaml", prior=options, rows={"name": "dct", "block": 8})
    prior, x, sigma = psc_of(codec).prior, random(1, 3, 16, 16), 0.7
    s = sigma / (1 + sigma)
    with torch.no_grad():
        x_s = (x / (1 + sigma)).float()
        wanted = x_s - s * network(x_s, 1000 * s).sample
        torch.testing.assert_close(prior.denoise(x, sigma).float(), wanted, rtol=1e-5, atol=1e-5)
    args = ["--plugins", str(tmp_path / "mine"), "--model.codec.prior", json.dumps(options)]
    assert main(["test", "--config", "configs/gaussian.yaml", *args, *SMALL, str(tmp_path / "runs")]) == 0
    done = codec.simulate(pscx.read_image("pscx/data/photos/coffee.png")[:16, :24])
    again = pscx.Decompressor(prior_path=options["path"]).decompress(done.data)
    assert (again == done.pixels).all()
