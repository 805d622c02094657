"""Plain values, checked by jsonargparse: numbers, text, lists, and classes that are of no registered kind."""

from __future__ import annotations

from functools import lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


@lru_cache(1024)
def parser_of(annotation: Any) -> ArgumentParser:
    """A parser of one value; to make it takes a hundred times as long as to use it."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=None if annotation is Any else annotation)
    return parser


def takes_text(annotation: Any) -> bool:
    """Whether an option is one or several names, so that what looks like YAML may be one."""
    kinds = set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
    return str in kinds and kinds <= {str, list[str], NoneType}
