"""The weights of :class:`pscx.rows.Learned` and of its pyramid of block means, by maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

from pscx.rows.base import Proposal, Situation
from pscx.rows.learned import FEATURES, TRENDS, features_of, time_basis, weights_at
from pscx.rows.pyramid import FEATURES as MEAN_FEATURES
from pscx.rows.pyramid import ROUNDING, Pyramid
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


def observe(
    situation: Situation, spectrum: Tensor, signal: Tensor, predicted: Tensor, rows: int, most: int
) -> Observed:
    """``most`` coefficients, drawn among the ``CANDIDATES`` times ``rows`` of the largest predicted variance.

    ``signal`` is ``(channels, height, width)`` float64, ``predicted`` ``(blocks, dim)``, zero where one is known; the
    situation has samples. ``spectrum`` is as of :func:`pscx.rows.learned.features_of`.
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
    for blocks, features in features_of(situation, spectrum):
        here = chosen[(chosen >= blocks.start * dim) & (chosen < blocks.stop * dim)] - blocks.start * dim
        shape = (blocks.stop - blocks.start, dim)
        parts.append(torch.stack([feature.expand(shape).flatten()[here] for feature in features], 1))
    found = (torch.cat(parts), missed.flatten()[chosen], predicted.flatten()[chosen])
    return Observed(situation.iteration, situation.iterations, *(part.double().cpu().numpy() for part in found))


@dataclass(frozen=True)
class Means:
    """What the predictions of a pyramid were up against, for ``n`` block means.

    ``first`` ``(n,)`` says which lie on the first channel axis, ``features`` are ``(n, 6)``, ``residual`` ``(n,)`` is a
    mean less its prediction, in units of the signal, and ``rounding`` ``(n,)`` the quantizer's share of a variance.
    """

    first: Array
    features: Array
    residual: Array
    rounding: Array


def observe_means(pyramid: Pyramid, proposal: Proposal, values: Tensor, exact: Tensor) -> Means:
    """A pyramid's predictions from decoded ``values`` ``(r,)``, in the proposal's order, against ``exact`` ones."""
    found: list[tuple[bool, Tensor, Tensor]] = []
    steps = pyramid.predictions(lambda *one: found.append(one))
    next(steps)
    for group in torch.split(values, proposal.groups)[:-1]:
        steps.send(group)
    steps.close()
    parts = [(torch.zeros(0), torch.zeros(MEAN_FEATURES - 1, 0), torch.zeros(0))]
    alone = len(proposal.groups) - len(found)  # the groups of the first block, which has no neighbours
    for (first, features, mean), own in zip(found, torch.split(exact, proposal.groups)[alone:], strict=True):
        parts.append((torch.full_like(own, first), features.flatten(1), own - mean.flatten()))
    axis, traits, missed = (torch.cat(part, -1).double().numpy() for part in zip(*parts, strict=True))
    rounding = np.full(len(missed), ROUNDING * pyramid.resolution * pyramid.resolution)
    return Means(axis, traits.T, missed, rounding)


def fit_means(seen: list[Means]) -> list[float]:
    """Fourteen weights under which the residuals are most likely, to four decimals; as :func:`fit_weights`.

    Raises ``ValueError`` where there are fewer means of an axis than weights.
    """
    weights: list[float] = []
    first, features, residual, rounding = (
        torch.from_numpy(np.concatenate([getattr(one, name) for one in seen]))
        for name in ("first", "features", "residual", "rounding")
    )
    for chosen in (first > 0, first == 0):
        if int(chosen.sum()) < MEAN_FEATURES:
            raise ValueError(f"weights of a pyramid need {MEAN_FEATURES} block means or more, got {int(chosen.sum())}")
        standard, original = standardised(features[chosen])
        found = likeliest(standard, residual[chosen].square(), rounding[chosen], MEAN_FEATURES - 1)
        weights += [round(weight, DECIMALS) for weight in original(found[None]).flatten().tolist()]
    return weights


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
    standard, original = standardised(features)
    design, square = (times[:, :, None] * standard[:, None]).flatten(1), residual.square()
    found = likeliest(design, square, torch.zeros_like(square), FEATURES - 1)
    return [round(weight, DECIMALS) for weight in original(found.reshape(TRENDS, FEATURES)).flatten().tolist()]


def standardised(features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Features ``(n, k)`` of mean 0 and deviation 1, and a column of ones; and the way back for their weights.

    That takes weights ``(any, k + 1)`` of the standardised features to those of the features as they were.
    """
    mean, deviation = features.mean(0), features.std(0).clamp_min(LEAST_DEVIATION)
    standard = torch.cat([(features - mean) / deviation, torch.ones(len(features), 1, dtype=features.dtype)], 1)

    def original(weights: Tensor) -> Tensor:
        scaled = weights[:, :-1] / deviation
        return torch.cat([scaled, weights[:, -1:] - (scaled * mean).sum(1, keepdim=True)], 1)

    return standard, original


def likeliest(design: Tensor, square: Tensor, floor: Tensor, constant: int) -> Tensor:
    """Weights ``(k,)`` of ``design`` ``(n, k)`` for the logarithm of a variance, found from a constant one.

    ``constant`` is the number of the column whose weight begins as the logarithm of the mean.

    Those under which residuals with these squares ``(n,)`` are most likely by Student's t with ``DEGREES`` degrees of
    freedom, whose variance is the predicted one plus ``floor`` ``(n,)``; L-BFGS (Liu and Nocedal 1989).
    """
    weights = torch.zeros(design.shape[1], dtype=torch.float64)
    weights[constant] = square.mean().clamp_min(TINY).log()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            variance = torch.exp(design @ weights) + floor
            ratio = square / variance / (DEGREES - 2)
            value = (variance.log() / 2 + (DEGREES + 1) / 2 * torch.log1p(ratio)).mean()
            value = value + RIDGE * weights.square().sum()
            value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()
