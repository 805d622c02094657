"""The target that is asked for, and the setting of the codec that reaches it."""

from __future__ import annotations

from collections.abc import Mapping

from pscx.config import ConfigError, build
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
    try:
        return build(TARGETS.get(given[0]), {"value": asked[given[0]]})
    except ConfigError as error:
        raise PscxError(str(error)) from error


def setting_for(target: Target | None, trials: Trials) -> Setting:
    """What reaches the target; without one, the codec as it is. Raises :class:`PscxError` where nothing does."""
    if target is None:
        return Setting(trials.codec.parameter)
    try:
        target.check(trials.codec)
    except ValueError as error:
        raise PscxError(str(error)) from error
    return target.reach(trials)
