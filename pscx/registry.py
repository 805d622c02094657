"""Registries: short names of components for YAML and streams, and the options they were built with."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from pscx.errors import PscxError

T = TypeVar("T")
LONG_LIST = 20
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class RegistrationError(PscxError):
    """A class that cannot be registered."""


class NameTakenError(RegistrationError):
    """A name that another class has: ``taken`` is that class."""

    def __init__(self, kind: str, name: str, taken: type[Any]) -> None:
        super().__init__(f"{kind} '{name}' is taken by {origin(taken) or class_path(taken)}")
        self.kind, self.name, self.taken = kind, name, taken


class Registry(Generic[T]):
    """Maps short names to the classes of one kind; jsonargparse, not the registry, builds the objects.

    A registered class remembers the options that an object was built with, so that :meth:`spec` can write them into
    a stream. Registration refuses a name that is taken and a class of another kind.

    >>> from pscx.samplers import DDRM, SAMPLERS
    >>> SAMPLERS.get("ddrm") is DDRM
    True
    >>> SAMPLERS.spec(DDRM(steps=5))["steps"]
    5
    """

    kinds: ClassVar[dict[type[Any], Registry[Any]]] = {}
    """Every registry, by the base class of its kind."""

    def __init__(self, kind: str, base: type[T], default: str | None = None) -> None:
        self.kind, self.base, self.default = kind, base, default
        self.classes: dict[str, type[T]] = {}
        Registry.kinds[base] = self

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as ``name``, a lower-case word. Raises :class:`RegistrationError`."""
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise RegistrationError(f"a {self.kind} is registered under a lower-case word, as in 'ddrm', got {name!r}")

        def add(cls: type[T]) -> type[T]:
            self._check(name, cls)
            self.classes[name] = cls
            _remember_options(cls)
            return cls

        return add

    def find(self, name: str) -> type[T] | None:
        """The class with that registered name or class name, or none."""
        own = {cls.__name__: cls for cls in self.classes.values()}
        return self.classes.get(name) or own.get(name)

    def get(self, name: str) -> type[T]:
        """:meth:`find`, but raises ``KeyError`` with the choices and the nearest match where there is none."""
        cls = self.find(name)
        if cls is None:
            raise KeyError(f"unknown {self.kind} '{name}'{choices(name, self.classes)}")
        return cls

    def name_of(self, cls: type[T]) -> str:
        """The name under which a class is registered. Raises ``KeyError`` where it is not."""
        for name, known in self.classes.items():
            if cls is known:
                return name
        raise KeyError(f"{cls.__qualname__} is not a registered {self.kind}; register it to use streams")

    def spec(self, component: T) -> dict[str, Any]:
        """Name and all options of a component: ``{"name": ..., option: ...}``.

        Options that are components become specs. Options that a class lists as ``resolved`` are read from its
        attributes. Raises ``KeyError`` if a class is not registered.
        """
        options: dict[str, Any] = dict(component.__dict__["_options"])
        options |= {key: getattr(component, key) for key in getattr(component, "resolved", ())}
        return {"name": self.name_of(type(component)), **{key: _plain(value) for key, value in options.items()}}

    def _check(self, name: str, cls: Any) -> None:
        title = f"{self.kind} '{name}'"
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            got = getattr(cls, "__qualname__", repr(cls))
            raise RegistrationError(f"{title} must be a class that derives from {self.base.__name__}, got {got}")
        missing = getattr(cls, "__abstractmethods__", ())
        if missing:
            raise RegistrationError(f"{title} lacks {', '.join(sorted(missing))}")
        if name in self.classes:
            raise NameTakenError(self.kind, name, self.classes[name])


def choices(name: str, known: Iterable[str]) -> str:
    """Ends the error for an unknown name: the nearest match, if any, and the known names.

    If there is a match, a list of over 20 names is left out.
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


def class_path(cls: type[Any]) -> str:
    """Where a class is defined, as configs write it: ``pscx.samplers.ddrm.DDRM``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def registered(path: str) -> type[Any] | None:
    """The registered class, of any kind, whose :func:`class_path` this is, or none."""
    classes = (cls for registry in Registry.kinds.values() for cls in registry.classes.values())
    return next((cls for cls in classes if class_path(cls) == path), None)


def class_of_kind(kind: str, name: str) -> type[Any] | None:
    """The class of that name among those of a kind, such as ``sampler``, if the kind has been imported, or none."""
    found = (registry.find(name) for registry in Registry.kinds.values() if registry.kind == kind)
    return next(filter(None, found), None)


def origin(cls: type[Any]) -> str | None:
    """The file that defines a class, or none if the class ships with pscx."""
    if cls.__module__.partition(".")[0] == __package__:
        return None
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__


def parameters_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Options of a class by name, each with its type hint resolved."""
    if inspect.unwrap(cls.__init__) is object.__init__:
        return {}
    hints = get_type_hints(cls.__init__)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in parameters}


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
