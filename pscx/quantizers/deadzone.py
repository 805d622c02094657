"""A uniform grid around the prediction whose middle cell is wider."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.quantizers.base import QUANTIZERS, Quantizer
from pscx.quantizers.steps import given, half_alphabet, rounded_step


@QUANTIZERS.register("deadzone")
class Deadzone(Quantizer):
    """Uniform threshold quantizer with a dead zone (Sullivan 1996; Sullivan and Wiegand 1998, Eq. 15).

    With ``u = (value - mean) / step`` the symbol is ``sign(u) floor(|u| + offset)``, counted from the middle of the
    alphabet: the middle cell reaches ``1 - offset`` steps to either side, all others are one step wide. A cell is
    represented by its midpoint moved ``delta`` steps towards the mean; the middle cell by the mean.

    Args:
        step: width of a cell in signal units, in (0, 1000) after it was rounded to bfloat16 (``parameter`` is the
            rounded number).
        offset: rounding offset in [0, 0.5]: 0.5 is ``uniform``, 0 the middle cell of two steps of JPEG 2000.
        delta: how far a representative lies off the midpoint, in [0, 0.5) steps; densities fall away from the mean.
        bits: the alphabet has ``2^bits - 1`` symbols, as many on either side of the mean; 2 to 24.
    """

    references = ("sullivan1996scalar", "sullivan1998rate")

    parameter_name = "step"
    exact = True

    def __init__(self, step: float = 0.05, offset: float = 0.4, delta: float = 0.0, bits: int = 14) -> None:
        if not 0 <= offset <= 0.5:
            raise ValueError(f"quantizer.offset must lie in [0, 0.5], got {offset}")
        if not 0 <= delta < 0.5:
            raise ValueError(f"quantizer.delta must lie in [0, 0.5), got {delta}")
        self.parameter = self.resolution = self.step = rounded_step(step)
        self.offset, self.delta, self.bits = offset, delta, bits
        self._half = half_alphabet(bits)
        self.alphabet = 2 * self._half + 1
        self.reach = (self._half + 1 - self.offset) * self.step

    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        u = ((value - mean) / self.step).clamp(-self._half - 1, self._half + 1)
        symbol = (u.sign() * (u.abs() + self.offset).floor()).long() + self._half
        symbol = symbol.clamp(0, self.alphabet - 1)
        symbol = symbol - (value < self.lower_edge(symbol, mean)).long()  # one rounding error beside an edge
        return symbol + (value >= self.lower_edge(symbol + 1, mean)).long() * (symbol < self.alphabet - 1)

    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        level = symbol.double() - self._half
        return mean + (level + level.sign() * (0.5 - self.offset - self.delta)) * self.step

    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        level = symbol.double() - self._half
        edge = mean + torch.where(level > 0, level - self.offset, level - (1 - self.offset)) * self.step
        edge = torch.where(symbol == 0, -torch.inf, edge)
        return torch.where(symbol == self.alphabet, torch.inf, edge)

    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        square, inner = self.step * self.step, 1 - self.offset  # Python's powers are those of the C library
        outer = torch.full_like(mean, (1 / 12 + self.delta * self.delta) * square)
        return torch.where(symbol == self._half, inner * inner / 3 * square, outer)

    def with_parameter(self, parameter: float | None) -> Deadzone:
        return Deadzone(given(parameter, "deadzone"), self.offset, self.delta, self.bits)
