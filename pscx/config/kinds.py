"""Which components may stand where: the kind of a type hint, its names, and classes by their import path."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pscx.registry import Registry, registered, registry_of


def imported(path: str) -> type[Any] | None:
    known = registered(path)
    if known is not None:
        return known
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except (ImportError, TypeError, ValueError):  # TypeError: a relative name, such as a path
        return None
    return cls if isinstance(cls, type) else None


def kind_in(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """The registry of a component of this type, which may be narrower than the registry's own, and the type."""
    candidates: Iterable[Any] = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = ((registry_of(c), c) for c in candidates if isinstance(c, type))
    return next(((registry, base) for registry, base in kinds if registry is not None), None)


def kind_of_items(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """:func:`kind_in` of the items of a list, or of a list or null."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    lists = [get_args(one) for one in candidates if get_origin(one) is list]
    return kind_in(lists[0][0]) if lists and lists[0] else None


def names_of(registry: Registry[Any], base: type[Any]) -> list[str]:
    """Names of the components of a type."""
    return sorted(name for name, cls in registry.classes.items() if issubclass(cls, base))
