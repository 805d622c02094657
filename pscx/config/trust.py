"""Which classes and values a configuration may name, by its origin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pscx.config.kinds import BrokenModuleError, imported
from pscx.config.plugins import HOW, PACKAGE
from pscx.registry import Registry


class Trust(ABC):
    """Rules of :class:`pscx.config.Checker` for one origin. An error's text continues a sentence about the key."""

    @abstractmethod
    def class_called(self, registry: Registry[Any], name: str) -> type[Any] | None:
        """The class of a name that is not registered, or none. Raises ``ValueError`` if this origin may not name it."""

    @abstractmethod
    def check(self, value: Any) -> None:
        """Raise ``ValueError`` for a value of an option that is not allowed."""


class Own(Trust):
    """A user's own files and options: any class that can be imported, and any value."""

    def class_called(self, registry: Registry[Any], name: str) -> type[Any] | None:
        if "." not in name:
            return None
        try:
            cls = imported(name)
        except BrokenModuleError as error:
            raise ValueError(f"cannot be '{name}': {error}") from error
        if cls is None:
            raise ValueError(f"cannot import '{name}'" + (f": {HOW}" if name.startswith(f"{PACKAGE}.") else ""))
        return cls

    def check(self, value: Any) -> None:
        pass
