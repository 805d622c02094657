"""Contract of a target, the objective of rate control."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pscx.codecs.base import SignalCodec
from pscx.errors import PscxError
from pscx.rate_control.trials import Setting, Trials
from pscx.registry import Registry


class TargetError(PscxError):
    """A target that an image or a codec cannot meet."""


class Target(ABC):
    """Rate-control objective. Only the encoder has one; the stream carries the codec's parameter as always."""

    references: tuple[str, ...] = ()
    """What to cite: keys of ``pscx/catalogue/citations.bib``, or whole BibTeX entries."""

    @abstractmethod
    def check(self, codec: SignalCodec) -> None:
        """Raise ``ValueError`` if the target cannot choose a parameter of this codec."""

    @abstractmethod
    def reach(self, trials: Trials) -> Setting:
        """The setting that meets the target. Raises :class:`TargetError` if there is none.

        The search takes few encodings and is deterministic.
        """

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool | None:
        """Whether a stream meets the target, given its parameter and its ``size`` in bytes.

        ``area`` is the number of pixels. None if these do not decide it.
        """
        return None

    def outcome(self, trials: Trials, setting: Setting) -> str:
        """The result at the chosen setting, for a line of output; empty if the size says it."""
        return ""


def check_parameter(name: str, codec: SignalCodec) -> None:
    """Raise ``ValueError`` if the codec has no parameter for the target ``name`` to choose."""
    if codec.parameter is None:
        raise ValueError(
            f"target {name} needs a codec with a parameter, such as psc with the quantizer trellis, uniform, deadzone "
            f"or rdo: this one has none"
        )


TARGETS: Registry[Target] = Registry("target", Target)
