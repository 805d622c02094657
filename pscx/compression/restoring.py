"""The restoration that a decoder is asked for, in place of the codec's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pscx.codecs import SignalCodec
from pscx.codecs.specs import codec_spec, recipe_number
from pscx.config import Checker, built, option_layer
from pscx.config.recipes import RECIPES
from pscx.errors import PscxError
from pscx.restorations import RESTORATIONS, Restoration

TABLE = Path(__file__).with_name("perception.yaml")

Asked: TypeAlias = Restoration | Mapping[str, Any] | str | None
"""A restoration: an object, a name, or a name with options; none for the codec's own."""


@dataclass(frozen=True)
class Choice:
    """How pictures are restored: by ``restoration``, by a recipe's table at ``perception``, or as the codec does it.

    Args:
        restoration: takes the place of the codec's own; or none.
        perception: from 0 (least error) to 1 (most realistic): :func:`restoration_at`; or none.

    Raises:
        PscxError: both are given, or ``perception`` lies outside of [0, 1].
    """

    restoration: Restoration | None = None
    perception: float | None = None

    def __post_init__(self) -> None:
        if self.perception is None:
            return
        if not 0 <= self.perception <= 1:
            raise PscxError(f"perception must lie in [0, 1], got {self.perception}")
        if self.restoration is not None:
            raise PscxError("at most one of restoration and perception may be given, got both")

    @classmethod
    def asked(cls, restoration: Asked, perception: float | None, eta: float | None = None) -> Choice:
        """From what a user says; with ``eta``, samples are drawn with that share of fresh noise.

        Raises :class:`PscxError` where the restoration is unknown or has no such option, or only ``eta`` is given.
        """
        if eta is not None and restoration is None:
            raise PscxError("eta needs a restoration from samples drawn with it, such as mean or sample")
        if isinstance(restoration, str):
            parsed = option_layer("restoration", restoration).values["restoration"]
            restoration = parsed if isinstance(parsed, Mapping) else restoration
        made = restoration if isinstance(restoration, Restoration) or restoration is None else _made(restoration)
        if eta is not None:
            made = _made({"name": "drawn", "restoration": restoration, "eta": eta})
        return cls(made, perception)

    @property
    def exact(self) -> bool:
        """Whether pictures of a bit-exact stream are the same in any batch."""
        return self.restoration is None or self.restoration.exact

    def of(self, recipe: int) -> Restoration | None:
        """The restoration for a stream of the recipe of this number, or 0; none for the codec's own.

        Raises :class:`PscxError` where the recipe has no table.
        """
        return self.restoration if self.perception is None else restoration_at(self.perception, RECIPES.get(recipe))

    def of_codec(self, codec: SignalCodec) -> Restoration | None:
        """:meth:`of` the recipe that a codec is. Raises :class:`PscxError` also where the codec cannot restore so."""
        restoration = self.of(recipe_number(codec_spec(codec)) if self.perception is not None else 0)
        if restoration is not None:
            codec.restored_by(restoration)
        return restoration


def restoration_at(perception: float, recipe: str | None) -> Restoration:
    """The entry of a recipe's table that is nearest to ``perception``, in [0, 1]; of two the more realistic.

    Raises :class:`PscxError` where there is no table.
    """
    settings = settings_of(recipe)
    return _made(settings[floor(perception * (len(settings) - 1) + 0.5)])


def settings_of(recipe: str | None) -> list[dict[str, Any]]:
    """A recipe's restorations, from the least error to the most realistic. Raises :class:`PscxError` where none are."""
    table = perception_table()
    if recipe not in table:
        raise PscxError(
            f"perception is for streams of the recipes {', '.join(sorted(table))}, and this codec is "
            f"{'no recipe' if recipe is None else recipe}: say which restoration instead"
        )
    return table[recipe]


def settings_by_perception(recipe: str | None) -> dict[float, Restoration]:
    """All different entries of a recipe's table, each by the least perception that chooses it; none without a table."""
    settings = perception_table().get(recipe or "", [])
    places = {json.dumps(one): place for place, one in reversed(list(enumerate(settings)))}
    return {place / max(len(settings) - 1, 1): _made(settings[place]) for place in sorted(places.values())}


@lru_cache(1)
def perception_table() -> dict[str, list[dict[str, Any]]]:
    """The restorations of each recipe, by its name."""
    table: dict[str, list[dict[str, Any]]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return table


def _made(asked: Mapping[str, Any] | str) -> Restoration:
    """Raises :class:`pscx.config.ConfigError`."""
    layer = option_layer("restoration", dict(asked) if isinstance(asked, Mapping) else asked)
    made: Restoration = built(Checker([layer]).component(RESTORATIONS, layer.values["restoration"], "restoration"))
    return made
