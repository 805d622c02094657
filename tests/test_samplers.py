from __future__ import annotations

import itertools
from dataclasses import replace

import oracles
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

from pscx.measurements import DenseRows, Partition
from pscx.noise import Noise
from pscx.priors import Gaussian
from pscx.priors.schedules import noise_levels
from pscx.samplers import DDRM, Problem, Sampler
from pscx.samplers.steps import timesteps

SHAPE = (3, 4, 4)
SIZE = 48
PRIOR = Gaussian(correlation=0.5, color=0.5, deviation=0.5)
COVARIANCE = PRIOR.covariance(4, 4)
ALPHAS = PRIOR.alphas_cumprod
KLT = torch.linalg.eigh(COVARIANCE).eigenvectors.T.flip(0)


class UnitNoise(Noise):
    """No noise for sample 0; for sample ``1 + i`` a single 1 as the ``i``-th of all numbers that a sampler draws."""

    def normal(self, shape: tuple[int, ...], *, iteration: int, sample: int, step: int) -> Tensor:
        vector = torch.zeros(SIZE, dtype=torch.float64)
        if sample and (sample - 1) // SIZE == step:
            vector[(sample - 1) % SIZE] = 1
        return vector.reshape(shape)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed_rows(count: int) -> Tensor:
    """Orthonormal rows ``(count, 48)`` in random directions."""
    return torch.linalg.qr(random(SIZE, count, seed=1)).Q.T


def measured(rows: Tensor, variances: Tensor) -> Problem:
    """What is known of one image of the prior after these rows were measured, under seed 7."""
    image = PRIOR.draw(4, 4, torch.Generator().manual_seed(2))
    values = rows @ image.flatten() + variances.sqrt() * random(len(rows), seed=3)
    measurements = DenseRows(Partition(*SHAPE, block=None))
    measurements.append(torch.zeros(len(rows), dtype=torch.int64), rows, values, variances)
    return Problem(PRIOR, measurements, Noise(7), iteration=5, shape=SHAPE)


def dense(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(r, 48)``, values and noise variances ``(r,)`` of a problem over one block."""
    known = problem.measurements
    return known.rows[0], known.values[0], known.variances[0]


def gains(levels: list[float], variances: Tensor, noise_aware: bool) -> list[Tensor]:
    """Weights of the measurements where the denoiser faces noise of these levels."""
    trust = [level**2 / (1 + level**2) for level in levels]
    return [q / (q + variances) if noise_aware else torch.ones_like(variances) for q in trust]


def recursion(
    problem: Problem, steps: int, eta: float, noise_aware: bool, spacing: str, start: float | None, stop: float
) -> oracles.Normal:
    """Distribution of the sampler's output; the start weighs measurements as at noise level 1."""
    rows, values, variances = dense(problem)
    times = oracles.visited(ALPHAS, start, stop, steps, spacing)
    levels = [1.0, *(float(((1 - ALPHAS[t]) / ALPHAS[t]).sqrt()) for t in times)]
    origin = None if problem.estimate is None else problem.estimate.flatten()
    weights = gains(levels, variances, noise_aware)
    return oracles.sampler(COVARIANCE, ALPHAS, times, eta, rows, values, weights, origin)


def probed(sampler: Sampler, problem: Problem, draws: int) -> oracles.Normal:
    """Exact distribution of an affine sampler's output, from its answers to unit noise; ``draws`` a sample."""
    still = replace(problem, noise=UnitNoise(0))
    answers = sampler.sample(still, range(1 + draws * SIZE)).flatten(1)
    effects = answers[1:] - answers[0]
    return oracles.Normal(answers[0], effects.T @ effects)


def exact_posterior(problem: Problem) -> oracles.Normal:
    return oracles.posterior(COVARIANCE, *dense(problem))


NOISY = torch.tensor([0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0], dtype=torch.float64)
SETTINGS = [
    (eta, aware, spacing, start, stop)
    for eta, aware, spacing in itertools.product((0.0, 0.5, 1.0), (True, False), ("linear", "log"))
    for start, stop in ((None, 0.0), (20.0, 0.05))
]


@pytest.mark.parametrize(("eta", "aware", "spacing", "start", "stop"), SETTINGS)
def test_ddrm_is_its_recursion(eta: float, aware: bool, spacing: str, start: float | None, stop: float) -> None:
    """The map from noise to output is affine; all of its coefficients agree with the dense recursion."""
    problem = measured(mixed_rows(8), NOISY)
    found = probed(DDRM(6, eta, start=start, stop=stop, spacing=spacing, noise_aware=aware), problem, draws=6)
    wanted = recursion(problem, 6, eta, aware, spacing, start, stop)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("aware", [True, False])
def test_ddrm_warm_start_is_its_recursion(aware: bool) -> None:
    """Where an estimate is held, the first step begins at the warm level around the projected estimate."""
    problem = replace(measured(mixed_rows(8), NOISY), estimate=random(*SHAPE, seed=9))
    sampler = DDRM(5, 0.5, start=50.0, warm_start=0.7, stop=0.02, spacing="log", noise_aware=aware)
    found = probed(sampler, problem, draws=5)
    wanted = recursion(problem, 5, 0.5, aware, "log", 0.7, 0.02)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=0, atol=1e-10)
    cold = replace(problem, estimate=None)
    wanted = recursion(cold, 5, 0.5, aware, "log", 50.0, 0.02)
    torch.testing.assert_close(probed(sampler, cold, draws=5).mean, wanted.mean, rtol=0, atol=1e-10)


