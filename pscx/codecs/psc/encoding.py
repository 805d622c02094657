"""The encoder of PSC: gives the loop symbols measured from the signal, and writes them to the payload."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pscx.codecs.base import Progress
from pscx.codecs.psc.loop import Known, Loop, Question, Seal
from pscx.coders.base import Coder
from pscx.errors import PscxError
from pscx.quantizers.base import quantized
from pscx.rows.base import Proposal
from pscx.runtime.returned import refuse, returned

LARGE = 1 << 22  # larger signals are transformed again for each segment to save memory


def encode(
    loop: Loop,
    coder: Coder,
    signal: Tensor,
    progress: Progress | None = None,
    keep: int | None = None,
    report: Callable[[Seal], None] | None = None,
) -> tuple[bytes, Known]:
    """Measure and entropy-code a signal ``(channels, height, width)``.

    With ``keep``, only the first ``keep`` rows are measured. The others are coded as predicted, which costs almost
    nothing and needs no change in the decoder. ``report`` is called with each segment.
    """
    side = _Encoder(loop, coder, signal, keep, report)
    outcome = loop.drive(tuple(signal.shape), side.answer, side.seal, progress, side.along)
    outcome.account.segment_bits = side.bits[:-1]
    payload = side.encoder.finish()
    if not isinstance(payload, bytes):
        refuse(coder, "the encoder's finish", "bytes", f"'{type(payload).__name__}'")
    return payload, outcome


class _Encoder:
    """The encoder's own state: the signal, and the bits so far."""

    def __init__(
        self, loop: Loop, coder: Coder, signal: Tensor, keep: int | None, report: Callable[[Seal], None] | None
    ) -> None:
        self.encoder, self._coder = coder.encoder(), coder
        self.bits = [0.0]
        self._quantizer, self._signal, self._left, self._report = loop.quantizer, signal, keep, report
        self._space = loop.rows.start(loop.prior, tuple(signal.shape))
        self._blocks: Tensor | None = None
        self._largest = 0.0  # magnitude of what was measured so far

    def along(self, proposal: Proposal) -> Tensor:
        """What the signal measures along the rows of a proposal."""
        if self._blocks is None:
            self._blocks = self._space.split(self._signal[None].double())[0]
        return self._space.along(self._blocks, proposal.block, proposal.rows)

    def answer(self, question: Question) -> Tensor:
        value = question.value
        assert value is not None
        if self._left is not None:
            value = torch.cat([value[: self._left], question.mean[self._left :]])
            self._left = max(self._left - len(value), 0)
        self._check_reach(value, question.mean)
        symbols = quantized(self._quantizer, value, question.mean, question.scale)
        bits = self.encoder.put(symbols, self._quantizer, question.mean, question.scale)
        bits = returned(self._coder, "the encoder's put", bits, symbols.shape)
        self.bits[-1] += float(bits.sum())
        return symbols

    def seal(self, seal: Seal) -> None:
        self.encoder.put_bits(seal.digest, seal.bits)
        if self._signal.numel() > LARGE:
            self._blocks = None  # samples are drawn next, and fill the memory
        self.encoder.segment = seal.segment + 1
        self.bits.append(0.0)
        if self._report is not None:
            self._report(seal)

    def _check_reach(self, value: Tensor, mean: Tensor) -> None:
        """Raise :class:`PscxError` if the step is so small that a symbol would saturate.

        There is no error for a prediction that is off by more than twice the largest measurement so far: it comes from
        a sampler that diverges, not from the step.
        """
        if not len(value):
            return
        self._largest = max(self._largest, float(value.abs().max()))
        quantizer, distance = self._quantizer, float((value - mean).abs().max())
        if distance <= quantizer.reach or quantizer.reach > 2 * self._largest:
            return
        assert quantizer.parameter is not None
        name, least = quantizer.parameter_name, quantizer.parameter * distance / quantizer.reach
        raise PscxError(
            f"{name} {quantizer.parameter:.3g} is too small for this image: a measurement lies {distance:.3g} from its "
            f"prediction and symbols reach {quantizer.reach:.3g}; take a {name} over {least:.2g} or more quantizer.bits"
        )
