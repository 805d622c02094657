"""Variances whose logarithm is linear in features, and the check of the features' weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pscx.exact import exponential

LARGEST_WEIGHT = 1000.0
LARGEST_LOGARITHM = 20.0


def log_linear(features: Tensor | Sequence[Tensor], weights: list[float]) -> Tensor:
    """``exp(sum_k w_k f_k + w_K)`` of ``K`` float32 features, for ``K + 1`` weights, which are rounded to float32.

    The first feature has the shape of the result, the others expand to it. The terms are added in their order, each
    operation is a single one of IEEE, and the logarithm is kept within ±20: the result is bit-exact.
    """
    *of_features, constant = torch.tensor(weights, dtype=torch.float64).float().tolist()
    total = torch.full_like(features[0], constant)
    for weight, feature in zip(of_features, features, strict=True):
        total += feature * weight
    return exponential(total.clamp_(-LARGEST_LOGARITHM, LARGEST_LOGARITHM))


def check_weights(option: str, weights: list[float], count: int) -> None:
    """Raise ``ValueError`` unless the option of this name has ``count`` weights, all within ±1000."""
    if len(weights) != count:
        raise ValueError(f"{option} must be {count} numbers, got {len(weights)}")
    wrong = [weight for weight in weights if not abs(weight) <= LARGEST_WEIGHT]
    if wrong:
        raise ValueError(f"{option} must lie within ±{LARGEST_WEIGHT:g}, got {wrong[0]}")
