"""Every registered component in words: what ``pscx components`` shows."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pscx.captioners import CAPTIONERS
from pscx.codecs import CODECS
from pscx.coders import CODERS
from pscx.config import describe
from pscx.config.plugins import failure_of, shown
from pscx.data import DATA
from pscx.errors import PscxError
from pscx.metrics import METRICS
from pscx.priors import PRIORS, SPEEDS
from pscx.quantizers import QUANTIZERS
from pscx.rate_control import TARGETS
from pscx.registry import Registry, choices, class_path, origin, parameters_of
from pscx.restorations import RESTORATIONS
from pscx.rows import ROWS
from pscx.runs.modules import MODULES
from pscx.samplers import SAMPLERS

SECTIONS: dict[str, Registry[Any]] = {
    "codec": CODECS,
    "prior": PRIORS,
    "speed": SPEEDS,
    "sampler": SAMPLERS,
    "rows": ROWS,
    "quantizer": QUANTIZERS,
    "coder": CODERS,
    "restoration": RESTORATIONS,
    "restoration_sampler": SAMPLERS,
    "caption": CAPTIONERS,
    "target": TARGETS,
    "metrics": METRICS,
    "model": MODULES,
    "data": DATA,
}
"""The kinds of components by the keys that configs have for them."""


@dataclass(frozen=True)
class Entry:
    """A registered component."""

    registry: Registry[Any]
    name: str
    cls: type[Any]

    @property
    def doc(self) -> str:
        """The docstring of the class itself; empty where it has none."""
        return inspect.cleandoc(self.cls.__doc__ or "")


def select(name: str | None, kind: str | None) -> tuple[list[Entry], bool]:
    """The components of a kind, those called ``name`` (which may be a kind, too), or all.

    The second answer is whether components were asked for by their own name. Raises :class:`PscxError` where there
    are none.
    """
    registries = _kinds()
    if kind is not None and kind not in registries:
        raise PscxError(f"unknown kind of component '{kind}'{choices(kind, registries)}")
    wanted = dict.fromkeys(registries.values() if kind is None else [registries[kind]])
    if name in registries and kind is None:
        wanted = {registries[name]: None}
        name = None
    entries = [Entry(registry, *item) for registry in wanted for item in sorted(registry.classes.items())]
    if name is None:
        return entries, False
    found = [entry for entry in entries if name in (entry.name, entry.cls.__name__)]
    failure = next(filter(None, (failure_of(registry, name) for registry in wanted)), None)
    if failure is not None:
        raise PscxError(f"component '{name}' is not available: {failure}")
    if not found:
        known = {entry.name for entry in entries} | (registries.keys() if kind is None else set())
        raise PscxError(f"there is no component or kind '{name}'{choices(name, known)}")
    return found, True


def as_text(entries: list[Entry], *, whole: bool) -> str:
    """A paragraph a kind; with ``whole`` docstrings, else the first line of each."""
    parts = []
    for registry, group in groupby(entries, lambda entry: entry.registry):
        parts += [f"{registry.kind}:", *(line for entry in group for line in _lines(entry, whole))]
    return "\n".join(parts)


def facts(entry: Entry) -> dict[str, Any]:
    """The same in plain values; ``plugin`` is the file of a plugin, or none for what ships with pscx."""
    options = [
        {"name": key, "type": describe(option.annotation), **_default(option)}
        for key, option in parameters_of(entry.cls).items()
    ]
    return {
        "kind": entry.registry.kind,
        "name": entry.name,
        "class_path": class_path(entry.cls),
        "plugin": origin(entry.cls),
        "doc": entry.doc,
        "options": options,
    }


def _kinds() -> dict[str, Registry[Any]]:
    return {**SECTIONS, **{registry.kind: registry for registry in SECTIONS.values()}}


def _lines(entry: Entry, whole: bool) -> list[str]:
    doc = entry.doc.splitlines() or ["(no description)"]
    source = origin(entry.cls)
    lines = [f"  {entry.name}: {doc[0]}"]
    lines += [f"    from {shown(source)}"] if source else []
    if whole:
        lines += [f"    {line}".rstrip() for line in [f"class {class_path(entry.cls)}", *doc[1:], ""]]
    for key, option in parameters_of(entry.cls).items():
        required = option.default is option.empty
        default = "" if required else f" = {_as_yaml(option.default)}"
        lines.append(f"    {key}{default}  ({describe(option.annotation)}{', required' if required else ''})")
    return lines


def _as_yaml(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _default(option: inspect.Parameter) -> dict[str, Any]:
    """The default as JSON can have it, or nothing for an option that must be given."""
    if option.default is option.empty:
        return {}
    try:
        json.dumps(option.default)
    except TypeError:
        return {"default": repr(option.default)}
    return {"default": option.default}
