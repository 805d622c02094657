"""A uniform grid around the prediction whose encoder weighs error against bits."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.quantizers.base import QUANTIZERS, Quantizer
from pscx.quantizers.steps import given
from pscx.quantizers.uniform import Uniform
from pscx.signal.distributions import cell_bits, check_degrees

NARROWEST = 1e-30  # scale in steps


@QUANTIZERS.register("rdo")
class RDO(Quantizer):
    """Entropy-constrained choice of symbols on a uniform grid (Chou, Lookabaugh and Gray 1989, Eq. 4).

    Of the nearest symbol, its neighbour towards the mean and the mean's own symbol the encoder takes the one of least
    ``D + weight R``: ``D`` the squared error in steps, ``R`` the bits of the cell under Student's t of the predicted
    scale. A decoder cannot tell this from ``uniform``: values, edges and noise variance are those of that grid.

    Args:
        step: width of a cell in signal units, in (0, 1000) after it was rounded to bfloat16.
        weight: squared steps that a bit is worth, in [0, 1]; at high rate the slope of the rate-distortion function
            is ``ln 2 / 6 = 0.116``, and 0 is ``uniform``.
        degrees: degrees of freedom of Student's t, even, 4 to 64; or 0 for a Gaussian.
        bits: the alphabet has ``2^bits - 1`` symbols, as many on either side of the mean; 2 to 24.
    """

    references = ("chou1989entropy",)

    parameter_name = "step"
    exact = True

    def __init__(self, step: float = 0.05, weight: float = 0.05, degrees: int = 4, bits: int = 14) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"quantizer.weight must lie in [0, 1], got {weight}")
        check_degrees(degrees, "quantizer.degrees")
        self.weight, self.degrees, self.grid = weight, degrees, Uniform(step, bits)
        self.alphabet, self.parameter, self.resolution = self.grid.alphabet, self.grid.parameter, self.grid.resolution
        self.reach = self.grid.reach

    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        best = self.grid.quantize(value, mean, scale)
        if self.weight == 0:
            return best
        middle = self.alphabet // 2
        least = self.cost(best, value, mean, scale)
        for other in (best - (best - middle).sign(), torch.full_like(best, middle)):
            cost = self.cost(other, value, mean, scale)
            best, least = torch.where(cost < least, other, best), torch.minimum(cost, least)
        return best

    def cost(self, symbol: Tensor, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """``D + weight R`` of coding ``value`` as ``symbol``, in squared steps, ``(n,)``."""
        step = self.grid.step
        error = ((value - self.grid.dequantize(symbol, mean, scale)) / step).square()
        return error + self.weight * self.rate(symbol, mean, scale)

    def rate(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Bits of the symbol's cell under Student's t, at most 40, ``(n,)``."""
        spread = scale.clamp_min(NARROWEST * self.grid.step)
        low, high = ((edge / spread).numpy() for edge in self.grid.cells(symbol, mean))
        return torch.from_numpy(cell_bits(low, high, self.degrees))

    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return self.grid.dequantize(symbol, mean, scale)

    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return self.grid.lower_edge(symbol, mean)

    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return self.grid.noise_variance(symbol, mean)

    def with_parameter(self, parameter: float | None) -> RDO:
        return RDO(given(parameter, "rdo"), self.weight, self.degrees, self.grid.bits)
