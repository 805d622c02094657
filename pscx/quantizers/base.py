"""Contract of a quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import inf

import numpy as np
import torch
from torch import Tensor

from pscx.quantizers.turns import CellsInTurn
from pscx.registry import Registry
from pscx.runtime.returned import refuse, returned
from pscx.signal.distributions import Array, Integers


class Quantizer(ABC):
    """A quantizer: a measurement becomes one of ``alphabet`` integer symbols, ordered as the values are.

    All tensors are one-dimensional, ``(n,)``, on the CPU; values and means float64, finite; symbols int64 in
    ``[0, alphabet)``. ``mean`` is the prediction that both sides hold before the symbol is known; a quantizer may
    quantize the difference to it, or ignore it. ``scale`` is the standard deviation that goes with it.
    """

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    alphabet: int
    """Number of symbols; a fixed-length code spends ``ceil(log2(alphabet))`` bits."""

    parameter: float | None
    """The number that sets the quality, exactly representable in bfloat16 (a stream carries two bytes), or none."""

    parameter_name: str = "parameter"
    """Name of that number, such as ``step``.

    ``pscx info`` reads it from the text of the quantizer's file, which has the registered name, because importing the
    file would load torch. Write it on one line: ``parameter_name = "step"``.
    """

    exact: bool = False
    """Whether everything that a decoder computes from symbols, means and scales is bit-exact."""

    whole: bool = False
    """Whether a symbol's cell depends on the symbols before it: then a segment is one group.

    All methods but :meth:`lower_edge` are then given the symbols of a whole segment. Such a quantizer says twice where
    its cells are, in :meth:`cells` and in :meth:`cells_in_turn`; :meth:`lower_edge` gives cells for coders that do not
    follow the symbols.
    """

    resolution: float
    """Standard deviation, in units of the signal, below which a measurement is mostly lost in the quantizer."""

    reach: float = inf
    """Largest distance of a measurement from its prediction without saturation, in units of the signal.

    Encoding refuses a step that would saturate. ``inf`` if saturation is part of the method.
    """

    quality_range: tuple[float, float] = (8.0, 0.01)
    """The parameters of quality 1 and quality 100; rate control searches between them."""

    @abstractmethod
    def quantize(self, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Symbols to code ``value`` with; values outside the range saturate.

        In general the symbol of the cell that the value lies in; an encoder may choose a cheaper neighbour.
        """

    @abstractmethod
    def dequantize(self, symbol: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """The value that a symbol stands for: samplers take it for a measurement with :meth:`noise_variance`."""

    @abstractmethod
    def lower_edge(self, symbol: Tensor, mean: Tensor) -> Tensor:
        """Smallest value of the symbol's cell; ``-inf`` for symbol 0, ``+inf`` for symbol ``alphabet``."""

    def cells(self, symbol: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper edges, less the mean, of the cells that the symbols of a group are: ``(n,)`` each."""
        return self.lower_edge(symbol, mean) - mean, self.lower_edge(symbol + 1, mean) - mean

    def cells_in_turn(self, mean: Tensor, symbols: Tensor | None = None) -> CellsInTurn:
        """The cells of a group with these predictions, for a coder that finds its symbols turn after turn.

        An encoder gives the ``symbols``, which may make it faster and changes nothing else.
        """
        return CellsAtOnce(self, mean)

    @abstractmethod
    def noise_variance(self, symbol: Tensor, mean: Tensor) -> Tensor:
        """Variance of the independent noise that samplers take the value of a symbol to have."""

    @abstractmethod
    def with_parameter(self, parameter: float | None) -> Quantizer:
        """The same quantizer at another quality; raises ``ValueError`` where the value is not allowed."""


class CellsAtOnce(CellsInTurn):
    """The cells of a quantizer without memory, for predictions ``mean`` ``(n,)``: one turn for all."""

    def __init__(self, quantizer: Quantizer, mean: Tensor) -> None:
        self._quantizer, self._mean = quantizer, mean

    def lower(self, rows: Integers, symbols: Integers) -> Array:
        mean = self._mean[torch.from_numpy(rows)]
        edge: Array = (self._quantizer.lower_edge(torch.from_numpy(symbols), mean) - mean).numpy()
        return edge

    def turns(self) -> Iterator[Integers]:
        yield np.arange(len(self._mean))

    def turn(self, rows: Integers) -> Integers:
        return np.zeros_like(rows)

    def take(self, rows: Integers, symbols: Integers) -> None:
        pass


def quantized(quantizer: Quantizer, value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Its symbols. Raises :class:`pscx.errors.PscxError` if they are not what the contract says."""
    symbols = returned(quantizer, "quantize", quantizer.quantize(value, mean, scale), value.shape, dtype=torch.int64)
    if symbols.numel() and not (0 <= int(symbols.min()) and int(symbols.max()) < quantizer.alphabet):
        wanted, got = f"symbols in 0..{quantizer.alphabet - 1}", f"{int(symbols.min())}..{int(symbols.max())}"
        refuse(quantizer, "quantize", wanted, got)
    return symbols


def dequantized(quantizer: Quantizer, symbol: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """What symbols stand for, and the noise variances of that. Raises as :func:`quantized` does."""
    value = returned(quantizer, "dequantize", quantizer.dequantize(symbol, mean, scale), mean.shape)
    return value, returned(quantizer, "noise_variance", quantizer.noise_variance(symbol, mean), mean.shape)


QUANTIZERS: Registry[Quantizer] = Registry("quantizer", Quantizer)
