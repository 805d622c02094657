"""Symbols as yes-or-no decisions whose probabilities depend on a context: the ratio of predicted spread to cell width.

Let ``d`` be how many cells a symbol lies above the one that holds the mean, and ``b = floor(d / 2^shift + 1/2)`` with a
``shift`` that grows with the context, so that ``b`` is small wherever the prediction is right. The decisions are:
whether ``b`` is not 0; its sign, both equally likely; for ``k = 1, 2, ...`` whether ``|b| > k``. After the last of
``DECISIONS`` what is left of ``|b|`` follows in the Exp-Golomb code (Teuhola 1978), then the lowest ``shift`` bits of
``d``. This is the scheme of context-based coding in H.264 (Marpe, Schwarz and Wiegand 2003, section III).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from pscx.quantizers.base import Quantizer
from pscx.signal.distributions import Array, Booleans, Integers, student_tail

DECISIONS = 14  # decisions of a context with their own probability
WHOLE = 1 << 16  # a probability of 1; those of tables are integers below
LOWEST_OCTAVE, OCTAVES = -3, 13  # of the ratio; contexts are half an octave wide
EDGES = np.rint(2.0 ** (np.arange(2 * OCTAVES + 1) / 2 + LOWEST_OCTAVE) * 4096) / 4096
CONTEXTS = len(EDGES) + 1
SHIFTS = np.maximum(np.arange(CONTEXTS) // 2 + LOWEST_OCTAVE - 1, 0)  # 2 to 4 buckets of b a standard deviation
NARROWEST = 1e-300  # cell
LONGEST = 26  # largest number of bits in the Exp-Golomb code; alphabets have at most 24

Test = Callable[[Integers], Booleans]
Value = Callable[[Integers], Integers]
Ask = Callable[[Integers, Test, Array], Booleans]


def origins_and_contexts(quantizer: Quantizer, mean: Tensor, scale: Tensor) -> tuple[Integers, Integers]:
    """The symbol of the cell that holds the mean, and the context, both ``(n,)`` int64."""
    origin = quantizer.quantize(mean, mean, scale)
    inner = origin.clamp(1, max(quantizer.alphabet - 2, 1))
    width = (quantizer.lower_edge(inner + 1, mean) - quantizer.lower_edge(inner, mean)).numpy()
    with np.errstate(over="ignore"):  # an infinite ratio is large enough
        ratio = scale.numpy() / np.maximum(width, NARROWEST)
    return origin.numpy(), np.searchsorted(EDGES, ratio, side="right").astype(np.int64)


def buckets(offsets: Integers, contexts: Integers) -> Integers:
    """``b`` of offsets ``d``, both ``(n,)``."""
    shift: Integers = SHIFTS[contexts]
    half = np.left_shift(1, shift) >> 1
    return (offsets + half) >> shift


def find(contexts: Integers, chances: Array, ask: Ask) -> Integers:
    """The offsets ``d`` of measurements with these contexts, by asking for one decision after the other, ``(n,)``.

    ``chances`` ``(CONTEXTS, DECISIONS)`` are the probabilities of yes. ``ask(rows, test, p)`` tells which of the
    numbered measurements pass a test, with probability ``p``; a test takes the offsets of all measurements.
    """
    size = np.zeros(len(contexts), np.int64)
    left = np.arange(len(contexts))
    for k in range(DECISIONS):  # mypy cannot tell the type of a lambda whose default holds a loop's variable
        answer = ask(left, lambda d, k=k: np.abs(buckets(d, contexts)) > k, chances[contexts[left], k])  # type: ignore[misc]
        left = left[answer]
        size[left] += 1
    size += _exp_golomb(left, len(contexts), lambda d: np.abs(buckets(d, contexts)) - DECISIONS + 1, ask)
    signed = np.flatnonzero(size)
    negative = ask(signed, lambda d: buckets(d, contexts) < 0, np.full(len(signed), 0.5))
    size[signed[negative]] *= -1
    shift = SHIFTS[contexts]
    half = 1 << shift >> 1
    low = _bits(np.zeros(len(contexts), np.int64), shift, lambda d: d + half, ask)
    return (size << shift) + low - half


def outcomes(offsets: Integers, contexts: Integers) -> tuple[Integers, Integers]:
    """How often each decision was taken and how often it was yes, both ``(CONTEXTS, DECISIONS)``."""
    size = np.minimum(np.abs(buckets(offsets, contexts)), DECISIONS)
    counts = np.zeros((CONTEXTS, DECISIONS + 1), np.int64)
    np.add.at(counts, (contexts, size), 1)
    reached = counts[:, ::-1].cumsum(1)[:, ::-1]
    return reached[:, :-1], reached[:, 1:]


def student_table(degrees: int = 4) -> Integers:
    """Probabilities of yes in units of 1/65536 under Student's t of the ratio in a context's middle."""
    ratio = np.sqrt(np.append(EDGES[:1] / 2, EDGES) * np.append(EDGES, EDGES[-1:] * 2))[:, None]
    edge = (np.arange(DECISIONS) + 0.5) * (1 << SHIFTS)[:, None] / ratio
    outside = 2 * student_tail(edge, degrees)
    reached = np.concatenate([np.ones((CONTEXTS, 1)), outside[:, :-1]], axis=1)
    return as_integers(outside / reached)


def as_integers(chances: Array) -> Integers:
    """Probabilities in units of 1/65536, never 0 or 1."""
    return np.clip(np.rint(chances * WHOLE), 1, WHOLE - 1).astype(np.int64)


def _exp_golomb(rows: Integers, count: int, value: Value, ask: Ask) -> Integers:
    """``value - 1`` of the numbered ones of ``count`` measurements, else 0: its number of bits, then the bits."""
    length = np.zeros(count, np.int64)
    left = rows
    for bits in range(1, LONGEST):
        answer = ask(left, lambda d, bits=bits: value(d) >= 1 << bits, np.full(len(left), 0.5))  # type: ignore[misc]
        left = left[answer]
        length[left] += 1
    leading = np.zeros(count, np.int64)
    leading[rows] = 1
    return _bits(leading, length, value, ask) - leading


def _bits(top: Integers, length: Integers, value: Value, ask: Ask) -> Integers:
    """Numbers that begin with the bits of ``top`` and go on with the ``length`` lowest bits of ``value``."""
    top = top.copy()
    for place in range(int(length.max(initial=0)) - 1, -1, -1):
        rows = np.flatnonzero(length > place)
        answer = ask(rows, lambda d, place=place: (value(d) >> place & 1) == 1, np.full(len(rows), 0.5))  # type: ignore[misc]
        top[rows] = 2 * top[rows] + answer
    return top
