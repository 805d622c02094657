from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import oracles
import pytest
import recursions
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from recursions import Case
from tiny import save_prior, tiny_network
from torch import Tensor

from pscx.codecs import Account
from pscx.codecs.counted import CountedPrior
from pscx.errors import PscxError
from pscx.exact import ExactConvolution
from pscx.priors import DDPM, Gaussian
from pscx.priors.denoiser import PixelDenoiser
from pscx.samplers import DDRM, DPS, Nested, PiGDM, Problem, Sampler
from pscx.samplers.dpm_solver import dpm_solver
from pscx.samplers.pullback import denoise_with_pullback
from pscx.samplers.steps import schedule
from pscx.signal.measurements import DenseRows
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition

SHAPE = (3, 4, 4)
SIZE = 48
PRIOR = Gaussian(correlation=0.5, color=0.5, deviation=0.5)
COVARIANCE = PRIOR.covariance(4, 4)
GRID = PRIOR.levels
WHITE = Gaussian(correlation=0.0, color=0.0, deviation=1.0)
KLT = torch.linalg.eigh(COVARIANCE).eigenvectors.T.flip(0)


class UnitNoise(Noise):
    """No noise for sample 0; for sample ``1 + i`` a single 1 as the ``i``-th of all numbers that a sampler draws."""

    def draw(self, out: Tensor, *, iteration: int, sample: int, step: int) -> None:
        out.zero_()
        if sample and (sample - 1) // SIZE == step:
            out.view(-1)[(sample - 1) % SIZE] = 1


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed_rows(count: int) -> Tensor:
    """Orthonormal rows ``(count, 48)`` in random directions."""
    rows: Tensor = torch.linalg.qr(random(SIZE, count, seed=1)).Q.T
    return rows


def measured(rows: Tensor, variances: Tensor, prior: Gaussian = PRIOR) -> Problem:
    """What is known of one image of the prior after these rows were measured, under seed 7."""
    image = prior.draw(4, 4, torch.Generator().manual_seed(2))
    values = rows @ image.flatten() + variances.sqrt() * random(len(rows), seed=3)
    measurements = DenseRows(Partition(*SHAPE, block=None))
    measurements.append(torch.zeros(len(rows), dtype=torch.int64), rows, values, variances)
    return Problem(prior, measurements, Noise(7), iteration=5, shape=SHAPE)


def random_problem(seed: int) -> Problem:
    """A random prior, 4 to 12 random rows, noise variances from 1e-4 to 1, one of them 0, and an estimate."""
    correlation, color, deviation, share, *_ = (random(9, seed=seed).abs() / 4).clamp_max(0.9).tolist()
    count = 4 + round(9 * share)
    rows = torch.linalg.qr(random(SIZE, count, seed=seed)).Q.T
    variances = 10 ** (-4 * torch.linspace(0, 1, count, dtype=torch.float64))
    variances[2] = 0
    problem = measured(rows, variances, Gaussian(correlation, color, 0.3 + deviation))
    return replace(problem, estimate=random(*SHAPE, seed=seed + 50))


