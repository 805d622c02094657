"""Range coding with probabilities that were learnt beforehand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pscx.coders.base import CODERS, Coder, check_predictions, check_symbols
from pscx.coders.binarization import WHOLE, Ask, Test, find, origins_and_contexts
from pscx.coders.ranges import RangeCodedDecoder, RangeCodedEncoder, RangeDecoder, RangeEncoder, on_grid
from pscx.coders.table import Table, find_table
from pscx.quantizers.base import Quantizer
from pscx.signal.distributions import Array, Booleans, Integers


@CODERS.register("static")
class Static(Coder):
    """Context-based binary arithmetic coding with fixed probabilities (Marpe, Schwarz and Wiegand 2003).

    The decisions are those of :mod:`pscx.coders.binarization`, their probabilities come from a table that ``pscx fit``
    made: one for each segment, context and decision. Apart from the quantizer's cells and a ratio of two numbers all
    arithmetic is on integers.

    Args:
        table: name of a table: of a file ``NAME.json`` in the folder that the environment variable PSCX_TABLES names,
            or else one that ships with pscx.
        digest: digest of the table's content, checked when it is loaded; none to accept any content. A stream holds it.

    Raises:
        ValueError: there is no such table, or it has another digest.
    """

    references = ("marpe2003cabac", "bamler2022constriction")

    exact = True
    resolved = ("digest",)

    def __init__(self, table: str = "photographs", digest: str | None = None) -> None:
        self.table = find_table(table, digest)
        self.digest = self.table.digest

    def encoder(self) -> StaticEncoder:
        return StaticEncoder(self.table)

    def decoder(self, data: bytes) -> StaticDecoder:
        return StaticDecoder(self.table, data)


class StaticEncoder(RangeCodedEncoder):
    """See :class:`Static`."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` if a symbol is outside the alphabet, or a mean or a scale is not finite."""
        check_symbols(symbols, quantizer)
        check_predictions(mean, scale)
        origins, contexts = origins_and_contexts(quantizer, mean, scale)
        asked = Asked(self.range, symbols.numpy() - origins)
        find(contexts, chances(self._table, self.segment), asked)
        return torch.from_numpy(asked.bits)


class StaticDecoder(RangeCodedDecoder):
    """See :class:`Static`; past the end it reads zeros."""

    def __init__(self, table: Table, data: bytes) -> None:
        super().__init__(data)
        self._table = table

    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a mean or a scale is not finite."""
        check_predictions(mean, scale)
        origins, contexts = origins_and_contexts(quantizer, mean, scale)
        offsets = find(contexts, chances(self._table, self.segment), answers(self.range))
        return torch.from_numpy(np.clip(origins + offsets, 0, quantizer.alphabet - 1))


class Asked:
    """An encoder's answers: it knows the offsets, encodes what it tells, and counts the bits of each measurement."""

    def __init__(self, words: RangeEncoder, offsets: Integers) -> None:
        self._words, self._offsets, self.bits = words, offsets, np.zeros(len(offsets))

    def __call__(self, rows: Integers, test: Test, p: Array) -> Booleans:
        answer: Booleans = test(self._offsets)[rows]
        self.bits[rows] += self._words.put(answer, p)
        return answer


def answers(words: RangeDecoder) -> Ask:
    """A decoder's answers."""
    return lambda rows, test, p: words.get(p)


def chances(table: Table, segment: int) -> Array:
    """Probabilities of yes in a segment."""
    return on_grid(table.of(segment) / WHOLE)
