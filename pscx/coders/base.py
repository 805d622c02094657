"""Contract of an entropy coder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pscx.quantizers.base import Quantizer
from pscx.registry import Registry


class Encoder(ABC):
    """Turns groups of symbols into bytes; one object per stream, for all of its segments."""

    segment: int = 0
    """Number of the segment that is being coded, from 0; the codec sets it, and a model may depend on it."""

    @abstractmethod
    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Append symbols ``(n,)`` whose predictions are ``mean`` and ``scale`` (standard deviation), ``(n,)``.

        Returns the ideal code length of each under the coder's own model, in bits: ``(n,)`` float64.
        """

    @abstractmethod
    def put_bits(self, value: int, count: int) -> None:
        """Append an unsigned integer of ``count`` (at most 16) equally likely bits."""

    @abstractmethod
    def finish(self) -> bytes:
        """Everything put so far, as bytes, for a stream that ends here; more may be put afterwards."""


class Decoder(ABC):
    """The mirror of :class:`Encoder`: the same calls in the same order give the same symbols."""

    segment: int = 0
    """As in :class:`Encoder`."""

    @abstractmethod
    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """The next group of symbols, ``(n,)`` int64 in ``[0, quantizer.alphabet)``."""

    @abstractmethod
    def get_bits(self, count: int) -> int:
        """The next unsigned integer of ``count`` bits."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether more was read than the bytes held, so that the stream was cut before this point."""


class Coder(ABC):
    """Stateless configuration of an entropy coder."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    exact: bool = False
    """Whether the same bytes and predictions decode to the same symbols on every machine."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """A new encoder; one per stream."""

    @abstractmethod
    def decoder(self, data: bytes) -> Decoder:
        """A decoder of the payload ``data`` of a stream."""


def check_symbols(symbols: Tensor, quantizer: Quantizer) -> None:
    """Raise ``ValueError`` where one is outside the alphabet."""
    if ((symbols < 0) | (symbols >= quantizer.alphabet)).any():
        got = f"{int(symbols.min())}..{int(symbols.max())}"
        raise ValueError(f"symbols must lie in 0..{quantizer.alphabet - 1}, got {got}")


def check_predictions(mean: Tensor, scale: Tensor) -> None:
    """Raise ``ValueError`` where a mean is not finite, or a scale not finite or negative."""
    if not (mean.isfinite().all() and scale.isfinite().all() and (scale >= 0).all()):
        raise ValueError("means must be finite and scales finite and not negative, got others")


CODERS: Registry[Coder] = Registry("coder", Coder)
