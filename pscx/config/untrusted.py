"""Rules for untrusted configurations: they import nothing."""

from __future__ import annotations

from typing import Any

from pscx.config.canonical import names_a_class
from pscx.config.plugins import HOW
from pscx.config.trust import Trust
from pscx.registry import NAME, Registry, registered

STREAM_LIMIT = 4096
STREAM_FAMILY = "psc"  # the codec family of a spec that names none


class WrittenRun(Trust):
    """The saved config of somebody else's run: registered classes only, by name or import path."""

    def class_called(self, registry: Registry[Any], name: str) -> type[Any] | None:
        cls = registered(name)
        if cls is None and "." in name:
            raise ValueError(f"'{name[:200]}' is not a registered class, and no other is imported here; {HOW}")
        return cls

    def check(self, value: Any) -> None:
        if names_a_class(value):
            raise ValueError("names a class of no registered kind, and such classes are not imported here")


class Stream(Trust):
    """A stream's spec: registered names, plain words, and numbers of at most 4096."""

    def class_called(self, registry: Registry[Any], name: str) -> type[Any] | None:
        raise ValueError(f"unknown {registry.kind} {name[:64]!r}; if it is in a plugin, {HOW}")

    def check(self, value: Any) -> None:
        for item in value if isinstance(value, list) else [value]:
            word = isinstance(item, str) and NAME.fullmatch(item)
            number = isinstance(item, (int, float)) and abs(item) <= STREAM_LIMIT
            if not (item is None or word or number):
                raise ValueError(f"must be a word or a number of at most {STREAM_LIMIT} in a stream, got {item!r}")
