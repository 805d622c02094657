"""GELU, Hendrycks and Gimpel 2016, from single IEEE operations."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pscx.exact.exponential import exponential, sigmoid
from pscx.exact.parts import in_parts

POLE = 0.3275911
COEFFICIENTS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class ExactGELU(nn.Module):
    """``x Phi(x)`` of a float32 tensor of any shape: one result on every machine.

    The normal distribution's tail is formula 7.1.26 of Abramowitz and Stegun 1964, within 7.5e-8. Where ``layer``
    approximates it with a hyperbolic tangent, ``0.5 (1 + tanh(u))`` is taken as the sigmoid of ``2 u``.

    Args:
        layer: the layer that this one stands for.
    """

    def __init__(self, layer: nn.GELU) -> None:
        super().__init__()
        self.tanh = layer.approximate == "tanh"

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(tanh_gelu if self.tanh else gelu, x)


def gelu(x: Tensor) -> Tensor:
    """``x Phi(x)`` of a float32 tensor."""
    return x.relu() - x.abs() * upper_tail(x.abs())


def tanh_gelu(x: Tensor) -> Tensor:
    """``x / 2 (1 + tanh(u))`` of a float32 tensor."""
    return x * sigmoid(twice_u(x))


def twice_u(x: Tensor) -> Tensor:
    """``2 sqrt(2 / pi) (x + 0.044715 x^3)``, section 2 of the paper."""
    return (x * x).mul_(0.044715).add_(1.0).mul_(x).mul_(2 * math.sqrt(2 / math.pi))


def upper_tail(x: Tensor) -> Tensor:
    """Probability that a standard normal number exceeds ``x``, for ``x`` of at least 0."""
    t = (x * (POLE * math.sqrt(0.5))).add_(1.0).reciprocal_()
    value = t * COEFFICIENTS[-1]
    for coefficient in COEFFICIENTS[-2::-1]:
        value.add_(coefficient).mul_(t)
    return value.mul_(0.5).mul_(exponential((x * x).mul_(-0.5)))