def test_ddrm_without_warm_start_ignores_the_estimate() -> None:
    problem = measured(mixed_rows(8), NOISY)
    held = replace(problem, estimate=random(*SHAPE, seed=9))
    assert torch.equal(DDRM(4).sample(held, range(3)), DDRM(4).sample(problem, range(3)))


@pytest.mark.parametrize(
    ("eta", "aware", "spacing", "start", "stop"),
    [(0.0, True, "log", 20.0, 0.05), (0.5, False, "linear", None, 0.0), (1.0, True, "linear", None, 0.0)],
)
def test_ddrm_draws_follow_the_recursion(
    eta: float, aware: bool, spacing: str, start: float | None, stop: float
) -> None:
    """4000 draws: mean and variance of 12 random projections within 4 standard errors of the recursion's."""
    problem, draws = measured(mixed_rows(8), NOISY), 4000
    sampler = DDRM(5, eta, start=start, stop=stop, spacing=spacing, noise_aware=aware)
    samples = torch.cat([sampler.sample(problem, range(i, i + 500)) for i in range(0, draws, 500)]).flatten(1)
    wanted = recursion(problem, 5, eta, aware, spacing, start, stop)
    directions = random(SIZE, 12, seed=4)
    variance = (directions * (wanted.covariance @ directions)).sum(0)
    seen = samples @ directions
    assert ((seen.mean(0) - wanted.mean @ directions).abs() < 4 * (variance / draws).sqrt()).all()
    assert ((seen.var(0) - variance).abs() < 4 * variance * (2 / draws) ** 0.5).all()


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_deterministic_steps_converge_to_the_posterior(spacing: str) -> None:
    """Noiseless rows of the KLT, eta 0: first-order convergence, a quarter of the distance for four times the steps.

    Measured and unmeasured parts are then independent, and the steps are the probability flow of the unmeasured part.
    """
    problem = measured(KLT[:10], torch.zeros(10, dtype=torch.float64))
    target = exact_posterior(problem)
    samplers = [DDRM(steps, 0.0, spacing=spacing) for steps in (10, 40, 160, 640)]
    distances = [oracles.wasserstein(probed(sampler, problem, draws=1), target) for sampler in samplers]
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(distances))
    assert distances[-1] < 0.02 * float(target.covariance.trace().sqrt())


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_some_fresh_noise_approaches_the_posterior_of_mixed_rows(spacing: str) -> None:
    """Noiseless rows in random directions: with eta 0.5 and 1 the distance falls with the steps, with 0 it stalls.

    With eta 0 the noise along the measured rows never changes, and the denoiser carries it to the other directions.
    """
    problem = measured(mixed_rows(10), torch.zeros(10, dtype=torch.float64))
    target = exact_posterior(problem)

    def distances(eta: float) -> list[float]:
        runs = [recursion(problem, steps, eta, True, spacing, None, 0.0) for steps in (10, 40, 160)]
        return [oracles.wasserstein(run, target) for run in runs]

    for eta, ratio in ((0.5, 0.8), (1.0, 0.95)):
        first, second, third = distances(eta)
        assert second < ratio * first
        assert third < ratio * second
    _, second, third = distances(0.0)
    assert third > second


