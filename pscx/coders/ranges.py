"""Range coding by constriction, with payloads that end as early as they can and decoders that notice a cut."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from constriction import stream

from pscx.coders.base import Decoder, Encoder
from pscx.signal.distributions import Array, Booleans

GRID, RAREST = 2.0**-20, 2.0**-16  # what probabilities of a decision are multiples of; the least of them


class RangeEncoder:
    """Encodes yes-or-no decisions and plain numbers; :meth:`finish` may be asked for at any time."""

    def __init__(self) -> None:
        self._words = stream.queue.RangeEncoder()

    def put(self, yes: Booleans, p: Array) -> Array:
        """Append decisions ``(n,)``, whose probabilities of yes are ``p`` as :func:`on_grid` gives them; their bits."""
        self._words.encode(yes.astype(np.int32), bernoulli(), p)
        bits: Array = -np.log2(np.where(yes, p, 1 - p))
        return bits

    def put_bits(self, value: int, count: int) -> None:
        """Append an unsigned integer of ``count`` (at most 16) equally likely bits."""
        if count:
            self._words.encode(value, stream.model.Uniform(1 << count))

    def finish(self) -> bytes:
        """The shortest bytes of which any continuation decodes to what was put."""
        return shortest(*interval(self._words))


class RangeDecoder:
    """The mirror of :class:`RangeEncoder`; past the end it reads zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._words = stream.queue.RangeDecoder(np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32))
        self._again = stream.queue.RangeEncoder()  # encodes all that was taken, to follow the coder's interval
        self._taken: list[tuple[Any, Array]] = []  # decisions, and their probabilities, that it has not encoded yet
        self._lost = False

    def get(self, p: Array) -> Booleans:
        """The next decisions, ``(n,)``; ``p`` must not be changed afterwards."""
        taken = self._take(bernoulli(), p)
        if taken is None:
            return np.zeros(len(p), np.bool_)
        self._taken.append((taken, p))
        yes: Booleans = taken != 0
        return yes

    def get_bits(self, count: int) -> int:
        """The next unsigned integer of ``count`` bits."""
        if not count:
            return 0
        model = stream.model.Uniform(1 << count)
        value = self._take(model)
        if value is None:
            return 0
        self._follow()
        self._again.encode(value, model)
        return int(value)

    @property
    def exhausted(self) -> bool:
        """Whether what was taken depends on bytes that are not there, or no encoder writes such bytes."""
        if self._lost:
            return True
        self._follow()
        _, high, bits = interval(self._again)
        have = 8 * len(self._data)
        after = int.from_bytes(self._data, "big") + 1
        return after << max(0, bits - have) > high << max(0, have - bits)

    def _take(self, *model: Any) -> Any:
        """Decode; none where no symbol has the code."""
        if not self._lost:
            try:
                return self._words.decode(*model)
            except AssertionError:  # what constriction raises for data that no encoder writes
                self._lost = True
        return None

    def _follow(self) -> None:
        """Encode again what was taken."""
        if self._taken:
            taken, chances = (np.concatenate(part) for part in zip(*self._taken, strict=True))
            self._again.encode(taken, bernoulli(), chances)
            self._taken.clear()


class RangeCodedEncoder(Encoder):
    """An encoder whose symbols become decisions of one :class:`RangeEncoder`."""

    def __init__(self) -> None:
        self.range = RangeEncoder()

    def put_bits(self, value: int, count: int) -> None:
        self.range.put_bits(value, count)

    def finish(self) -> bytes:
        return self.range.finish()


class RangeCodedDecoder(Decoder):
    """The mirror of :class:`RangeCodedEncoder`; past the end it reads zeros."""

    def __init__(self, data: bytes) -> None:
        self.range = RangeDecoder(data)

    def get_bits(self, count: int) -> int:
        return self.range.get_bits(count)

    @property
    def exhausted(self) -> bool:
        """True as well where the bytes are none that an encoder writes: cut or damaged before this point."""
        return self.range.exhausted


def on_grid(p: Array) -> Array:
    """Probabilities of yes rounded to multiples of 2^-20 and kept in [2^-16, 1 - 2^-16]."""
    rounded: Array = np.rint(p / GRID)
    rounded *= GRID
    np.maximum(rounded, RAREST, out=rounded)
    return np.minimum(rounded, 1 - RAREST, out=rounded)


@lru_cache(1)
def bernoulli() -> Any:
    """The model of decisions whose probabilities are given with each of them."""
    return stream.model.Bernoulli(perfect=False)


def interval(coder: Any) -> tuple[int, int, int]:
    """What a range coder narrowed the code down to: ``(low, high, bits)``.

    Exactly the strings whose first ``bits`` bits, as a number, lie in ``[low, high)`` decode to what was encoded.
    """
    if coder.is_empty():
        return 0, 1 << 64, 64
    position, (lower, width) = coder.pos()
    sealed = coder.get_compressed()[: position + 1]  # a multiple of 2^32 at or above the low end; carries are done
    point = int.from_bytes(sealed.astype(">u4").tobytes(), "big") << 32
    low = point - (point - lower) % (1 << 64)
    return low, low + width, 32 * (position + 2)


def shortest(low: int, high: int, bits: int) -> bytes:
    """The shortest string, of whole bytes, all of whose continuations lie in ``[low, high)``, of ``bits`` bits."""
    count = bits // 8 - 8
    while True:
        unit = 1 << (bits - 8 * count)
        first = -(-low // unit)
        if (first + 1) * unit <= high:
            return first.to_bytes(count, "big")
        count += 1
