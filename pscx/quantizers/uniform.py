"""A uniform grid around the prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.quantizers.base import QUANTIZERS, Quantizer
from pscx.quantizers.steps import given, half_alphabet, rounded_step


@QUANTIZERS.register("uniform")
class Uniform(Quantizer):
    """Rounds ``value - mean`` to the nearest multiple of ``step``; the middle symbol stands for the mean itself.

    Args:
        step: width of a cell in signal units, in (0, 1000) after it was rounded to bfloat16 (``parameter`` is the
            rounded number).
        bits: the alphabet has ``2^bits - 1`` symbols, as many on either side of the mean; 2 to 24.
    """

    references = ()

    parameter_name = "step"
    exact = True

    def __init__(self, step: float = 0.05, bits: int = 14) -> None:
        self.parameter = self.resolution = self.step = rounded_step(step)
        self.bits = bits
        self._half = half_alphabet(bits)
        self.alphabet = 2 * self._half + 1
        self.reach = (self._half + 0.5) * self.step

    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        cells = ((value - mean) / self.step).round().clamp(-self._half, self._half)
        return cells.long() + self._half

    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return mean + (symbol.double() - self._half) * self.step

    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        edge = mean + (symbol.double() - (self._half + 0.5)) * self.step
        edge = torch.where(symbol == 0, -torch.inf, edge)
        return torch.where(symbol == self.alphabet, torch.inf, edge)

    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return torch.full_like(mean, self.step * self.step / 12)

    def with_parameter(self, parameter: float | None) -> Uniform:
        return Uniform(given(parameter, "uniform"), self.bits)
