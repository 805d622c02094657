"""Fits gains, the distribution's shape and probabilities to the symbols of many images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor

from pscx.coders import Coder, Decoder, Encoder, Posterior
from pscx.coders.binarization import (
    CONTEXTS,
    DECISIONS,
    WHOLE,
    as_integers,
    origins_and_contexts,
    outcomes,
    student_table,
)
from pscx.coders.posterior import LEAST_GAIN
from pscx.coders.table import Table
from pscx.quantizers import Quantizer
from pscx.signal.distributions import Array, Integers, both_sides, code_lengths, mass, tail_of

DEGREES = (4, 6, 8, 12, 16, 32)
COARSE, FINE = (
    np.arange(-10, 11) / 2,
    np.arange(-7, 8) / 16,
)  # octaves of a gain: the grid, then a finer one around its best
Edges: TypeAlias = tuple[Array, Array]
"""Lower and upper edges of symbols' cells, less the predicted mean, in predicted standard deviations."""
SHRINKAGE = 16  # measurements that the more general probability counts as


@dataclass(frozen=True)
class Group:
    """Symbols that were coded together, with their predictions: tensors ``(n,)``."""

    segment: int
    symbols: Tensor
    mean: Tensor
    scale: Tensor


class Recorder(Coder):
    """A coder that keeps every group that ``inner`` encodes in ``groups``; one stream at a time."""

    def __init__(self, inner: Coder) -> None:
        self.inner = inner
        self.groups: list[Group] = []

    def encoder(self) -> RecordingEncoder:
        self.groups = []
        return RecordingEncoder(self.inner.encoder(), self.groups)

    def decoder(self, data: bytes) -> Decoder:
        return self.inner.decoder(data)


class RecordingEncoder(Encoder):
    """See :class:`Recorder`."""

    def __init__(self, inner: Encoder, groups: list[Group]) -> None:
        self._inner, self._groups = inner, groups

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        self._groups.append(Group(self.segment, symbols, mean, scale))
        self._inner.segment = self.segment
        return self._inner.put(symbols, quantizer, mean, scale)

    def put_bits(self, value: int, count: int) -> None:
        self._inner.put_bits(value, count)

    def finish(self) -> bytes:
        return self._inner.finish()


def code_length(encoder: Encoder, quantizer: Quantizer, groups: Iterable[Group]) -> float:
    """Ideal bits of the groups of one image, in their order, by a fresh encoder."""
    bits = 0.0
    for group in groups:
        encoder.segment = group.segment
        bits += float(encoder.put(group.symbols, quantizer, group.mean, group.scale).sum())
    return bits


def by_segment(groups: Iterable[Group]) -> list[list[Group]]:
    """The groups of each segment, from the first to the last that occurs."""
    groups = list(groups)
    count = 1 + max((group.segment for group in groups), default=0)
    return [[group for group in groups if group.segment == segment] for segment in range(count)]


def fit_posterior(quantizer: Quantizer, groups: Iterable[Group], adapt: bool = True) -> Posterior:
    """The degrees of freedom and the gain of each segment under which the groups cost least (maximum likelihood).

    Gains are found to 1/16 octave, from 1/64 to 64; a segment without measurements keeps the gain of the one before.
    """
    return likeliest_posterior([cell_edges(quantizer, segment) for segment in by_segment(groups)], adapt)


def likeliest_posterior(edges: list[Edges], adapt: bool) -> Posterior:
    """:func:`fit_posterior` from the :func:`cell_edges` of each segment."""
    found = {degrees: [best_gain(low, high, degrees) for low, high in edges] for degrees in DEGREES}
    degrees = min(DEGREES, key=lambda d: sum(bits for _, bits in found[d]))
    gains: list[float] = []
    for (low, _), (gain, _) in zip(edges, found[degrees], strict=True):
        gains.append(gain if len(low) else (gains[-1] if gains else 1.0))
    return Posterior(degrees, adapt, gains)


def cell_edges(quantizer: Quantizer, groups: Iterable[Group]) -> Edges:
    """The edges of all groups in a row."""
    low, high = [np.zeros(0)], [np.zeros(0)]
    for group in groups:
        scale = group.scale.clamp_min(2.0**-64)
        for edges, edge in zip((low, high), quantizer.cells(group.symbols, group.mean), strict=True):
            edges.append((edge / scale).numpy())
    return np.concatenate(low), np.concatenate(high)


def best_gain(low: Array, high: Array, degrees: int) -> tuple[float, float]:
    """The factor of the scale under which cells with these edges cost least, rounded to 1/1024, and those bits."""

    def bits(octave: float) -> int:
        gain = 2.0**octave
        cuts = [both_sides(np.clip(edge / gain, -1e12, 1e12), tail_of(degrees)) for edge in (low, high)]
        return int(code_lengths(mass(cuts[0], cuts[1])).sum())

    octave = float(min(COARSE, key=lambda o: (bits(o), abs(o))))
    octave = float(min(octave + FINE, key=lambda o: (bits(o), abs(o))))
    gain = min(max(round(2.0**octave * 1024) / 1024, LEAST_GAIN), 1 / LEAST_GAIN)
    return gain, float(bits(octave))


def fit_table(quantizer: Quantizer, groups: Iterable[Group]) -> Table:
    """How often each decision was yes in each segment and context.

    A context is shrunk towards the same context of all segments, and that towards Student's t; each counts as
    16 measurements.
    """
    counts = [decision_counts(quantizer, segment) for segment in by_segment(groups)]
    all_taken, all_yes = (np.sum([one[i] for one in counts], axis=0) for i in (0, 1))
    general = shrunk(all_taken, all_yes, student_table() / WHOLE)
    return Table(np.stack([as_integers(shrunk(taken, yes, general)) for taken, yes in counts]))


def decision_counts(quantizer: Quantizer, groups: Iterable[Group]) -> tuple[Integers, Integers]:
    """How often each decision was taken, and was yes, in all groups, ``(CONTEXTS, DECISIONS)`` each."""
    taken, yes = np.zeros((2, CONTEXTS, DECISIONS), np.int64)
    for group in groups:
        origins, contexts = origins_and_contexts(quantizer, group.mean, group.scale)
        here = outcomes(group.symbols.numpy() - origins, contexts)
        taken, yes = taken + here[0], yes + here[1]
    return taken, yes


def shrunk(taken: Integers, yes: Integers, general: Array) -> Array:
    """Relative frequencies, where measurements are few near the more general ones."""
    mixed: Array = (yes + SHRINKAGE * general) / (taken + SHRINKAGE)
    return mixed
