"""The weights of :class:`pscx.rows.Learned`, by maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

from pscx.rows.base import Situation
from pscx.rows.learned import FEATURES, TRENDS, features_of, time_basis, weights_at
from pscx.signal.distributions import Array
from pscx.signal.measurements import Coordinates

DEGREES = 4.0  # of Student's t, as in the entropy coder
CANDIDATES = 4  # coefficients for each row that was measured, those of the largest predicted variance
STEPS = 200
TINY = 1e-12  # smallest variance in a logarithm
LEAST_DEVIATION = 0.01  # smallest standard deviation of a feature in the standardisation
RIDGE = 1e-4  # nats of regularisation for a squared weight of a standardised feature
DECIMALS = 4


@dataclass(frozen=True)
class Observed:
    """Predictions and residuals of ``n`` coefficients in one iteration.

    ``features`` are ``(n, 9)``, ``residual`` ``(n,)`` is the coefficient minus the samples' mean, in signal units,
    and ``predicted`` ``(n,)`` the variance by which the codec chose its rows.
    """

    iteration: int
    iterations: int
    features: Array
    residual: Array
    predicted: Array


def observe(situation: Situation, signal: Tensor, predicted: Tensor, rows: int, most: int) -> Observed:
    """``most`` coefficients, drawn among the ``CANDIDATES`` times ``rows`` of the largest predicted variance.

    ``signal`` is ``(channels, height, width)`` float64, ``predicted`` ``(blocks, dim)``, zero where one is known; the
    situation has samples.
    """
    known, samples = situation.measurements, situation.samples
    assert isinstance(known, Coordinates)
    assert samples is not None
    count = min(CANDIDATES * rows, int((predicted > 0).sum()))
    likely = predicted.flatten().topk(count).indices
    draw = torch.randperm(count, generator=torch.Generator().manual_seed(situation.iteration))[:most].to(likely.device)
    chosen = likely[draw].sort().values
    missed = known.split(signal[None]) - known.split(samples).mean(0, keepdim=True)
    dim = known.partition.dim
    parts = [torch.zeros(0, FEATURES - 1, device=known.device)]
    for blocks, features in features_of(situation):
        here = chosen[(chosen >= blocks.start * dim) & (chosen < blocks.stop * dim)] - blocks.start * dim
        shape = (blocks.stop - blocks.start, dim)
        parts.append(torch.stack([feature.expand(shape).flatten()[here] for feature in features], 1))
    found = (torch.cat(parts), missed.flatten()[chosen], predicted.flatten()[chosen])
    return Observed(situation.iteration, situation.iterations, *(part.double().cpu().numpy() for part in found))


def predicted_by(observed: Observed, weights: list[float]) -> Array:
    """The variances ``(n,)`` that weights predict, in the mathematical library's arithmetic."""
    *linear, constant = weights_at(weights, observed.iteration, observed.iterations)
    variances: Array = np.exp(observed.features @ np.array(linear) + constant)
    return variances


def mean_bits(observed: list[Observed], variances: list[Array]) -> float:
    """Mean bits of a residual by Student's t of these variances, to within a constant.

    Variances are first multiplied by one factor for each iteration, the best of those to 1/4 octave: an entropy coder
    finds it by itself.
    """
    octaves = np.arange(-16, 17) / 4
    bits: dict[int, Array] = {}
    for one, variance in zip(observed, variances, strict=True):
        scaled = np.maximum(variance, TINY) * 2.0 ** octaves[:, None]
        bits[one.iteration] = bits.get(one.iteration, 0.0) + student_bits(one.residual, scaled).sum(1)
    return float(sum(one.min() for one in bits.values()) / sum(len(one.residual) for one in observed))


def student_bits(residual: Array, variance: Array) -> Array:
    """Bits of residuals by Student's t with ``DEGREES`` degrees of freedom, to within a constant."""
    nats = np.log(variance) / 2 + (DEGREES + 1) / 2 * np.log1p(residual**2 / variance / (DEGREES - 2))
    bits: Array = nats / log(2)
    return bits


def fit_weights(observed: list[Observed]) -> list[float]:
    """Weights under which the residuals are most likely, to four decimals.

    Student's t with 4 degrees of freedom and the predicted variance; L-BFGS (Liu and Nocedal 1989) on standardised
    features. Raises ``ValueError`` where there are fewer coefficients than weights.
    """
    count, least = sum(len(part.residual) for part in observed), TRENDS * FEATURES
    if count < least:
        raise ValueError(f"weights need {least} coefficients or more, measured where there are samples, got {count}")
    features = torch.from_numpy(np.concatenate([part.features for part in observed])).double()
    residual = torch.from_numpy(np.concatenate([part.residual for part in observed])).double()
    places = [(time_basis(part.iteration, part.iterations), len(part.residual)) for part in observed]
    times = torch.cat([torch.tensor([place], dtype=torch.float64).expand(count, -1) for place, count in places])
    mean, deviation = features.mean(0), features.std(0).clamp_min(LEAST_DEVIATION)
    standard = torch.cat([(features - mean) / deviation, torch.ones(len(features), 1, dtype=torch.float64)], 1)
    design = (times[:, :, None] * standard[:, None]).flatten(1)
    square = residual.square()
    weights = torch.zeros(TRENDS * FEATURES, dtype=torch.float64)
    weights[FEATURES - 1] = square.mean().clamp_min(TINY).log()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            logarithm = design @ weights
            ratio = square * torch.exp(-logarithm) / (DEGREES - 2)
            value = (logarithm / 2 + (DEGREES + 1) / 2 * torch.log1p(ratio)).mean() + RIDGE * weights.square().sum()
            value.backward()
        return value

    optimizer.step(loss)
    found = weights.detach().reshape(TRENDS, FEATURES)
    scaled = found[:, :-1] / deviation
    constant = found[:, -1:] - (scaled * mean).sum(1, keepdim=True)
    return [round(weight, DECIMALS) for weight in torch.cat([scaled, constant], 1).flatten().tolist()]
