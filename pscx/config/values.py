"""Plain values: numbers, text, lists, and classes of no registered kind. jsonargparse checks and converts them.

Values that need neither skip it (:func:`is_plain`), because jsonargparse takes long to load.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pscx.config.kinds import alternatives

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

TYPES = (bool, int, float, str, NoneType)
LARGEST = 1 << 64  # size of a whole number: nothing counts further, and a larger one is no float
WORD = re.compile(r"[a-z][a-z0-9_]*")
SPOKEN = ("null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan")  # words that YAML may convert


@lru_cache(1024)
def parser_of(annotation: Any) -> ArgumentParser:
    """A parser of one value, cached because creating it takes much longer than using it."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=None if annotation is Any else annotation)
    return parser


def takes_text(annotation: Any) -> bool:
    """Whether an option takes one or several texts, so that text that looks like YAML is allowed."""
    kinds = set(alternatives(annotation))
    return str in kinds and kinds <= {str, list[str], NoneType}


def takes_numbers(annotation: Any) -> bool:
    """Whether an option takes numbers, booleans, texts or null alone, so that no mapping is a value."""
    return {*alternatives(annotation)} <= {*TYPES, NoneType}


def too_large(value: Any) -> bool:
    """Whether ``value`` or an item of it is a whole number beyond :data:`LARGEST`.

    >>> too_large([1, -(1 << 65)]), too_large(1e300)
    (True, False)
    """
    if isinstance(value, (list, tuple)):
        return any(map(too_large, value))
    return isinstance(value, int) and abs(value) > LARGEST


def is_plain(annotation: Any, value: Any) -> bool:
    """Whether ``value`` is of the type ``annotation`` already, so that jsonargparse would return it unchanged.

    True only for numbers, booleans, null, words and lists of them. An integer for a float has to be converted, so it is
    not plain. False does not mean that the value cannot be converted.

    >>> is_plain(int | None, 5), is_plain(float, 5), is_plain(list[float], [0.5, 1.0])
    (True, False, True)
    """
    origin, args, types = get_origin(annotation), get_args(annotation), alternatives(annotation)
    if types != (annotation,):
        if float in types and type(value) is int:  # the order of the types decides
            return False
        return any(is_plain(one, value) for one in types)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin is list:
        return type(value) is list and all(is_plain(args[0], item) for item in value)
    if annotation is None:
        return value is None
    if annotation not in TYPES or type(value) is not annotation:
        return False
    return annotation is not str or (WORD.fullmatch(value) is not None and value not in SPOKEN)
