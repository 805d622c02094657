"""The form in which trees are merged: a component is ``{"name": ..., option: ...}``, at every level."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

OWN_NAME = "init_args:name"  # key of an option called name, because the key name is the class


def canonical(value: Any) -> Any:
    """``class_path`` and ``init_args`` folded into ``{"name": ..., option: ...}``, at every level.

    Text that begins with ``~/`` is a path below the home folder.
    """
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    if not isinstance(value, Mapping):
        return value
    value = dict(value)
    init_args = value.pop("init_args", None) or {}
    if not isinstance(init_args, Mapping):  # an unknown option called init_args
        value, init_args = {**value, "init_args": init_args}, {}
    if "class_path" in value and "name" not in value:  # with both, class_path is an unknown option
        value["name"] = value.pop("class_path")
    if "name" in value and "name" in init_args:
        init_args = {OWN_NAME if key == "name" else key: item for key, item in init_args.items()}
    return {str(key): canonical(item) for key, item in {**value, **init_args}.items()}


def class_form(value: Any) -> Any:
    """The inverse of :func:`canonical` for what is not a registered component."""
    if isinstance(value, list):
        return [class_form(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    options = {option_name(key): class_form(item) for key, item in value.items() if key != "name"}
    return {"class_path": value["name"], "init_args": options} if "name" in value else options


def option_name(key: str) -> str:
    """The option that a key of the canonical form stands for."""
    return "name" if key == OWN_NAME else key


def names_a_class(value: Any) -> bool:
    """Whether a canonical value, or a part of it, is a component."""
    if isinstance(value, list):
        return any(map(names_a_class, value))
    return isinstance(value, Mapping) and ("name" in value or any(map(names_a_class, value.values())))
