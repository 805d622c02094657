"""What a codec may ask of a target."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pscx.codecs.base import SignalCodec
from pscx.errors import PscxError
from pscx.rate_control.trials import Setting, Trials
from pscx.registry import Registry


class TargetError(PscxError):
    """A target that an image or a codec cannot meet."""


class Target(ABC):
    """What a stream is to be. The encoder alone has one; the stream carries the codec's parameter as always."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    @abstractmethod
    def check(self, codec: SignalCodec) -> None:
        """Raise ``ValueError`` where no parameter of this codec could be chosen for the target."""

    @abstractmethod
    def reach(self, trials: Trials) -> Setting:
        """The setting of the stream that is wanted. Raises :class:`TargetError` where there is none.

        A search ends after few encodings, and takes the same way each time.
        """

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool | None:
        """Whether a stream is what the target asks for, as its parameter and its ``size`` in bytes show.

        ``area`` is the number of pixels. None where these cannot tell.
        """
        return None

    def outcome(self, trials: Trials, setting: Setting) -> str:
        """What the stream at the setting that was reached came to, for a line of output; empty if its size tells."""
        return ""


def check_parameter(name: str, codec: SignalCodec) -> None:
    """Raise ``ValueError`` where the codec has no parameter that the target ``name`` could choose."""
    if codec.parameter is None:
        raise ValueError(
            f"target {name} needs a codec with a parameter, such as psc with the quantizer trellis, uniform, deadzone "
            f"or rdo: this one has none"
        )


TARGETS: Registry[Target] = Registry("target", Target)
