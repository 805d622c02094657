"""Configuration: flat YAML files, recipes and command line options become one checked tree of components.

A component is written as a short name (``sampler: ddrm``), with options (``{name: ddrm, steps: 5}``) or in
jsonargparse's form (``class_path``, ``init_args``). Sources are layers: a later one adds options to a component of the
same name and replaces a component of another name. :class:`Checker` checks every name against the registries and every
value against its type hint, and returns the tree in jsonargparse's form; :func:`pscx.config.build` builds its objects.

jsonargparse checks plain values (:mod:`pscx.config.values`), saves configs and prints help. It does not check whole
trees here: its error lists every branch of every union, and gives neither the source of the value nor the nearest name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, get_args

from pscx.config.build import built
from pscx.config.canonical import class_form, option_name
from pscx.config.kinds import kind_in, kind_of_items, names_of
from pscx.config.layers import ConfigError
from pscx.config.plugins import failure_of
from pscx.config.sources import Sources
from pscx.config.trust import Own, Trust
from pscx.config.values import is_plain, parser_of, takes_numbers, takes_text, too_large
from pscx.config.words import deeper, describe, join, sentence, shortened, what
from pscx.registry import Registry, choices, class_path, parameters_of

LIGHT = ("sampler", "row rule", "quantizer", "coder", "restoration", "target", "metric", "speed")
"""Kinds whose components hold no network and no data: they are built once more to be checked."""


@dataclass(frozen=True)
class Checker(Sources):
    """Checks a tree of components that was merged from ``layers``.

    ``trust`` says which classes and values this origin may name; see :mod:`pscx.config.untrusted`.
    """

    trust: Trust = field(default_factory=Own)

    def component(
        self, registry: Registry[Any], value: Any, path: str, base: type[Any] | None = None
    ) -> dict[str, Any]:
        """``{"class_path": ..., "init_args": ...}`` of one component at ``path``, such as ``model.codec.sampler``.

        ``base`` is the required type, if it is narrower than the registry's own.
        """
        base = base or registry.base
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and "name" not in value and registry.default is not None:
            value = {"name": registry.default, **value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            names = ", ".join(names_of(registry, base))
            self.fail(path, f"needs the name of a {registry.kind}: choose from {names}")
        cls = self._class(registry, value["name"], path, base)
        options = {option_name(key): option for key, option in value.items() if key != "name"}
        title = f"{registry.kind} '{value['name']}'"
        form = {"class_path": class_path(cls), "init_args": self.options(cls, options, path, title)}
        if registry.kind in LIGHT:
            self._try(form, path)
        return form

    def components(self, registry: Registry[Any], base: type[Any], values: Any, path: str) -> list[dict[str, Any]]:
        """:meth:`component` of each of a list at ``path``, such as ``model.metrics``."""
        if not isinstance(values, list):
            self.fail(path, f"must be a list, each item the name of a {registry.kind} or a mapping, got {values!r}")
        return [self.component(registry, value, path, base) for value in values]

    def find(self, registry: Registry[Any], name: Any, path: str) -> type[Any]:
        """The class of that name. Raises :class:`ConfigError` if there is none."""
        if not isinstance(name, str):
            self.fail(path, f"needs the name of a {registry.kind}: choose from {', '.join(sorted(registry.classes))}")
        return self._class(registry, name, path, registry.base)

    def options(self, cls: type[Any], values: Mapping[str, Any], path: str, title: str) -> dict[str, Any]:
        """Check options of ``cls``: none unknown, missing or of a wrong type. ``title`` names ``cls`` in errors."""
        parameters = parameters_of(cls)
        for key in values:
            if key not in parameters:
                self.fail(join(path, key), f"{title} has no option '{key}'{deeper(parameters, path, key)}")
        needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
        given = {key: value for key, value in values.items() if value is not None or key not in needed}
        checked = {key: self.value(parameters[key].annotation, value, join(path, key)) for key, value in given.items()}
        for key in parameters:
            if key in needed - given.keys():
                self.fail(join(path, key), f"is missing{what(parameters[key].annotation)}")
        return checked

    def value(self, annotation: Any, value: Any, path: str) -> Any:
        """A component, or a plain value of the type ``annotation``."""
        kind = kind_in(annotation)
        if kind is not None and not (value is None and NoneType in get_args(annotation)):
            registry, base = kind
            return self.component(registry, value, path, base)
        items = kind_of_items(annotation)
        if items is not None and value is not None:
            return self.components(*items, value, path)
        try:
            self.trust.check(value)
        except ValueError as error:
            self.fail(path, str(error))
        return self._plain(annotation, value, path)

    def _try(self, form: Mapping[str, Any], path: str) -> None:
        """Build a component to check its options, and add its path to the constructor's error."""
        try:
            built(form)
        except ConfigError as error:
            option = re.fullmatch(r"[a-z_]+\.([a-z_]+)(?: of \w+)? (.*)", str(error), re.DOTALL)
            if option is None or option[1] not in form["init_args"]:
                raise
            self.fail(join(path, option[1]), option[2])

    def _class(self, registry: Registry[Any], name: str, path: str, base: type[Any]) -> type[Any]:
        failure = failure_of(registry, name)
        if failure is not None:
            self.fail(path, f"{registry.kind} '{name}' is not available: {failure}")
        cls = registry.find(name) or self._class_called(registry, name, path)
        if cls is None:
            self.fail(path, f"unknown {registry.kind} '{name}'{choices(name, names_of(registry, base))}")
        if not issubclass(cls, base):
            self.fail(path, f"cannot be '{name}': choose from {', '.join(names_of(registry, base))}")
        return cls

    def _class_called(self, registry: Registry[Any], name: str, path: str) -> type[Any] | None:
        try:
            cls = self.trust.class_called(registry, name)
        except ValueError as error:
            self.fail(path, str(error))
        if cls is not None and not issubclass(cls, registry.base):
            self.fail(path, f"'{name}' is not a {registry.kind}: it must derive from {registry.base.__name__}")
        return cls

    def _plain(self, annotation: Any, value: Any, path: str) -> Any:
        if too_large(value):
            self.fail(path, self._sized(annotation, value))
        if is_plain(annotation, value):
            return value
        from jsonargparse import ArgumentError  # slow to import

        if value is None and annotation not in (Any, None) and type(None) not in get_args(annotation):
            self.fail(path, f"must be {describe(annotation)}, got null")
        layer = self.layer_of(path)
        text = layer.text if layer is not None and layer.source == f"--{path}" else None
        if layer is not None and layer.problem and not takes_text(annotation):
            self.fail(path, layer.problem)
        try:
            checked = parser_of(annotation).parse_object({"value": class_form(value)})
        except (ArgumentError, OverflowError) as error:  # such as a text of 400 digits for a number
            if text is not None and takes_text(annotation):
                return text
            if (isinstance(value, Mapping) and not takes_numbers(annotation)) or annotation in (None, Any):
                self.fail(path, sentence(str(error)))
            self.fail(path, f"must be {describe(annotation)}, got {shortened(value)}")
        found = checked.as_dict()["value"]
        if too_large(found):
            self.fail(path, self._sized(annotation, found))
        return found

    def _sized(self, annotation: Any, value: Any) -> str:
        return f"must be {describe(annotation)} of a size up to 2^64, got {shortened(value)}"
