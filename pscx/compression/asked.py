"""The target that is asked for, and the setting of the codec that reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import SupportsFloat

from pscx.config import ConfigError, build
from pscx.config.values import too_large
from pscx.config.words import shortened
from pscx.errors import PscxError
from pscx.rate_control import TARGETS, Target
from pscx.rate_control.trials import Setting, Trials


def target_of(asked: Mapping[str, float | None]) -> Target | None:
    """The one target of those that has a value, or none."""
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise PscxError(f"at most one of {', '.join(asked)} may be given, got {' and '.join(given)}")
    if not given:
        return None
    value = checked_number(given[0], asked[given[0]])
    try:
        return build(TARGETS.get(given[0]), {"value": value})
    except ConfigError as error:
        raise PscxError(str(error)) from error


def checked_number(name: str, value: object) -> float:
    """A number that a caller gives, of any type of numpy or torch too, as one of Python.

    Raises :class:`ConfigError` for what is none, and for whole numbers beyond 2^64.
    """
    if too_large(value):
        raise ConfigError(f"{name} must be a number of a size up to 2^64, got {shortened(value)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    with suppress(TypeError, ValueError):  # such as a tensor of several numbers
        if isinstance(value, SupportsFloat) and not isinstance(value, bool):
            return float(value)
    raise ConfigError(f"{name} must be a number, got {shortened(value)}")


def setting_for(target: Target | None, trials: Trials) -> Setting:
    """What reaches the target; without one, the codec as it is. Raises :class:`PscxError` where nothing does."""
    if target is None:
        return Setting(trials.codec.parameter)
    try:
        target.check(trials.codec)
    except ValueError as error:
        raise PscxError(str(error)) from error
    return target.reach(trials)
