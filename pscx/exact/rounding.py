"""Rounding to integers, which no gradient passes."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.errors import PscxError


def rounded(x: Tensor) -> Tensor:
    """``x`` rounded to integers in place, ties to even.

    Raises :class:`PscxError` where torch records a gradient through it: it would be zero, or that of the scales alone.
    """
    refuse_gradient(x.requires_grad)
    return x.round_()


def refuse_gradient(recorded: bool) -> None:
    """Raise :class:`PscxError` where a gradient would be recorded through a rounding."""
    if recorded:
        raise PscxError("an exact network has no gradient, because it rounds: take one with exact: false")


def recorded(x: Tensor) -> bool:
    """Whether torch records what is done to ``x``."""
    return x.requires_grad and torch.is_grad_enabled()
