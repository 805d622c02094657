"""SiLU, Hendrycks and Gimpel 2016, from single IEEE operations."""

from __future__ import annotations

from torch import Tensor, nn

from pscx.exact.exponential import exponential
from pscx.exact.parts import in_parts


class ExactSiLU(nn.Module):
    """``x / (1 + e^-x)`` of a float32 tensor of any shape: one result on every machine."""

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(silu, x)


def silu(x: Tensor) -> Tensor:
    """``x / (1 + e^-x)`` of a float32 tensor."""
    return x / exponential(-x).add_(1.0)
