"""The rule of Jacobian products: against closed forms on the Gaussian prior, and against derivatives by autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from test_rows import PRIOR, is_fit, measured, off, random, situation
from tiny import save_prior
from torch import Tensor
from torch.autograd.functional import jvp

from pscx.codecs import PSC, Account
from pscx.codecs.counted import CountedPrior
from pscx.coders import Posterior
from pscx.priors import DDPM, Gaussian
from pscx.priors.schedules import nearest
from pscx.quantizers import Uniform
from pscx.restorations import Mean
from pscx.rows import Situation, Tweedie
from pscx.rows.tweedie import FULLEST, PosteriorCovariance
from pscx.samplers import DDRM
from pscx.signal.measurements import DenseRows
from pscx.signal.partition import Partition

SHAPE = (3, 3, 5)
PARTITION = Partition(*SHAPE, block=None)
EXACT = 1e4  # a noise level at which x tells nothing
SLOW_BUT_SURE = {"passes": 60, "extra": 12}


def at_level(level: float, **options: Any) -> Tweedie:
    """A rule that stays at one noise level."""
    return Tweedie(start=level, stop=level, **options)


def agrees(rule: Tweedie, known: DenseRows, samples: Tensor | None, covariance: Tensor, tolerance: float) -> None:
    """The proposal is the leading eigenvectors of ``covariance`` off the rows, up to sign, and its eigenvalues.

    Colours make eigenvalues come in pairs, so directions are compared by what is diagonal along them.
    """
    proposal = rule.propose(situation(known, samples, iteration=1, iterations=2))
    covariance = off(covariance, known.rows[0])
    wanted = torch.linalg.eigvalsh(covariance).flip(0)[: rule.per_iteration]
    is_fit(proposal, known)
    torch.testing.assert_close(proposal.variance, wanted, rtol=tolerance, atol=0)
    along = proposal.rows @ covariance @ proposal.rows.T
    torch.testing.assert_close(along, torch.diag(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("step", [0.01, 2.0])
@pytest.mark.parametrize("level", [1.0, 3.0, EXACT])
def test_nothing_measured_gives_the_klt_at_any_level(level: float, step: float) -> None:
    """What x tells is taken away again; the denoiser is linear, so the step is no matter but for rounding."""
    for samples in (None, random(4, *SHAPE)):
        rule = at_level(level, per_iteration=7, step=step, **SLOW_BUT_SURE)
        agrees(rule, DenseRows(PARTITION), samples, PRIOR.covariance(*SHAPE[1:]), 1e-6)


@pytest.mark.parametrize(("level", "variance"), [(1.0, 0.0), (EXACT, 0.0), (EXACT, 0.02)])
def test_corrections_give_the_closed_form_posterior(level: float, variance: float) -> None:
    """Random rows, correlated with all the rest; noisy ones where x tells nothing, exact ones at any level."""
    known = measured(PARTITION, [5], variance)
    posterior = oracles.posterior(PRIOR.covariance(*SHAPE[1:]), known.rows[0], known.values[0], known.variances[0])
    rule = at_level(level, per_iteration=7, corrections=8, **SLOW_BUT_SURE)
    agrees(rule, known, random(4, *SHAPE), posterior.covariance, 1e-5)


def test_without_corrections_the_known_rows_are_projected_out() -> None:
    known = measured(PARTITION, [5], 0.02)
    agrees(at_level(EXACT, per_iteration=7, **SLOW_BUT_SURE), known, None, PRIOR.covariance(*SHAPE[1:]), 1e-6)


def test_rows_along_principal_axes_need_no_corrections() -> None:
    """What the rule itself measures says nothing of the rest, so the projection is the posterior."""
    known, covariance = DenseRows(PARTITION), PRIOR.covariance(*SHAPE[1:])
    rows = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)[:5].contiguous()
    known.append(torch.zeros(5, dtype=torch.int64), rows, random(5), torch.full((5,), 0.01, dtype=torch.float64))
    posterior = oracles.posterior(covariance, known.rows[0], known.values[0], known.variances[0])
    agrees(at_level(1.0, per_iteration=7, **SLOW_BUT_SURE), known, random(4, *SHAPE), posterior.covariance, 1e-6)


def test_a_small_step_is_the_derivative_of_a_network(tmp_path: Path) -> None:
    """Finite differences against autograd, both in float64: the error falls with the step."""
    prior = DDPM(save_prior(tmp_path, 0))
    prior.denoiser.network.double()
    sigma = 0.9
    x, vectors = 1.4 * random(1, 3, 8, 8), random(5, 192, seed=1)
    points, directions = x.repeat(5, 1, 1, 1), vectors.reshape(5, 3, 8, 8)
    slope = jvp(lambda x: prior.denoise(x, sigma), points, directions)[1]
    wanted = (sigma**2 * slope).flatten(1)
    errors = []
    for step in (1.0, 1e-5):
        known = DenseRows(Partition(3, 8, 8, None))
        posterior = PosteriorCovariance(prior, known, x, sigma, prior.denoise(x, sigma), 0, step, 2)
        errors.append(float((posterior.denoised(vectors) - wanted).norm() / wanted.norm()))
    assert errors[1] < 1e-8 < errors[0]


class Amplifier(Gaussian):
    """A denoiser whose Jacobian is no covariance: some multiple of what it is given."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.gain * x


