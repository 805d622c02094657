"""Rounding to integers, which no gradient passes."""

from __future__ import annotations

from torch import Tensor

from pscx.errors import PscxError


def rounded(x: Tensor) -> Tensor:
    """``x`` rounded to integers in place, ties to even.

    Raises :class:`PscxError` where torch records a gradient through it: it would be zero, or that of the scales alone.
    """
    if x.requires_grad:
        raise PscxError("an exact network has no gradient, because it rounds: take one with exact: false")
    return x.round_()
