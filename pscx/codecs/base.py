"""What a family of zero-shot codecs must do: encode a signal into a payload, decode it, and restore.

The rest of pscx (files, rate control, limits, evaluation, report, demo) knows a family by this contract alone. A signal
is what a codec measures: the image itself, or a latent. Data flows like this::

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

Progress = Callable[[int, int], None]
"""Called with the segments that are done and the number of all."""


@dataclass
class Account:
    """What a run cost: symbols and ideal bits of each segment, network evaluations (NFE), seconds in the network and in
    all.

    That of an encoder that tried several settings has the segments of the last encoding and the cost of all of them.
    """

    segment_rows: list[int] = field(default_factory=list)
    segment_bits: list[float] = field(default_factory=list)
    evaluations: int = 0
    network_seconds: float = 0.0
    seconds: float = 0.0
    encodings: int = 1


@dataclass(frozen=True)
class Outcome:
    """What either side holds after the last segment; a family adds what its restoration needs.

    ``segments`` is how many were whole, and ``cut`` why there are no more, where a payload ended early.
    """

    account: Account
    segments: int
    cut: StreamError | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Segment:
    """One segment that is coded, or known to be right; ``segment`` counts from 0.

    ``estimate`` is what the segments before it say of the signal, ``(channels, height, width)`` float64, or none where
    they say nothing.
    """

    segment: int
    estimate: Tensor | None


class SignalCodec(ABC):
    """A family of zero-shot codecs of signals, in one configuration.

    Each constructor option is kept as an attribute of the same name: :meth:`options` is what a stream says of the
    codec. Of these, ``seed`` has a field of its own in a stream, and so has :attr:`parameter`.
    """

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    seed: int
    """Of all noise, in [0, 2^64)."""

    turned: str
    """The option that :attr:`parameter` sets: a component that has a parameter of its own, such as ``quantizer``, or a
    number. A stream has a field for the parameter."""

    spread: Spread = ALONE
    """The processes that work on one image together."""

    shares_samples: bool = False
    """Whether several processes may work on one image together (:attr:`spread`)."""

    @property
    def takes_captions(self) -> bool:
        """Whether :meth:`conditioned` knows what to do with a caption."""
        return False

    @property
    def network(self) -> nn.Module | None:
        """What has to be on the right device, or none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where signals live, and all that is made of them but symbols and payloads."""
        return torch.device("cpu")

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether a stream decodes to the same pixels on every machine, in any batch (bit-exact)."""

    @property
    @abstractmethod
    def segments(self) -> int:
        """Segments of a payload, at least 1. Each ends with a checksum; what precedes the first bad one can show."""

    @property
    @abstractmethod
    def parameter(self) -> float | None:
        """The one number that rate control turns, exact in bfloat16 (a stream carries two bytes), or none."""

    @property
    @abstractmethod
    def parameter_name(self) -> str:
        """What :attr:`parameter` is called, such as ``step``."""

    @property
    @abstractmethod
    def quality_range(self) -> tuple[float, float]:
        """The parameters that quality 1 and quality 100 stand for; what a search for a rate or a PSNR keeps to."""

    @abstractmethod
    def with_parameter(self, parameter: float | None) -> SignalCodec:
        """This codec at another :attr:`parameter`. Raises ``ValueError`` where that is not allowed."""

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

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Bytes that identify the weights that both sides need; a stream carries them."""

    @abstractmethod
    def arithmetic(self) -> str:
        """What the codec computes with, in printable ASCII; empty where it is :attr:`exact`."""

    @abstractmethod
    def evaluations(self, restorations: int) -> int:
        """Network evaluations (NFE) of one decoding with so many restorations, at most."""

    @abstractmethod
    def memory(self, shape: tuple[int, ...]) -> int:
        """Bytes that decoding and restoring a signal of this shape hold at once, roughly."""

    @abstractmethod
    def encode(
        self, signal: Tensor, progress: Progress | None = None, keep: int | None = None, *, watch: Watch | None = None
    ) -> tuple[bytes, Outcome]:
        """The payload of a signal ``(channels, height, width)``, and what a decoder will hold.

        With ``keep`` only the first so many symbols are spent on the signal and the others cost next to nothing: a fine
        control of the rate, which a decoder need not know. ``watch`` is shown each segment.
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
        """What the encoder held, from its payload alone; ``arithmetic`` is what the stream says of the encoder's.

        Raises ``StreamError`` at the first segment that is not whole, or whose checksum does not match. With
        ``partial`` the outcome is then that of the segments before it; raises where there are none.
        """

    @abstractmethod
    def restore(self, outcome: Outcome, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Final restoration number ``index`` of a signal, ``(channels, height, width)`` float64."""

    def conditioned(self, caption: str) -> SignalCodec:
        """This codec under a caption; itself where the caption is empty.

        Raises :class:`pscx.errors.PscxError` where it takes no captions, or not this one.
        """
        if not caption:
            return self
        raise PscxError(f"{CODECS.name_of(type(self))} takes no caption")

    @abstractmethod
    def recorder(self, height: int, width: int) -> Recorder:
        """What watches a decoding of an image of this size for a report."""

    def first_rows(self) -> Patterns | None:
        """What watches an encoding for a picture of the transform's first rows, or none where there are no rows."""
        return None

    def options(self) -> dict[str, Any]:
        """The constructor's options as they are now, by name."""
        return {name: getattr(self, name) for name in parameters_of(type(self))}


class Recorder(ABC):
    """Watches a decoding, segment by segment; :meth:`finish` is then what a report shows of it."""

    @abstractmethod
    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        """Take a segment in."""

    @abstractmethod
    def finish(self) -> Replay:
        """All that was seen."""


class Patterns(ABC):
    """Watches an encoding; :meth:`picture` is then a picture of the first rows of the transform."""

    @abstractmethod
    def __call__(self, codec: SignalCodec, segment: Segment) -> None:
        """Take a segment in; segment 0 begins anew."""

    @abstractmethod
    def picture(self) -> Any:
        """``(height, width, 3)`` uint8, or none where there were no rows."""


Watch = Callable[[SignalCodec, Segment], None]
"""What is shown each segment, when it is coded or as soon as it is known to be right, and what codes it."""

CODECS: Registry[SignalCodec] = Registry("codec", SignalCodec, default="psc")
