"""What families of codecs share whose rate is controlled by a number among their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pscx.codecs.base import SignalCodec

Self = TypeVar("Self", bound="NumberCodec")


class NumberCodec(SignalCodec):
    """A codec of which rate control changes a number, the option :attr:`turned`."""

    @property
    def parameter(self) -> float | None:
        value: float | None = getattr(self, self.turned)
        return value

    @property
    def parameter_name(self) -> str:
        return self.turned

    def with_parameter(self: Self, parameter: float | None) -> Self:
        """This codec with another :attr:`parameter`. Raises ``ValueError`` if its constructor does."""
        make: Callable[..., Self] = type(self)
        return make(**{**self.options(), self.turned: parameter})