@pytest.mark.parametrize("rows", [KLT[:10], mixed_rows(10)], ids=["klt", "mixed"])
def test_all_fresh_noise_is_underdispersed(rows: Tensor) -> None:
    """With eta 1, the paper's, the samples' total variance stays at about half of the posterior's, at any steps."""
    problem = measured(rows, torch.zeros(10, dtype=torch.float64))
    target = exact_posterior(problem).covariance.trace()
    found = probed(DDRM(20, 1.0), problem, draws=20).covariance.trace()
    assert found < 0.6 * target
    assert recursion(problem, 320, 1.0, True, "linear", None, 0.0).covariance.trace() < 0.6 * target


def test_noiseless_measurements_hold_in_every_draw() -> None:
    problem = measured(mixed_rows(8), torch.zeros(8, dtype=torch.float64))
    samples = DDRM(4, 0.5).sample(problem, range(3))
    rows, values, _ = dense(problem)
    torch.testing.assert_close(samples.flatten(1) @ rows.T, values.expand(3, 8), rtol=0, atol=1e-12)


def test_rows_in_blocks_are_dense_rows_with_zeros() -> None:
    """Measurements in 2x2 blocks and the same rows over the whole signal give the same draws."""
    block = torch.tensor([2, 0, 2, 1])
    local = torch.linalg.qr(random(4, 12, 4, seed=5)).Q.mT[block, torch.arange(4)]
    local[2] -= (local[2] @ local[0]) * local[0]
    local[2] /= local[2].norm()
    values, variances = random(4, seed=6), torch.tensor([0.0, 0.1, 0.01, 1.0], dtype=torch.float64)
    partition = Partition(*SHAPE, block=2)
    blockwise = DenseRows(partition)
    blockwise.append(block, local, values, variances)
    spread = torch.zeros(4, partition.count, partition.dim, dtype=torch.float64)
    spread[torch.arange(4), block] = local
    whole = DenseRows(Partition(*SHAPE, block=None))
    whole.append(torch.zeros(4, dtype=torch.int64), partition.join(spread).flatten(1), values, variances)
    one, two = (
        DDRM(5, 0.3).sample(Problem(PRIOR, known, Noise(1), 0, SHAPE), range(2)) for known in (blockwise, whole)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_a_draw_depends_on_its_address_alone() -> None:
    problem = measured(mixed_rows(8), NOISY)
    together = DDRM(4).sample(problem, range(2, 6))
    alone = torch.cat([DDRM(4).sample(problem, range(i, i + 1)) for i in range(2, 6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.dtype == torch.float64
    assert together.shape == (4, *SHAPE)
    for other in (replace(problem, iteration=6), replace(problem, noise=Noise(8))):
        assert not torch.isclose(DDRM(4).sample(other, range(2, 6)), together).all()
    assert torch.pdist(together.flatten(1)).min() > 0.1


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_timesteps(steps: int, spacing: str) -> None:
    levels = noise_levels(ALPHAS)
    times = timesteps(levels, 10.0, 0.1, steps, spacing)
    assert times == oracles.visited(ALPHAS, 10.0, 0.1, steps, spacing)
    assert len(times) == steps
    assert all(later < earlier for earlier, later in itertools.pairwise(times))
    assert float(levels[times[0]]) == pytest.approx(10.0, rel=0.02)
    assert float(levels[times[-1]]) == pytest.approx(0.1, rel=0.02)


def test_timesteps_at_the_schedule_s_ends() -> None:
    levels = noise_levels(ALPHAS)
    assert timesteps(levels, None, 0.0, 3, "linear") == [999, 500, 0]
    assert timesteps(levels, 1e9, 0.0, 2, "log") == [999, 0]
    assert timesteps(levels, None, 0.0, 1, "linear") == [999]
    assert timesteps(levels, None, 0.0, 5000, "linear") == list(range(999, -1, -1))
    assert timesteps(levels, 0.001, 0.0005, 5, "log") == [0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "sampler.steps must be at least 1, got 0"),
        ({"eta": 1.5}, r"sampler.eta must lie in \[0, 1\], got 1.5"),
        ({"eta": -0.1}, r"sampler.eta must lie in \[0, 1\], got -0.1"),
        ({"spacing": "cubic"}, "sampler.spacing must be one of linear, log, got 'cubic'"),
        ({"start": 0.1, "stop": 0.2}, r"sampler.start must be over sampler.stop \(0.2\), got 0.1"),
        ({"warm_start": 0.2, "stop": 0.2}, r"sampler.warm_start must be over sampler.stop \(0.2\), got 0.2"),
    ],
)
def test_ddrm_refuses(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DDRM(**options)  # type: ignore[arg-type]
