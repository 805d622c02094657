"""How a guess of the signal is made to agree with the measurements, for orthonormal rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.exact import square_root
from pscx.samplers.base import Problem
from pscx.signal.measurements import Gain


def residual(problem: Problem, x0: Tensor) -> Tensor:
    """``y - H x0`` of signals ``(n, *shape)``: ``(n, blocks, places)``, zero at unused places."""
    return problem.measurements.values - problem.measurements.forward(x0)


def project(problem: Problem, x0: Tensor, gain: Gain) -> Tensor:
    """``x0 + H^T g (y - H x0)`` for ``(n, *shape)``, with the gain ``g`` of the measurements' variances.

    A gain of 1 (:func:`full_gain`) is the projection on all that fits ``y`` exactly.
    """
    moved = torch.empty_like(x0)
    for rows, known in problem.measurements.bands():
        known.corrected(x0[..., rows, :], gain, moved[..., rows, :])
    return moved


def full_gain(variances: Tensor) -> float:
    """A gain of 1 whatever the measurements' ``variances`` are."""
    return 1.0


def uncertainty(sigma: float) -> float:
    """Variance of the clean signal given the denoiser's mean at noise level ``sigma``: ``q = sigma^2 / (1 + sigma^2)``.

    Song et al. 2023, PiGDM, section 3.2: exact for white signals of variance 1.
    """
    power = sigma * sigma
    return power / (1 + power)


def mean_gain(variances: Tensor, sigma: float) -> Tensor:
    """What a measurement weighs against the denoiser's mean: ``q / (q + v)``, the Kalman gain.

    ``v`` are the measurements' ``variances``, ``q`` is :func:`uncertainty` at noise level ``sigma``. Shape and range as
    ``variances``, in (0, 1]; 1 for exact measurements.
    """
    q = uncertainty(sigma)
    return q / (q + variances)


def sample_gain(variances: Tensor, sigma: float) -> Tensor:
    """What a measurement weighs against a sample: ``1 - sqrt(v / (q + v))``, with ``q`` as in :func:`mean_gain`.

    A sample keeps its own share of the uncertainty, which the gain of a mean would take away: this is the square-root
    filter for perturbations (Whitaker and Hamill 2002, Eq. 13). It is half of :func:`mean_gain` where ``v`` is large,
    and 1 for exact measurements.
    """
    return 1 - square_root(variances / (uncertainty(sigma) + variances))
