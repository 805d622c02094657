"""Whether a plugin's class keeps to the signatures and attributes of its base class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, NoneType
from typing import Any, get_type_hints

from pscx.config.kinds import alternatives
from pscx.config.words import describe
from pscx.registry import RegistrationError

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
PLAIN = (bool, int, float, str)


def check_contract(title: str, cls: type[Any], base: type[Any]) -> None:
    """Raise :class:`RegistrationError` where a class of a kind breaks the contract of its ``base``.

    Its methods must take the arguments that those of the base take, and plain attributes must have the base's types.
    ``title`` names the class.
    """
    for name, method in _own(cls, base):
        wanted = inspect.signature(getattr(base, name))
        if not any(parameter.kind in VARIABLE for parameter in wanted.parameters.values()) and not _takes(
            method, wanted
        ):
            asked, got = _shown(wanted), _shown(inspect.signature(method))
            raise RegistrationError(f"{title}: the method {name} must take {asked}, but it takes {got}")
    for name, kind in get_type_hints(base).items():
        value = inspect.getattr_static(cls, name, None)
        if value is None or hasattr(value, "__get__") or kind not in PLAIN:
            continue
        if not _is(kind, value):
            raise RegistrationError(f"{title}: the attribute {name} must be {describe(kind)}, got {value!r}")


def check_default(title: str, name: str, option: inspect.Parameter) -> None:
    """Raise :class:`RegistrationError` where an option of plain types has a default of another type."""
    kinds = alternatives(option.annotation)
    if option.default is option.empty or not all(kind in (*PLAIN, NoneType, None) for kind in kinds):
        return
    if not any(option.default is None if kind in (NoneType, None) else _is(kind, option.default) for kind in kinds):
        wanted = describe(option.annotation)
        raise RegistrationError(f"{title}: the default of the option '{name}' must be {wanted}, got {option.default!r}")


def _is(kind: type[Any], value: object) -> bool:
    """Whether a value is of a plain type; an integer is a number, and true and false are neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _own(cls: type[Any], base: type[Any]) -> list[tuple[str, Callable[..., Any]]]:
    """Public methods of a class that the base has too."""
    names = [name for name in dir(base) if not name.startswith("_")]
    pairs = [(name, inspect.getattr_static(base, name), inspect.getattr_static(cls, name)) for name in names]
    return [(name, own) for name, its, own in pairs if isinstance(its, FunctionType) and isinstance(own, FunctionType)]


def _takes(method: Callable[..., Any], wanted: inspect.Signature) -> bool:
    """Whether a method can be called with all arguments of a signature, those by position and those by name."""
    parameters = wanted.parameters.values()
    by_name = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    by_place = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    try:
        inspect.signature(method).bind(*by_place, **dict.fromkeys(by_name))
    except TypeError:
        return False
    return True


def _shown(signature: inspect.Signature) -> str:
    """The names of a signature's parameters, without types and without ``self``: ``(problem, indices)``."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare[1:]))
