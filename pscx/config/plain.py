"""Which values are of the type of a hint as they are, so that nothing has to be parsed or converted."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

TYPES = (bool, int, float, str, NoneType)
WORD = re.compile(r"[a-z][a-z0-9_]*")
SPOKEN = ("null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan")  # what YAML may take a word for


def is_plain(annotation: Any, value: Any) -> bool:
    """Whether ``value`` is a plain one of just this type: what jsonargparse would return unchanged.

    Numbers, booleans, null, words and lists of them; what has to be converted, such as an integer for a float, is not
    plain. False says nothing about whether the value may be converted.

    >>> is_plain(int | None, 5), is_plain(float, 5), is_plain(list[float], [0.5, 1.0])
    (True, False, True)
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        if float in args and type(value) is int:  # which of the two it becomes is up to the order
            return False
        return any(is_plain(arg, value) for arg in args)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin is list:
        return type(value) is list and all(is_plain(args[0], item) for item in value)
    if annotation is None or annotation is NoneType:
        return value is None
    if annotation not in TYPES or type(value) is not annotation:
        return False
    return annotation is not str or (WORD.fullmatch(value) is not None and value not in SPOKEN)
