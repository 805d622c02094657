"""Activations behind a projection, as the feed-forward layers of transformers have them."""

from __future__ import annotations

from torch import Tensor, nn

from pscx.exact.exponential import sigmoid
from pscx.exact.gelu import gelu, tanh_gelu
from pscx.exact.parts import in_parts

QUICK = 1.702


class ExactQuickGELU(nn.Module):
    """``x / (1 + e^(-1.702 x))``, Hendrycks and Gimpel 2016, section 2, of a float32 tensor: one result everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(quick_gelu, x)


class ExactGEGLU(nn.Module):
    """``a GELU(b)``, Shazeer 2020, Eq. 6, of the halves ``(a, b)`` of an exact projection: one result everywhere.

    Args:
        projection: the exact form of the layer's projection.
    """

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.proj = projection

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return in_parts(gelu, gate).mul_(value)


class ExactProjectedGELU(nn.Module):
    """GELU, of a hyperbolic tangent where ``tanh`` says so, behind an exact projection: one result everywhere.

    Args:
        projection: the exact form of the layer's projection.
        tanh: whether the layer approximates GELU with a hyperbolic tangent.
    """

    def __init__(self, projection: nn.Module, *, tanh: bool) -> None:
        super().__init__()
        self.proj, self.tanh = projection, tanh

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(tanh_gelu if self.tanh else gelu, self.proj(x))


def quick_gelu(x: Tensor) -> Tensor:
    """``x / (1 + e^(-1.702 x))`` of a float32 tensor."""
    return x * sigmoid(x * QUICK)
