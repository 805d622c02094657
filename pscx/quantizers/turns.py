"""The cells of a group of symbols, as a coder asks for them that finds the symbols turn after turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from pscx.signal.distributions import Array, Integers

TOGETHER = 1 << 14  # most measurements that an encoder is given at once, unless one turn has more


class CellsInTurn(ABC):
    """Lower edges of the cells of a group, and the turns in which a decoder finds the symbols.

    Measurements are numbered from 0 in the group. An encoder may be given several of a decoder's turns as one.
    """

    @abstractmethod
    def lower(self, rows: Integers, symbols: Integers) -> Array:
        """Lower edges, less the prediction, of the cells of these symbols at numbered measurements.

        In signal units, ``-inf`` for symbol 0 and ``inf`` for symbol ``alphabet``. Only measurements of this or an
        earlier turn are asked for.
        """

    @abstractmethod
    def turns(self) -> Iterator[Integers]:
        """Numbers of the measurements of each turn, which are decoded together."""

    @abstractmethod
    def turn(self, rows: Integers) -> Integers:
        """The turn in which a decoder finds each of the numbered measurements."""

    @abstractmethod
    def take(self, rows: Integers, symbols: Integers) -> None:
        """Take the symbols of a turn; the cells of later measurements may depend on them."""

    def edges(self, symbols: Integers) -> Array | None:
        """:meth:`lower` of symbols in rows of each kind, ``(kinds, symbols)``, if the rows of a group are of few kinds.

        None, the default, where they are not, or where so many rows are found together that nothing is gained.
        """
        return None

    def kinds(self, rows: Integers) -> Integers:
        """The kind of each of the numbered rows of this turn, counted from 0 as :meth:`edges` does."""
        raise NotImplementedError("cells without edges() have no kinds")
