"""The interface of a codec family: encode a signal into a payload, decode it, and restore.

The rest of pscx (files, rate control, limits, evaluation, report, demo) uses a family through this interface only. A
signal is what a codec codes: the image itself, or a latent. Data flows like this::

    image -> signal -> encode -> payload -> decode -> outcome -> restore -> signal -> image
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pscx.codecs.replay import Replay
from pscx.errors import PscxError, StreamError
from pscx.execution.sharding import ALONE, Spread
from pscx.registry import Registry, parameters_of
from pscx.restorations.base import Restoration

Progress = Callable[[int, int], None]
"""Called with the number of finished segments and the number of all segments."""


@dataclass
class Account:
    """The cost of an encoding or decoding: symbols and ideal bits of each segment, network evaluations (number of
    function evaluations, NFE), seconds in the network, seconds in all.

    If rate control made several encodings, the segments are those of the last one, and the costs are sums.
    """

    segment_symbols: list[int] = field(default_factory=list)
    segment_bits: list[float] = field(default_factory=list)
    evaluations: int = 0
    network_seconds: float = 0.0
    seconds: float = 0.0
    encodings: int = 1


@dataclass(frozen=True)
class Outcome:
    """What both sides hold after the last segment; a family adds what its restoration needs.

    ``segments`` is the number of good segments. ``cut`` is the reason why there are no more, if a payload ended early.
    """

    account: Account
    segments: int
    cut: StreamError | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Segment:
    """One segment that was encoded, or decoded with the right checksum; ``segment`` counts from 0.

    ``estimate`` is the estimate of the signal from the segments before it, ``(channels, height, width)`` float64, if
    there is one.
    """

    segment: int
    estimate: Tensor | None


class SignalSpace(ABC):
    """What a codec codes in place of images: the images themselves, or latents."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Sides of an image must be multiples of this, in pixels."""

    @abstractmethod
    def to_signal(self, image: Tensor) -> Tensor:
        """From images ``(batch, 3, height, width)`` in [-1, 1] to signals ``(batch, channels, ...)``."""

    @abstractmethod
    def to_image(self, signal: Tensor) -> Tensor:
        """From signals back to images ``(batch, 3, height, width)``, nominally in [-1, 1], not clipped."""

    @abstractmethod
    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the signal of one image of this size (sides multiples of :attr:`stride`)."""


class SignalCodec(SignalSpace):
    """A family of zero-shot codecs of signals; an object is one configuration of it.

    Each constructor option is an attribute of the same name, and :meth:`options` is what a stream stores of the codec.
    ``seed`` and :attr:`parameter` have fields of their own in a stream.
    """

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    seed: int = 0
    """Seed of all noise, in [0, 2^64): an option of the same name, unless the family has no noise."""

    turned: str
    """Name of the option that rate control changes, such as ``quantizer``, or a number: :attr:`parameter`.

    A family that ships with pscx declares a number as ``turned = "..."`` on a line of its own, in the file of its name
    in this folder: ``pscx info`` reads it there, because importing the family would load torch.
    """

    parameter_at_step: float = 1.0
    """The parameter that is worth a quantizer's step of 1 in PSC: where searches begin."""

    spread: Spread = ALONE
    """The processes that share the samples of one image, if they can (:attr:`shares_samples`)."""

    shares_samples: bool = False
    """Whether the processes of :attr:`spread` can share the samples of one image."""

    @property
    def takes_captions(self) -> bool:
        """Whether :meth:`conditioned` accepts a caption."""
        return False

    @property
    def network(self) -> nn.Module | None:
        """The network that has to be moved to the device, if there is one."""
        return None

    @property
    def device(self) -> torch.device:
        """Where signals live, and all that is made of them but symbols and payloads."""
        return torch.device("cpu")

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether a stream decodes to the same signal on every machine, in any batch (bit-exact).

        So it does to the same pixels, unless a prior's signals are latents.
        """

    @property
    @abstractmethod
    def segments(self) -> int:
        """Number of segments of a payload, at least 1. Each has a checksum; those before a bad one stay usable."""

    @property
    @abstractmethod
    def parameter(self) -> float | None:
        """The number that rate control changes, exact in bfloat16 (a stream stores two bytes), or none."""

    @property
    @abstractmethod
    def parameter_name(self) -> str:
        """Name of :attr:`parameter` in messages, such as ``step``."""

    @property
    @abstractmethod
    def quality_range(self) -> tuple[float, float]:
        """The parameters of quality 1 and quality 100; a search for a rate or a PSNR stays between them."""

    @abstractmethod
    def with_parameter(self, parameter: float | None) -> SignalCodec:
        """This codec with another :attr:`parameter`. Raises ``ValueError`` if that is not allowed."""

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Six bytes that identify the weights that both sides need; a stream stores them."""

    @abstractmethod
    def arithmetic(self) -> str:
        """The arithmetic that the codec computes with, in printable ASCII; empty if it is :attr:`exact`."""

    @abstractmethod
    def evaluations(self, restorations: int) -> int:
        """Upper bound of the network evaluations (NFE) of one decoding with this number of restorations."""

    def work(self, shape: tuple[int, ...], restorations: int) -> float:
        """Estimated multiply-adds of one decoding beside the evaluations; 0 where these take longer anyway."""
        return 0.0

    @abstractmethod
    def memory(self, shape: tuple[int, ...]) -> int:
        """Estimated peak memory of decoding and restoring a signal of this shape, in bytes."""

    @abstractmethod
    def encode(
        self, signal: Tensor, progress: Progress | None = None, keep: int | None = None, *, watch: Watch | None = None
    ) -> tuple[bytes, Outcome]:
        """The payload of a signal ``(channels, height, width)``, and what a decoder will hold.

        With ``keep`` only the first ``keep`` symbols or so carry information and the others cost almost nothing. This
        is a fine control of the rate that needs no change in the decoder. ``watch`` is called with each segment.
        """

    @abstractmethod
    def decode(
        self,
        payload: bytes,
        shape: tuple[int, ...],
        progress: Progress | None = None,
        *,
        partial: bool = False,
        arithmetic: str = "",
        watch: Watch | None = None,
    ) -> Outcome:
        """What the encoder held, from its payload alone; ``arithmetic`` is the encoder's, as the stream has it.

        Raises ``StreamError`` at the first segment that is incomplete or whose checksum does not match. With
        ``partial`` it returns the segments before that one instead, and raises only if there are none.
        """

    @abstractmethod
    def restore(self, outcome: Outcome, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Restoration number ``index`` of a signal, ``(channels, height, width)`` float64."""

    def restored_by(self, restoration: Restoration) -> SignalCodec:
        """This codec with another :meth:`restore`, and the same payloads. Raises :class:`PscxError` if it cannot."""
        raise PscxError(f"the codec {CODECS.name_of(type(self))} has one restoration, and takes no other")

    def conditioned(self, caption: str) -> SignalCodec:
        """This codec under a caption, if there is one. Raises :class:`PscxError` if it takes none, or not this one."""
        if not caption:
            return self
        raise PscxError(f"{CODECS.name_of(type(self))} takes no caption")

    @abstractmethod
    def recorder(self, height: int, width: int) -> Recorder:
        """A watcher that records the decoding of an image of this size for a report."""

    def first_rows(self) -> Patterns | None:
        """A watcher that draws the transform's first rows while encoding; none if the family has no rows."""
        return None

    def options(self) -> dict[str, Any]:
        """Current values of the constructor's options, by name."""
        return {name: getattr(self, name) for name in parameters_of(type(self))}


class Recorder(ABC):
    """Watches a decoding, segment by segment; :meth:`finish` returns the record for a report."""

    @abstractmethod
    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        """Called with each segment."""

    @abstractmethod
    def finish(self) -> Replay:
        """The record of all segments."""


class Patterns(ABC):
    """Watches an encoding; :meth:`picture` then draws the first rows of the transform."""

    @abstractmethod
    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        """Called with each segment; segment 0 starts a new record."""

    @abstractmethod
    def picture(self) -> Any:
        """``(height, width, 3)`` uint8, or none if there were no rows."""


Watch = Callable[[SignalCodec, Segment], None]
"""Called with the codec and each segment, after it was encoded, or decoded with the right checksum."""

CODECS: Registry[SignalCodec] = Registry("codec", SignalCodec, default="psc")
