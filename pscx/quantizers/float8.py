"""The quantizer of the paper: measurements as 8-bit floating point numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.quantizers.base import QUANTIZERS, Quantizer


@QUANTIZERS.register("float8")
class Float8(Quantizer):
    """Rounds a measurement to the nearest float8 e4m3fn number (Elata, Michaeli and Elad, TMLR 2025).

    The grid is that of the value itself, so the mean has no part in it. The 253 finite numbers between -448 and 448
    are the symbols, in rising order, -0 and +0 being one; ties go to the even mantissa, as in ``torch``'s cast;
    what lies outside saturates, where the cast would give NaN.
    """

    references = ("elata2025psc",)

    alphabet = 253
    parameter = None
    resolution = 2.0**-9
    exact = True

    def __init__(self) -> None:
        positive = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
        self._values = torch.cat([-positive[1:].flip(0), positive])
        self._middles = (self._values[1:] + self._values[:-1]) / 2
        infinity = torch.tensor([torch.inf], dtype=torch.float64)
        self._edges = torch.cat([-infinity, self._middles, infinity])
        inner = self._middles.diff()
        self._widths = torch.cat([inner[:1], inner, inner[-1:]])

    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        down = torch.searchsorted(self._middles, value.contiguous())
        up = torch.searchsorted(self._middles, value.contiguous(), right=True)
        return torch.where(up % 2 == 0, up, down)

    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return self._values[symbol]

    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return self._edges[symbol]

    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        return self._widths[symbol] ** 2 / 12

    def with_parameter(self, parameter: float | None) -> Float8:
        if parameter is not None:
            raise ValueError(f"quantizer float8 takes no parameter, got {parameter}")
        return self
