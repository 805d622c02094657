"""The decoder of PSC: gives the loop symbols from a payload, and decides what of a damaged payload to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pscx.codecs.base import Progress
from pscx.codecs.psc.loop import SEGMENT_BITS, Known, Loop, Question, Seal, checksum_bits
from pscx.coders.base import Coder
from pscx.errors import StreamError
from pscx.execution.arithmetic import difference
from pscx.runtime.returned import returned


class DamageError(StreamError):
    """A segment's checksum is not the encoder's: this segment, or some before it, may be wrong."""


@dataclass(frozen=True)
class Decoding:
    """The decoding of one payload.

    ``encoded`` is the arithmetic of the encoder as the stream has it, empty for a bit-exact codec; ``here`` is the
    arithmetic of this machine.
    """

    loop: Loop
    coder: Coder
    payload: bytes
    shape: tuple[int, ...]
    encoded: str
    here: str

    def known(self, progress: Progress | None, partial: bool, report: Callable[[Seal], None] | None) -> Known:
        """The encoder's measurements; ``report`` is called with each segment whose checksum is right.

        Raises ``StreamError`` at the first segment that is incomplete or whose checksum differs. With ``partial`` it
        returns the segments before that one instead. If a checksum differs, it also drops the preceding segments that
        are protected by fewer than three checksum bits in all. Raises if no segment is left.
        """
        iterations = self.loop.iterations
        outcome = self._first(iterations, progress, report)
        if outcome.cut is not None and not partial:
            raise outcome.cut
        if isinstance(outcome.cut, DamageError) and (doubtful := -(-SEGMENT_BITS // checksum_bits(iterations)) - 1):
            spent, good = outcome.account, max(outcome.segments - doubtful, 0)
            outcome = replace(self._first(good, None, None), cut=outcome.cut)
            outcome.account.evaluations += spent.evaluations
            outcome.account.network_seconds += spent.network_seconds
            outcome.account.seconds += spent.seconds
        if outcome.cut is not None and not outcome.segments:
            raise StreamError(f"there is nothing to show, as no segment is whole: {outcome.cut}")
        return outcome

    def _first(self, good: int, progress: Progress | None, report: Callable[[Seal], None] | None) -> Known:
        """The first ``good`` segments, or those before the first bad one."""
        decoder, quantizer, iterations = self.coder.decoder(self.payload), self.loop.quantizer, self.loop.iterations

        def answer(question: Question) -> Tensor:
            symbols = decoder.get(quantizer, question.mean, question.scale)
            return returned(self.coder, "the decoder's get", symbols, question.mean.shape, dtype=torch.int64)

        def seal(seal: Seal) -> None:
            if seal.segment == good:
                raise StreamError(f"only {good} segments were asked for")
            found = decoder.get_bits(seal.bits)
            decoder.segment = seal.segment + 1
            if decoder.exhausted:
                raise StreamError(f"the payload ends in segment {seal.segment + 1} of {iterations}")
            if found != seal.digest:
                where = f"segment {seal.segment + 1} of {iterations}"
                why = difference(self.encoded, self.here)
                raise DamageError(f"{where} does not decode to what was encoded: {why}")
            if report is not None:
                report(seal)

        return self.loop.drive(self.shape, answer, seal, progress)
