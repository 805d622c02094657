"""Numbers as integers times a unit."""

from __future__ import annotations

from math import frexp

import torch
from torch import Tensor

from pscx.exact.convolution import TINY
from pscx.exact.rounding import rounded


def whole_numbers(x: Tensor, axes: tuple[int, ...], top: int) -> tuple[Tensor, Tensor]:
    """``x`` as integers within ``top`` (at most 2^20) of a unit: the largest magnitude over ``axes``, by ``top``.

    Returns the integers, in the shape and dtype of ``x``, and the unit, with ``axes`` kept at size 1. Every step is
    exact (maxima) or a single IEEE operation on each element. Three of those, each within a relative 2^-24, lead from
    the largest element to its integer, so it errs by less than a half and rounds to ``top``.
    """
    largest = torch.maximum(x.amax(axes, keepdim=True), -x.amin(axes, keepdim=True)).clamp_min_(TINY)
    unit = largest / number(top, x)
    return rounded(x * unit.reciprocal()), unit


def number(value: float, like: Tensor) -> Tensor:
    """``value`` as a tensor of no dimensions, dtype and device of ``like``.

    To divide by it is one IEEE division everywhere; CUDA divides by a Python number by multiplying by its reciprocal.
    """
    return torch.full((), value, dtype=like.dtype, device=like.device)


def divide(values: Tensor, divisor: float) -> Tensor:
    """``values / divisor`` in place, as one IEEE operation each: a product, which is faster, by a power of two."""
    if frexp(divisor)[0] == 0.5:
        return values.mul_(1 / divisor)
    return values.div_(number(divisor, values))
