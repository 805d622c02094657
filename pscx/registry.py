"""Names of components: what YAML and streams call them, and what they were built with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, TypeVar

T = TypeVar("T")
LONG_LIST = 20


class Registry(Generic[T]):
    """Maps short names to the classes of one kind; jsonargparse, not the registry, builds the objects.

    A registered class remembers the options that an object was built with, so that :meth:`spec` can write them into
    a stream. Registration refuses a name that is taken and a class of another kind.
    """

    kinds: ClassVar[dict[type[Any], Registry[Any]]] = {}
    """Every registry, by the base class of its kind."""

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind, self.base = kind, base
        self.classes: dict[str, type[T]] = {}
        Registry.kinds[base] = self

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as ``name``. Raises ``ValueError`` or ``TypeError``."""

        def add(cls: type[T]) -> type[T]:
            if not issubclass(cls, self.base):
                raise TypeError(f"{self.kind} '{name}' must derive from {self.base.__name__}, got {cls.__qualname__}")
            if name in self.classes:
                taken = self.classes[name]
                raise ValueError(f"{self.kind} '{name}' is taken by {taken.__module__}.{taken.__qualname__}")
            self.classes[name] = cls
            _remember_options(cls)
            return cls

        return add

    def get(self, name: str) -> type[T]:
        """The class of that name. Raises ``KeyError`` with the choices and the nearest match."""
        if name in self.classes:
            return self.classes[name]
        raise KeyError(f"unknown {self.kind} '{name}'{choices(name, self.classes)}")

    def name_of(self, component: T) -> str:
        """The name under which the class of ``component`` is registered. Raises ``KeyError`` where it is not."""
        for name, cls in self.classes.items():
            if type(component) is cls:
                return name
        raise KeyError(f"{type(component).__qualname__} is not a registered {self.kind}; register it to use streams")

    def spec(self, component: T) -> dict[str, Any]:
        """Name and all options of a component: ``{"name": ..., option: ...}``.

        Options that are components themselves become specs; those that a class lists as ``resolved`` are what the
        attribute of that name holds. Raises ``KeyError`` where a class is not registered.
        """
        options: dict[str, Any] = dict(component.__dict__["_options"])
        options |= {key: getattr(component, key) for key in getattr(component, "resolved", ())}
        return {"name": self.name_of(component), **{key: _plain(value) for key, value in options.items()}}


def choices(name: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: the nearest match, if any, and what is known.

    Where there is a match, a list that would fill the screen is left out.
    """
    known = sorted(known)
    near = get_close_matches(name, known, 1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    if near and len(known) > LONG_LIST:
        return hint
    return f"{hint}; choose from {', '.join(known)}" if known else "; there is nothing to choose from"


def registry_of(cls: type[Any]) -> Registry[Any] | None:
    """The registry of the kind that ``cls`` belongs to, or none."""
    return next((registry for base, registry in Registry.kinds.items() if issubclass(cls, base)), None)


def _plain(value: Any) -> Any:
    registry = registry_of(type(value))
    return value if registry is None else registry.spec(value)


def _remember_options(cls: type[Any]) -> None:
    init = cls.__init__
    signature = inspect.signature(init)
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        values = {**defaults, **dict(list(bound.arguments.items())[1:])}
        init(self, *args, **kwargs)
        self.__dict__["_options"] = {key: values[key] for key in signature.parameters if key in values}

    cls.__init__ = wrapped
