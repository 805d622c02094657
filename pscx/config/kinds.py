"""The kind of component that a type hint asks for, the names of a kind, and classes by import path."""

from __future__ import annotations

import importlib
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pscx.errors import PscxError
from pscx.registry import Registry, registered, registry_of


class BrokenModuleError(PscxError):
    """The module of a class raises an error of its own when it is imported."""


def imported(path: str) -> type[Any] | None:
    """The class of an import path, or none where there is no such module or class.

    Raises :class:`BrokenModuleError` where the module is there and fails.
    """
    known = registered(path)
    if known is not None:
        return known
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except (ImportError, TypeError, ValueError):  # TypeError: a relative name, such as a path
        return None
    except (Exception, SystemExit) as error:  # of the module itself, which may be anything
        reason = " ".join(str(error).split())
        raise BrokenModuleError(f"'{module}' cannot be imported: {type(error).__name__}: {reason}") from error
    return cls if isinstance(cls, type) else None


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def kind_in(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """The registry of this type, and the type itself, which may be narrower than the registry's."""
    kinds = ((registry_of(one), one) for one in alternatives(annotation) if isinstance(one, type))
    return next(((registry, base) for registry, base in kinds if registry is not None), None)


def kind_of_items(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """:func:`kind_in` of the items of a list, or of a list or null."""
    lists = [get_args(one) for one in alternatives(annotation) if get_origin(one) is list]
    return kind_in(lists[0][0]) if lists and lists[0] else None


def names_of(registry: Registry[Any], base: type[Any]) -> list[str]:
    """Names of the components of a type."""
    return sorted(name for name, cls in registry.classes.items() if issubclass(cls, base))
