"""Range coding with probabilities learnt from earlier symbols."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pscx.coders.base import CODERS, Coder, check_predictions, check_symbols
from pscx.coders.binarization import WHOLE, find, origins_and_contexts, outcomes
from pscx.coders.ranges import RangeCodedDecoder, RangeCodedEncoder, on_grid
from pscx.coders.static import Asked, answers
from pscx.coders.table import Table, find_table, student
from pscx.quantizers.base import Quantizer
from pscx.signal.distributions import Array, Integers

WEIGHT, MEMORY = 16, 2048
CHUNK = 32  # measurements between two updates of the counts


@CODERS.register("adaptive")
class Adaptive(Coder):
    """Context-based adaptive binary arithmetic coding (Marpe, Schwarz and Wiegand 2003), with counts.

    The decisions are those of :mod:`pscx.coders.binarization`. Each decision in each context has the probability
    ``(yes + weight q) / (all + weight)`` of Krichevsky and Trofimov's (1981) kind: counts of what was coded before the
    present 32 measurements, and a prior ``q`` that is worth ``weight`` of them. Counts are integers, halved when
    ``all`` exceeds ``memory``; apart from the quantizer's cells and a ratio of two numbers nothing is rounded twice.

    Args:
        weight: number of measurements that the prior counts as, 1 to 1024.
        memory: number of measurements after which a context's counts are halved, 16 to 4096.
        table: prior: name of a table as of :class:`pscx.coders.Static`, or none for Student's t with 4 degrees of
            freedom. With a table each of its segments has counts of its own.
        digest: digest of the table's content, checked when it is loaded; none to accept any content. A stream holds it.

    Raises:
        ValueError: for an option outside its range; there is no such table, or it has another digest.
    """

    references = ("marpe2003cabac", "krichevsky1981universal", "bamler2022constriction")

    exact = True
    resolved = ("digest",)

    def __init__(
        self, weight: int = WEIGHT, memory: int = MEMORY, table: str | None = None, digest: str | None = None
    ) -> None:
        for name, value, low, high in (("weight", weight, 1, 1024), ("memory", memory, 16, 4096)):
            if not low <= value <= high:
                raise ValueError(f"coder.{name} must lie in {low}..{high}, got {value}")
        if table is None and digest is not None:
            raise ValueError(f"coder.digest must be none without a table, got '{digest}'")
        self.weight, self.memory = weight, memory
        self.table = student() if table is None else find_table(table, digest)
        self.digest = None if table is None else self.table.digest

    def encoder(self) -> AdaptiveEncoder:
        return AdaptiveEncoder(Counts(self.table, self.weight, self.memory))

    def decoder(self, data: bytes) -> AdaptiveDecoder:
        return AdaptiveDecoder(Counts(self.table, self.weight, self.memory), data)


class AdaptiveEncoder(RangeCodedEncoder):
    """See :class:`Adaptive`."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` if a symbol is outside the alphabet, or a mean or a scale is not finite."""
        check_symbols(symbols, quantizer)
        check_predictions(mean, scale)
        origins, contexts = origins_and_contexts(quantizer, mean, scale)
        offsets = symbols.numpy() - origins
        bits = np.zeros(len(offsets))
        for rows in chunks(len(offsets)):
            asked = Asked(self.range, offsets[rows])
            find(contexts[rows], self._counts.chances(self.segment), asked)
            self._counts.learn(self.segment, offsets[rows], contexts[rows])
            bits[rows] = asked.bits
        return torch.from_numpy(bits)


class AdaptiveDecoder(RangeCodedDecoder):
    """See :class:`Adaptive`; past the end it reads zeros."""

    def __init__(self, counts: Counts, data: bytes) -> None:
        super().__init__(data)
        self._counts = counts

    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a mean or a scale is not finite."""
        check_predictions(mean, scale)
        origins, contexts = origins_and_contexts(quantizer, mean, scale)
        offsets = np.zeros_like(origins)
        for rows in chunks(len(offsets)):
            offsets[rows] = find(contexts[rows], self._counts.chances(self.segment), answers(self.range))
            self._counts.learn(self.segment, offsets[rows], contexts[rows])
        return torch.from_numpy(np.clip(origins + offsets, 0, quantizer.alphabet - 1))


class Counts:
    """Counts that both sides have learnt: how often each decision was taken and how often it was yes."""

    def __init__(self, table: Table, weight: int, memory: int) -> None:
        self._prior, self._weight, self._memory = table.chances, weight, memory
        self._taken, self._yes = np.zeros_like(table.chances), np.zeros_like(table.chances)

    def chances(self, segment: int) -> Array:
        """Probabilities of yes, ``(CONTEXTS, DECISIONS)``."""
        at = min(segment, len(self._prior) - 1)
        yes: Integers = self._yes[at] * WHOLE + self._weight * self._prior[at]
        return on_grid(yes / ((self._taken[at] + self._weight) * WHOLE))

    def learn(self, segment: int, offsets: Integers, contexts: Integers) -> None:
        """Update the counts with coded measurements."""
        at = min(segment, len(self._prior) - 1)
        taken, yes = outcomes(offsets, contexts)
        self._taken[at] += taken
        self._yes[at] += yes
        full = self._taken[at] > self._memory
        for counts in (self._taken, self._yes):
            counts[at][full] = (counts[at][full] + 1) // 2


def chunks(count: int) -> Iterator[slice]:
    """Slices of ``CHUNK`` measurements."""
    return (slice(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK))
