"""Rounding of weights that makes up, in the weights not yet rounded, for the error of those that are."""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean curvature, added to each: inputs that hardly vary would let weights grow without bound
COLUMNS = 128  # rounded one by one before the rest of the weights is told, all at once


def round_weights(weights: Tensor, scale: Tensor, curvature: Tensor, top: int) -> Tensor:
    """Integers ``(rows, n)`` within ``top``, whose products with ``scale`` stand for ``weights`` with little error.

    The error is that of the outputs, ``tr (W - s Q) H (W - s Q)^T`` for inputs of second moments ``H``. Columns are
    rounded one after another, the most active first. After each, the columns that are left move by what is best for
    the error so far: Frantar et al. 2023 (GPTQ), Eq. 2 to 4, after Hassibi and Stork 1993. Where inputs are not
    correlated this is rounding to the nearest integer.

    Args:
        weights: ``(rows, n)``, one row for each output.
        scale: ``(rows,)``, over 0: the size of a step.
        curvature: ``(n, n)``: sum or mean of ``x x^T`` over inputs ``x`` ``(n,)``.
        top: the largest magnitude of an integer, at least 1.

    Returns:
        float64 integers ``(rows, n)``.
    """
    hessian = curvature.double()
    most = float(hessian.diagonal().mean())
    if most == 0:  # no input ever differed from 0, so nothing depends on these weights
        return (weights.double() / scale.double()[:, None]).round().clamp(-top, top)
    order = torch.argsort(hessian.diagonal(), descending=True)
    hessian = hessian[order][:, order] + DAMPING * most * torch.eye(len(order), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left = (weights.double() / scale.double()[:, None])[:, order]
    whole = torch.empty_like(left)
    for first in range(0, left.shape[1], COLUMNS):
        last = min(first + COLUMNS, left.shape[1])
        errors = torch.empty_like(left[:, first:last])
        for column in range(first, last):
            whole[:, column] = left[:, column].round().clamp(-top, top)
            error = (left[:, column] - whole[:, column]) / factor[column, column]
            left[:, column:last] -= error[:, None] * factor[column, column:last]
            errors[:, column - first] = error
        left[:, last:] -= errors @ factor[first:last, last:]
    return whole[:, torch.argsort(order)]