def test_a_jacobian_that_is_no_covariance() -> None:
    """One that is too large is held below the noise power; one that is negative gives no rows."""
    for gain, count in ((3.0, 4), (-1.0, 0)):
        known = DenseRows(PARTITION)
        prior = Amplifier(gain)
        proposal = at_level(2.0, per_iteration=4).propose(Situation(prior, known, None, 0, 1, 0.0, prior))
        power = float(prior.levels[nearest(prior.levels, 2.0)]) ** 2
        assert proposal.variance.tolist() == pytest.approx([power * FULLEST / (1 - FULLEST)] * count)
        assert proposal.groups == ([count] if count else [])


@pytest.mark.parametrize("corrections", [0, 2])
def test_every_evaluation_is_counted(corrections: int) -> None:
    account = Account()
    counted = CountedPrior(PRIOR, account)
    rule = Tweedie(per_iteration=5, extra=2, passes=3, corrections=corrections)
    for rows, cost in ((0, 1 + 7 * 3), (4, 1 + 7 * 3 * (1 + corrections))):
        before = account.evaluations
        rule.propose(Situation(PRIOR, measured(PARTITION, [rows], 0.1), None, 0, 1, 0.0, counted))
        assert account.evaluations - before == cost


def test_the_account_of_a_codec_holds_samples_and_products() -> None:
    rule = Tweedie(per_iteration=3, extra=1, passes=2)
    codec = PSC(PRIOR, DDRM(5), rule, Uniform(0.1), Posterior(), Mean(), samples=2, iterations=4, batch=1)
    image = PRIOR.draw(4, 4, torch.Generator().manual_seed(0))[0]
    _, outcome = codec.encode(image)
    assert outcome.account.evaluations == 4 * (1 + 4 * 2) + 3 * 2 * 5


def test_levels_are_spaced_in_the_logarithm() -> None:
    rule, known = Tweedie(start=8.0, stop=0.5), DenseRows(PARTITION)
    levels = [rule.level(situation(known, None, iteration, 5)) for iteration in range(5)]
    assert levels == pytest.approx([8.0, 4.0, 2.0, 1.0, 0.5])
    assert rule.level(situation(known, None, 0, 1)) == 8.0
    assert [rule.needs_samples(i) for i in range(3)] == [False, True, True]


def test_rows_stay_orthonormal_until_nothing_is_left() -> None:
    codec = PSC(PRIOR, DDRM(3), Tweedie(20), Uniform(0.01), Posterior(), Mean(), samples=2, iterations=8)
    image = PRIOR.draw(4, 8, torch.Generator().manual_seed(0))[0]
    _, outcome = codec.encode(image)
    known = outcome.measurements
    assert isinstance(known, DenseRows)
    assert outcome.account.segment_symbols == [20, 20, 20, 20, 16, 0, 0, 0]
    eye = torch.eye(96, dtype=torch.float64)
    torch.testing.assert_close(known.rows[0] @ known.rows[0].T, eye, rtol=0, atol=1e-10)


def test_the_seed_sets_the_start() -> None:
    known = DenseRows(PARTITION)
    first, again, other = (Tweedie(passes=1, seed=seed).propose(situation(known, None)) for seed in (0, 0, 1))
    assert torch.equal(first.rows, again.rows)
    assert float((first.rows - other.rows).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"per_iteration": 0}, "rows.per_iteration must be at least 1, got 0"),
        ({"extra": -1}, "rows.extra must be at least 0, got -1"),
        ({"passes": 0}, "rows.passes must be at least 1, got 0"),
        ({"corrections": -1}, "rows.corrections must be at least 0, got -1"),
        ({"batch": 0}, "rows.batch must be at least 1, got 0"),
        ({"start": 0.0}, "rows.start must be over 0, got 0.0"),
        ({"stop": float("nan")}, "rows.stop must be over 0, got nan"),
        ({"step": float("inf")}, "rows.step must be over 0, got inf"),
        ({"seed": -1}, r"seed must lie in \[0, 2\^64\), got -1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Tweedie(**options)