def dense(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(r, 48)``, values and noise variances ``(r,)`` of a problem over one block."""
    known = problem.measurements
    assert isinstance(known, DenseRows)
    return known.rows[0], known.values[0], known.variances[0]


def case_of(problem: Problem, warm: bool = False) -> Case:
    """A problem over one block, for the recursions; ``warm`` begins at its estimate."""
    assert isinstance(problem.prior, Gaussian)
    origin = problem.estimate.flatten() if warm and problem.estimate is not None else None
    return Case(problem.prior.covariance(4, 4), GRID, *dense(problem), origin)


def visited(start: float | None, stop: float, steps: int, spacing: str) -> list[float]:
    return oracles.visited(GRID, start, stop, steps, spacing)


def nested_recursion(problem: Problem, steps: int, spacing: str, mean_gain: bool = False) -> oracles.Normal:
    """Of ``Nested(steps, 16, spacing=spacing)``."""
    levels = visited(None, 0.0, steps, spacing)
    return recursions.nested(case_of(problem), levels, 16, spacing, mean_gain=mean_gain)


def pigdm_recursion(problem: Problem, steps: int, eta: float, weighting: str) -> oracles.Normal:
    """Of ``PiGDM(steps, eta, weighting)``."""
    return recursions.pigdm(case_of(problem), visited(None, 0.0, steps, "linear"), eta, weighting)


LOG = visited(20.0, 0.02, 6, "log")
WARM = visited(3.0, 0.02, 6, "linear")
SHORT_LOG: dict[str, Any] = {"start": 20.0, "stop": 0.02, "spacing": "log"}
LINEAR: dict[str, tuple[Sampler, Callable[[Problem], oracles.Normal]]] = {
    "ddrm": (DDRM(6, 0.7, **SHORT_LOG), lambda p: recursions.ddrm(case_of(p), LOG, 0.7)),
    "dps": (
        DPS(6, 0.2, False, 1.0, warm_start=3.0, stop=0.02),
        lambda p: recursions.dps(case_of(p, warm=True), WARM, 0.2, 1.0),
    ),
    "dps-ddim": (
        DPS(6, 0.1, False, 0.3, noise_aware=False, **SHORT_LOG),
        lambda p: recursions.dps(case_of(p), LOG, 0.1, 0.3, False),
    ),
    "pigdm": (
        PiGDM(6, 1.0, "paper", warm_start=3.0, stop=0.02),
        lambda p: recursions.pigdm(case_of(p, warm=True), WARM, 1.0, "paper"),
    ),
    "pigdm-ddim": (PiGDM(6, 0.0, "paper", **SHORT_LOG), lambda p: recursions.pigdm(case_of(p), LOG, 0.0, "paper")),
    "pigdm-score": (PiGDM(6, 0.6, "score", **SHORT_LOG), lambda p: recursions.pigdm(case_of(p), LOG, 0.6, "score")),
    "nested": (
        Nested(6, 5, warm_start=3.0, stop=0.02),
        lambda p: recursions.nested(case_of(p, warm=True), WARM, 5, "linear"),
    ),
    "nested-unaware": (
        Nested(6, 4, noise_aware=False, **SHORT_LOG),
        lambda p: recursions.nested(case_of(p), LOG, 4, "log", False),
    ),
    "nested-one": (Nested(6, 1, **SHORT_LOG), lambda p: recursions.nested(case_of(p), LOG, 1, "log")),
}
SHORT: dict[str, Sampler] = {"ddrm": DDRM(4), "dps": DPS(4, 0.1), "pigdm": PiGDM(4), "nested": Nested(3, 2)}


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
    wanted = recursions.ddrm(case_of(problem), visited(start, stop, 6, spacing), eta, aware)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("aware", [True, False])
def test_ddrm_warm_start_is_its_recursion(aware: bool) -> None:
    """Where an estimate is held, the first step begins at the warm level around the projected estimate."""
    problem = replace(measured(mixed_rows(8), NOISY), estimate=random(*SHAPE, seed=9))
    sampler = DDRM(5, 0.5, start=50.0, warm_start=0.7, stop=0.02, spacing="log", noise_aware=aware)
    found = probed(sampler, problem, draws=5)
    wanted = recursions.ddrm(case_of(problem, warm=True), visited(0.7, 0.02, 5, "log"), 0.5, aware)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=0, atol=1e-10)
    cold = replace(problem, estimate=None)
    wanted = recursions.ddrm(case_of(cold), visited(50.0, 0.02, 5, "log"), 0.5, aware)
    torch.testing.assert_close(probed(sampler, cold, draws=5).mean, wanted.mean, rtol=0, atol=1e-10)


def test_ddrm_without_warm_start_ignores_the_estimate() -> None:
    problem = measured(mixed_rows(8), NOISY)
    held = replace(problem, estimate=random(*SHAPE, seed=9))
    assert torch.equal(DDRM(4).sample(held, range(3)), DDRM(4).sample(problem, range(3)))


def assert_draws(samples: Tensor, wanted: oracles.Normal) -> None:
    """Mean and variance of 12 random projections of ``(draws, 48)`` within 4 standard errors of what is wanted."""
    directions = random(SIZE, 12, seed=4)
    variance = (directions * (wanted.covariance @ directions)).sum(0)
    seen, draws = samples @ directions, len(samples)
    assert ((seen.mean(0) - wanted.mean @ directions).abs() < 4 * (variance / draws).sqrt()).all()
    assert ((seen.var(0) - variance).abs() < 4 * variance * (2 / draws) ** 0.5).all()


def many(sampler: Sampler, problem: Problem, draws: int) -> Tensor:
    """Draws ``(draws, 48)`` in batches of 500."""
    return torch.cat([sampler.sample(problem, range(i, i + 500)) for i in range(0, draws, 500)]).flatten(1)


@pytest.mark.parametrize(
    ("eta", "aware", "spacing", "start", "stop"),
    [(0.0, True, "log", 20.0, 0.05), (0.5, False, "linear", None, 0.0), (1.0, True, "linear", None, 0.0)],
)
def test_ddrm_draws_follow_the_recursion(
    eta: float, aware: bool, spacing: str, start: float | None, stop: float
) -> None:
    problem = measured(mixed_rows(8), NOISY)
    sampler = DDRM(5, eta, start=start, stop=stop, spacing=spacing, noise_aware=aware)
    wanted = recursions.ddrm(case_of(problem), visited(start, stop, 5, spacing), eta, aware)
    assert_draws(many(sampler, problem, 4000), wanted)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", list(LINEAR))
def test_every_linear_sampler_is_its_recursion(name: str, seed: int) -> None:
    """Random priors and rows: the map from noise to output agrees with the dense recursion in all coefficients."""
    sampler, recursion_of = LINEAR[name]
    problem = random_problem(seed)
    found, wanted = probed(sampler, problem, draws=7), recursion_of(problem)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", list(LINEAR))
def test_draws_of_every_linear_sampler_follow_its_recursion(name: str) -> None:
    sampler, recursion_of = LINEAR[name]
    problem = random_problem(3)
    assert_draws(many(sampler, problem, 1000), recursion_of(problem))


def dps_algorithm_1(problem: Problem, index: int, levels: list[float], zeta: float, aware: bool) -> Tensor:
    """DPS as printed, with DDPM's own coefficients and the gradient in closed form; one draw, ``(48,)``."""
    rows, values, variances = dense(problem)
    noise = [problem.draw(range(index, index + 1), step).flatten() for step in range(len(levels) + 1)]
    share = [1 / (1 + level**2) for level in [*levels, 0.0]]
    first, *weights = ((1 - a) / (1 - a + variances * aware) for a in (0.5, *share[:-1]))
    x: Tensor = share[0] ** 0.5 * rows.T @ (first * values) + (1 - share[0]) ** 0.5 * noise[0]
    for i in range(len(levels)):
        bar, bar_next = share[i], share[i + 1]
        alpha = bar / bar_next
        beta = 1 - alpha
        filter_ = oracles.wiener(COVARIANCE, torch.tensor(bar, dtype=torch.float64))
        clean = filter_ @ x
        gradient = -2 * filter_.T @ rows.T @ (weights[i] * (values - rows @ clean))
        kept, taken = alpha**0.5 * (1 - bar_next) / (1 - bar), bar_next**0.5 * beta / (1 - bar)
        spread = ((1 - bar_next) / (1 - bar) * beta) ** 0.5
        norm = float((values - rows @ clean).square().sum()) ** 0.5
        x = kept * x + taken * clean + spread * noise[i + 1] - zeta / norm * gradient
    return x


@pytest.mark.parametrize("aware", [True, False])
def test_normalized_dps_is_algorithm_1(aware: bool) -> None:
    """Not linear, so draw by draw: an independent transcription with the same noise."""
    problem = measured(mixed_rows(8), NOISY)
    levels = visited(20.0, 0.05, 7, "log")
    found = DPS(7, 0.3, start=20.0, stop=0.05, spacing="log", noise_aware=aware).sample(problem, range(5)).flatten(1)
    wanted = torch.stack([dps_algorithm_1(problem, i, levels, 0.3, aware) for i in range(5)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_nothing_measured_is_ancestral_sampling() -> None:
    """DPS and PiGDM without measurements: DDPM's own chain."""
    problem = Problem(PRIOR, DenseRows(Partition(*SHAPE, block=None)), Noise(7), iteration=5, shape=SHAPE)
    nothing = torch.zeros(0, SIZE, dtype=torch.float64), *torch.zeros(2, 0, dtype=torch.float64)
    free = recursions.dps(Case(COVARIANCE, GRID, *nothing), visited(None, 0.0, 4, "linear"), 1.0, 1.0)
    for sampler in (DPS(4), PiGDM(4)):
        found = probed(sampler, problem, draws=5)
        torch.testing.assert_close(found.mean, free.mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.covariance, free.covariance, rtol=0, atol=1e-10)


def test_normalized_dps_leaves_an_error_of_exactly_zero() -> None:
    """No noise and values of zero: the state is zero, so is the error, and it has no direction to be scaled."""
    problem = replace(measured(mixed_rows(8), NOISY), noise=UnitNoise(0))
    problem.measurements.values.zero_()
    assert torch.equal(DPS(4).sample(problem, range(1)), torch.zeros(1, *SHAPE, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers gives numpy a tensor
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_dpm_solver_is_that_of_diffusers(steps: int) -> None:
    """The scheduler of diffusers, which keeps float32, over the same steps."""
    times = oracles.visited_places(GRID, 5.0, 0.02, steps, "log")
    levels = GRID[times].tolist()
    start = levels[0] * random(2, *SHAPE, seed=8)
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(timesteps=times)
    x = start.float() / (1 + levels[0] ** 2) ** 0.5
    for t, sigma in zip(scheduler.timesteps, levels, strict=True):
        x = scheduler.step(PRIOR.denoise(x * (1 + sigma**2) ** 0.5, sigma), t, x).prev_sample
    torch.testing.assert_close(dpm_solver(PRIOR, start, levels), x.double(), rtol=0, atol=2e-5)


def test_dpm_solver_over_levels_that_hardly_differ() -> None:
    """A logarithm that does not change in 20 bits is a step of no length, and changes nothing."""
    start = random(2, *SHAPE, seed=8)
    near = dpm_solver(PRIOR, start, [2.0, 2.0 * (1 - 1e-9), 2.0 * (1 - 2e-9), 0.5, 0.1])
    torch.testing.assert_close(near, dpm_solver(PRIOR, start, [2.0, 0.5, 0.1]), rtol=0, atol=1e-6)


def test_dpm_solver_is_of_second_order() -> None:
    """On a normal the flow is closed form, ``x_0 = C^(1/2) (C + s^2 I)^(-1/2) x``: steps doubled, error / 4."""
    start = random(2, *SHAPE, seed=8)
    flow = oracles.root(COVARIANCE) @ torch.linalg.inv(oracles.root(COVARIANCE + 3.0**2 * torch.eye(SIZE)))
    wanted = (start.flatten(1) @ flow.T).reshape(start.shape)
    runs = [visited(3.0, 0.0, steps, "log") for steps in (10, 20, 40)]
    errors = [float((dpm_solver(PRIOR, start, levels) - wanted).norm()) for levels in runs]
    assert all(later < 0.35 * earlier for earlier, later in itertools.pairwise(errors))


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
        schedules = (visited(None, 0.0, steps, spacing) for steps in (10, 40, 160))
        runs = [recursions.ddrm(case_of(problem), levels, eta) for levels in schedules]
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
    many_steps = recursions.ddrm(case_of(problem), visited(None, 0.0, 320, "linear"), 1.0)
    assert many_steps.covariance.trace() < 0.6 * target


@pytest.mark.parametrize("eta", [0.5, 0.85, 1.0])
def test_share_of_fresh_noise_bounds_the_variance(eta: float) -> None:
    """DDRM at a constant eta is Langevin dynamics at ``(1 + sqrt(1 - eta^2)) / 2`` of the posterior's variance.

    It renews ``eta^2`` of the noise in a step but walks ``1 - sqrt(1 - eta^2)`` of the way to the denoiser's mean; the
    two would have to be in the ratio 2 to 1.
    """
    problem = measured(mixed_rows(10), torch.zeros(10, dtype=torch.float64), WHITE)
    target = oracles.posterior(WHITE.covariance(4, 4), *dense(problem)).covariance.trace()
    found = recursions.ddrm(case_of(problem), visited(None, 0.0, 700, "linear"), eta).covariance.trace()
    assert float(found / target) == pytest.approx((1 + (1 - eta**2) ** 0.5) / 2, abs=0.02)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_pigdm_by_the_score_converges_on_white_signals(eta: float) -> None:
    """Variance 1, no correlation: ``q`` is then the denoiser's own variance, and any noisy rows are exact."""
    problem = measured(mixed_rows(8), NOISY, WHITE)
    target = oracles.posterior(WHITE.covariance(4, 4), *dense(problem))
    runs = [pigdm_recursion(problem, steps, eta, "score") for steps in (10, 40, 160)]
    distances = [oracles.wasserstein(run, target) for run in runs]
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(distances))
    assert distances[-1] < 0.02 * float(target.covariance.trace().sqrt())


def test_pigdm_by_the_paper_s_weights_does_not_converge() -> None:
    """More steps guide more: on the same white signals noisy rows end up trusted too much, by all step counts."""
    problem = measured(mixed_rows(8), NOISY, WHITE)
    target = oracles.posterior(WHITE.covariance(4, 4), *dense(problem))

    def mean_error(steps: int) -> float:
        run = pigdm_recursion(problem, steps, 1.0, "paper")
        return float((run.mean - target.mean).norm() / target.covariance.trace().sqrt())

    assert mean_error(640) > mean_error(160) > 0.1


@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("variances", [torch.zeros(8, dtype=torch.float64), "noisy"], ids=["exact", "noisy"])
def test_nested_converges_to_the_posterior(variances: Tensor | str, spacing: str) -> None:
    """Rows in random directions, exact and noisy: the distance falls steadily, and the total variance becomes right.

    At low noise a step is one of Langevin dynamics on the posterior; with many of them what came before is forgotten.
    """
    problem = measured(mixed_rows(8), NOISY if isinstance(variances, str) else variances)
    target = exact_posterior(problem)
    runs = [nested_recursion(problem, steps, spacing) for steps in (10, 40, 160, 640)]
    size = float(target.covariance.trace().sqrt())
    first, second, third, last = (oracles.wasserstein(run, target) / size for run in runs)
    assert second < 0.8 * first
    assert third < 0.8 * second
    assert last < 0.8 * third
    assert last < 0.1
    assert float(runs[-1].covariance.trace() / target.covariance.trace()) == pytest.approx(1, abs=0.08)


def test_gain_of_a_mean_is_too_much_for_a_sample() -> None:
    """Nested with DDRM's gain stays away from the posterior of noisy rows where its own gain does not."""
    problem = measured(mixed_rows(8), torch.full((8,), 0.1, dtype=torch.float64))
    target = exact_posterior(problem)
    own, other = (nested_recursion(problem, 80, "linear", mean_gain) for mean_gain in (False, True))
    rows = dense(problem)[0]
    along = [float((rows @ run.covariance @ rows.T).trace()) for run in (target, own, other)]
    assert along[1] == pytest.approx(along[0], rel=0.1)
    assert along[2] < 0.8 * along[0]


@pytest.mark.parametrize("sampler", [DDRM(4, 0.5), Nested(3, 2)])
def test_noiseless_measurements_hold_in_every_draw(sampler: Sampler) -> None:
    problem = measured(mixed_rows(8), torch.zeros(8, dtype=torch.float64))
    samples = sampler.sample(problem, range(3))
    rows, values, _ = dense(problem)
    torch.testing.assert_close(samples.flatten(1) @ rows.T, values.expand(3, 8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(SHORT))
def test_rows_in_blocks_are_dense_rows_with_zeros(name: str) -> None:
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
    one, two = (SHORT[name].sample(Problem(PRIOR, known, Noise(1), 0, SHAPE), range(2)) for known in (blockwise, whole))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(SHORT))
def test_a_draw_depends_on_its_address_alone(name: str) -> None:
    sampler, problem = SHORT[name], measured(mixed_rows(8), NOISY)
    together = sampler.sample(problem, range(2, 6))
    alone = torch.cat([sampler.sample(problem, range(i, i + 1)) for i in range(2, 6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.dtype == torch.float64
    assert together.shape == (4, *SHAPE)
    for other in (replace(problem, iteration=6), replace(problem, noise=Noise(8))):
        assert not torch.isclose(sampler.sample(other, range(2, 6)), together).all()
    assert torch.pdist(together.flatten(1)).min() > 0.1


@pytest.mark.parametrize("name", list(SHORT))
def test_draws_of_a_network_do_not_mix(name: str, tmp_path: Path) -> None:
    """A float32 network under no_grad: draws alone as together, float64 state, no gradient left on the weights."""
    prior = DDPM(save_prior(tmp_path, seed=1))
    rows = torch.linalg.qr(random(768, 6, seed=2)).Q.T
    measurements = DenseRows(Partition(3, 16, 16, block=None))
    measurements.append(torch.zeros(6, dtype=torch.int64), rows, random(6, seed=3), torch.full((6,), 0.01).double())
    problem = Problem(prior, measurements, Noise(7), iteration=0, shape=(3, 16, 16))
    with torch.no_grad():
        together = SHORT[name].sample(problem, range(3))
        alone = torch.cat([SHORT[name].sample(problem, range(i, i + 1)) for i in range(3)])
    assert together.dtype == torch.float64
    assert not together.requires_grad
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert all(weight.grad is None for weight in prior.parameters())


def test_pullback_is_the_transposed_jacobian_of_a_network() -> None:
    """``<v, J d> = <J^T v, d>`` with ``J d`` by central differences, in float64, for each of a batch of two."""
    prior = PixelDenoiser(tiny_network(3).double().eval(), DDPMScheduler(prediction_type="v_prediction"))
    x, direction, vector = (random(2, 3, 16, 16, seed=seed) for seed in (1, 2, 3))
    with torch.no_grad():
        x0, pullback = denoise_with_pullback(prior, x, 0.7)  # type: ignore[arg-type]  # a network in place of a prior
        along = (prior.denoise(x + 1e-5 * direction, 0.7) - prior.denoise(x - 1e-5 * direction, 0.7)) / 2e-5
        torch.testing.assert_close(x0, prior.denoise(x, 0.7), rtol=0, atol=0)
    left, right = (vector * along).flatten(1).sum(1), (pullback(vector) * direction).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["dps", "pigdm"])
def test_exact_networks_are_refused_in_a_sentence(name: str) -> None:
    prior = Gaussian()
    prior.network = ExactConvolution(torch.nn.Conv2d(3, 3, 3))
    with pytest.raises(PscxError, match="an exact prior has none"):
        SHORT[name].sample(replace(measured(mixed_rows(8), NOISY), prior=CountedPrior(prior, Account())), range(1))


@pytest.mark.parametrize("name", ["dps", "pigdm"])
def test_inference_mode_is_refused_in_a_sentence(name: str) -> None:
    problem = measured(mixed_rows(8), NOISY)
    with torch.inference_mode(), pytest.raises(PscxError, match=r"set trainer\.inference_mode to false"):
        SHORT[name].sample(problem, range(1))


class OnGrid(Gaussian):
    """Takes the levels of its grid alone, as a network of discrete steps does."""

    continuous = False


class Exact(Gaussian):
    """Would take any level, but a schedule must be the same on every machine."""

    exact = True


@pytest.mark.parametrize("prior", [PRIOR, OnGrid(), Exact()], ids=["continuous", "on-grid", "exact"])
@pytest.mark.parametrize("spacing", ["linear", "log"])
@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_schedule(steps: int, spacing: str, prior: Gaussian) -> None:
    levels = schedule(prior, 10.0, 0.1, steps, spacing)
    if prior is PRIOR:
        assert levels == pytest.approx(visited(10.0, 0.1, steps, spacing), rel=1e-12)
    else:
        assert levels == GRID[oracles.visited_places(GRID, 10.0, 0.1, steps, spacing)].tolist()
    if prior is PRIOR and spacing == "log":
        assert (levels[0], levels[-1]) == (10.0, 0.1)
    assert len(levels) == steps
    assert all(later < earlier for earlier, later in itertools.pairwise(levels))
    assert levels[0] == pytest.approx(10.0, rel=0.02)
    assert levels[-1] == pytest.approx(0.1, rel=0.02)


def test_schedule_at_the_grid_s_ends() -> None:
    grid = GRID.tolist()
    assert schedule(PRIOR, None, 0.0, 3, "linear") == [grid[999], grid[500], grid[0]]
    assert schedule(PRIOR, None, 0.0, 1, "linear") == [grid[999]]
    assert schedule(PRIOR, None, 0.0, 5000, "linear") == grid[::-1]
    for prior in (PRIOR, OnGrid()):
        assert schedule(prior, 1e9, 0.0, 2, "log") == [grid[999], grid[0]]
        assert schedule(prior, None, 0.0, 1, "log") == [grid[999]]
        assert schedule(prior, 0.001, 0.0005, 5, "log") == [grid[0]]


SHARED_MISTAKES: list[tuple[dict[str, object], str]] = [
    ({"steps": 0}, "sampler.steps must be at least 1, got 0"),
    ({"spacing": "cubic"}, "sampler.spacing must be one of linear, log, got 'cubic'"),
    ({"start": 0.1, "stop": 0.2}, r"sampler.start must be over sampler.stop \(0.2\), got 0.1"),
    ({"stop": float("nan")}, "sampler.stop must be a number, got nan"),
    ({"start": float("nan")}, r"sampler.start must be over sampler.stop \(0.0\), got nan"),
    ({"warm_start": 0.2, "stop": 0.2}, r"sampler.warm_start must be over sampler.stop \(0.2\), got 0.2"),
]
ETA_MISTAKES: list[tuple[dict[str, object], str]] = [
    ({"eta": 1.5}, r"sampler.eta must lie in \[0, 1\], got 1.5"),
    ({"eta": -0.1}, r"sampler.eta must lie in \[0, 1\], got -0.1"),
]
MISTAKES: list[tuple[type[Sampler], dict[str, object], str]] = [
    *((cls, *mistake) for cls in (DDRM, DPS, PiGDM, Nested) for mistake in SHARED_MISTAKES),
    *((cls, *mistake) for cls in (DDRM, DPS, PiGDM) for mistake in ETA_MISTAKES),
    (DPS, {"scale": 0.0}, "sampler.scale must be over 0, got 0.0"),
    (PiGDM, {"weighting": "none"}, "sampler.weighting must be one of paper, score, got 'none'"),
    (Nested, {"inner_steps": 0}, "sampler.inner_steps must be at least 1, got 0"),
]


@pytest.mark.parametrize(("cls", "options", "sentence"), MISTAKES)
def test_samplers_refuse(cls: type[Sampler], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cls(**options)
