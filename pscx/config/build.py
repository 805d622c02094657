"""Builds objects from checked trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pscx.config.kinds import imported
from pscx.config.layers import ConfigError
from pscx.registry import parameters_of

T = TypeVar("T")


def build(cls: Callable[..., T], options: Mapping[str, Any]) -> T:
    """Build ``cls`` with checked options. Raises :class:`ConfigError` if a constructor rejects them."""
    ready = {key: built(value) for key, value in options.items()}
    try:
        return cls(**ready)
    except (ValueError, OSError) as error:  # raised by constructors for options out of range and missing files
        raise ConfigError(str(error)) from error


def class_of(form: Mapping[str, Any]) -> type[Any]:
    """The class of a checked ``{"class_path": ..., "init_args": ...}``."""
    cls = imported(form["class_path"])
    assert cls is not None  # it was checked
    return cls


def with_defaults(value: Any) -> Any:
    """A checked tree with the default of every option that was not given."""
    if isinstance(value, (list, tuple)):
        return [with_defaults(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: with_defaults(item) for key, item in value.items()}
    options = parameters_of(class_of(value))
    defaults = {key: option.default for key, option in options.items() if option.default is not option.empty}
    given = value.get("init_args") or {}
    return {"class_path": value["class_path"], "init_args": with_defaults({**defaults, **given})}


def built(value: Any) -> Any:
    """A checked value in which each ``class_path`` with ``init_args`` is replaced by an object; see :func:`build`."""
    if isinstance(value, list):
        return [built(item) for item in value]
    if not isinstance(value, Mapping) or "class_path" not in value:
        return value
    return build(class_of(value), value.get("init_args") or {})
