"""What a codec may ask of an entropy coder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pscx.quantizers.base import Quantizer
from pscx.registry import Registry


class Encoder(ABC):
    """Turns groups of symbols into bytes; one object a stream, kept through all of its segments."""

    @abstractmethod
    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> float:
        """Append symbols ``(rows,)`` whose predictions are ``mean`` and ``scale`` (standard deviation), ``(rows,)``.

        Returns the ideal code length under the coder's own model, in bits.
        """

    @abstractmethod
    def put_bits(self, value: int, count: int) -> None:
        """Append an unsigned integer of ``count`` (at most 16) equally likely bits."""

    @abstractmethod
    def finish(self) -> bytes:
        """Everything put so far, as bytes; the encoder can go on afterwards (for a stream cut here)."""


class Decoder(ABC):
    """The mirror of :class:`Encoder`: the same calls in the same order give the same symbols."""

    @abstractmethod
    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """The next group of symbols, ``(rows,)`` int64 in ``[0, quantizer.alphabet)``."""

    @abstractmethod
    def get_bits(self, count: int) -> int:
        """The next unsigned integer of ``count`` bits."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether more was taken out than the bytes can have held: the stream was cut before this point."""


class Coder(ABC):
    """Stateless configuration of an entropy coder."""

    @abstractmethod
    def encoder(self) -> Encoder: ...

    @abstractmethod
    def decoder(self, data: bytes) -> Decoder: ...


CODERS: Registry[Coder] = Registry("coder", Coder)
