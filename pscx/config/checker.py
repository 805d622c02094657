"""Configuration: flat YAML files, recipes and command line options become one checked tree of components.

A component is written as a short name (``sampler: ddrm``), with options (``{name: ddrm, steps: 5}``) or in
jsonargparse's form (``class_path``, ``init_args``). Sources are layers: a later one adds options to a component of the
same name and takes the place of one of another name. :class:`Checker` gives the tree in jsonargparse's form, every name
and value checked against the registries and the type hints; :func:`build` makes objects of it.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pscx.config.plugins import HOW, PACKAGE, failure_of
from pscx.config.recipes import read_recipe
from pscx.errors import PscxError
from pscx.registry import NAME, Registry, choices, class_path, parameters_of, registered, registry_of
from pscx.runtime.safe_yaml import UnreadableError, parse_yaml, read_bounded

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

T = TypeVar("T")
OPTION = re.compile(r"--((?:model|data|trainer)(?:\.[\w.-]+)?|recipe|config)(?:=(.*))?", re.DOTALL)
SECTIONS = ("model", "data", "trainer")
OWN_NAME = "init_args:name"  # stands for an option called name, as name stands for the class
RUN_OPTIONS = ("seed_everything", "ckpt_path", "verbose", "weights_only", "return_predictions")
"""What a config may hold beside its sections: the options of Lightning's commands."""
STREAM_LIMIT = 4096
LIGHT = ("sampler", "row rule", "quantizer", "coder", "restoration", "target", "metric")
"""Kinds whose components hold no network and no data: they are built once more to be checked."""


class ConfigError(PscxError):
    """A configuration that cannot be used; the message names the source, the key and what is allowed."""


@dataclass(frozen=True)
class Layer:
    """Values from one source: ``source`` is a file's name, an option or ``recipe 'default'``.

    ``text`` is an option's value as it was given, where it was read as YAML or could not be: ``problem`` says why.
    """

    source: str
    values: dict[str, Any]
    text: str | None = None
    problem: str = ""


def read_yaml(path: str | Path) -> Layer:
    """One YAML file as a layer. Raises :class:`ConfigError` where it is missing or not a mapping."""
    try:
        values = parse_yaml(read_bounded(path), f"'{path}'")
    except FileNotFoundError:
        raise ConfigError(f"no such config file: '{path}'") from None
    except OSError as error:
        raise ConfigError(f"cannot read the config file '{path}': {error.strerror or error}") from error
    except UnreadableError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"'{path}' must hold a mapping with keys such as model, data and trainer")
    return Layer(str(path), _canonical(values))


def split_options(args: Sequence[str]) -> tuple[list[Layer], list[str]]:
    """Take ``--config``, ``--recipe``, ``--model...``, ``--data...`` and ``--trainer...`` out of ``args``.

    Returns their layers, and the rest of ``args``. Files come first and options after them, each kind in the order
    given: an option on the command line wins.
    """
    files: list[Layer] = []
    options: list[Layer] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
        match = OPTION.fullmatch(arg)
        if match is None or arg.endswith(".help"):
            rest.append(arg)
            continue
        key, value = match[1], match[2] if match[2] is not None else next(queue, "--")
        if value.startswith("--"):
            raise ConfigError(f"option --{key} needs a value")
        if key == "config":
            files.append(read_yaml(value))
        else:
            options.append(option_layer(key, value))
    return files + options, rest


def option_layer(key: str, value: Any) -> Layer:
    """The layer of one dotted option: ``model.codec.sampler.steps`` and ``7``. Brackets and null are read as YAML.

    What is no YAML stays text, which an option that takes text may have, such as a folder called ``[1] photos``. Any
    other option refuses it with the problem of the YAML.
    """
    text, problem, values = None, "", value
    if isinstance(value, str) and (value[:1] in ("{", "[") or value == "null"):
        text = value
        try:
            values = parse_yaml(value, f"option --{key}")
        except UnreadableError as error:
            problem = str(error)
    parts = re.sub(r"\.init_args\.name(?=\.|$)", f".{OWN_NAME}", key).split(".")
    for part in reversed(parts):
        if part != "init_args":
            values = {"name" if part == "class_path" else part: values}
    return Layer(f"--{key}", _canonical(values), text, problem)


def merge(base: Any, new: Any) -> Any:
    """``new`` over ``base``: options of a component of the same name are added, anything else is replaced."""
    if isinstance(base, str) and isinstance(new, Mapping):
        base = {"name": base}
    if isinstance(base, Mapping) and isinstance(new, str) and _same(base.get("name"), new):
        return base
    if not (isinstance(base, Mapping) and isinstance(new, Mapping)):
        return new
    if "name" in new and not _same(new["name"], base.get("name")):
        return new
    return {**base, **{key: merge(base.get(key), value) for key, value in new.items()}}


@dataclass(frozen=True)
class Checker:
    """Checks a tree of components that was merged from ``layers``.

    With ``trusted=False`` the tree comes from a stream: registered names only, no import, no text but plain words, no
    integer beyond 4096, and nothing that tells a prior where to load from. With ``imports=False`` it is what somebody
    else's run wrote down: registered classes only, and no import.
    """

    layers: Sequence[Layer]
    trusted: bool = True
    imports: bool = True

    def tree(self, base: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """All layers merged over ``base`` and over the recipe that the key ``recipe`` of any of them names."""
        recipe = next((layer.values["recipe"] for layer in reversed(self.layers) if "recipe" in layer.values), None)
        if recipe is not None:
            try:
                base = merge(merge(base, self._module()), _canonical(read_recipe(recipe)))
            except KeyError as error:
                self.fail("recipe", str(error.args[0]))
        for layer in self.layers:
            base = merge(base, {key: value for key, value in layer.values.items() if key != "recipe"})
        return dict(base)

    def _module(self) -> dict[str, Any]:
        """The name of the module that the last layer asks for, before a recipe says what its codec is made of."""
        models = [layer.values.get("model") for layer in self.layers]
        names = [model.get("name") if isinstance(model, Mapping) else model for model in models]
        given = [name for name in names if isinstance(name, str)]
        return {"model": {"name": given[-1]}} if given else {}

    def sections(self, tree: Mapping[str, Any], options: Iterable[str] = RUN_OPTIONS) -> None:
        """Refuse a top-level key that is neither a section nor one of ``options``."""
        known = [*SECTIONS, *options, "recipe"]
        for key in tree:
            if key not in known:
                self.fail(key, f"there is no such section or option{choices(key, known)}")

    def component(
        self, registry: Registry[Any], value: Any, path: str, base: type[Any] | None = None
    ) -> dict[str, Any]:
        """``{"class_path": ..., "init_args": ...}`` of one component at ``path``, such as ``model.codec.sampler``.

        ``base`` is a narrower type than the registry's own that it must be of, if any.
        """
        base = base or registry.base
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and "name" not in value and registry.default is not None:
            value = {"name": registry.default, **value}
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            names = ", ".join(_names(registry, base))
            self.fail(path, f"needs the name of a {registry.kind}: choose from {names}")
        cls = self._class(registry, value["name"], path, base)
        options = {_own(key): option for key, option in value.items() if key != "name"}
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
        """The class of that name. Fails where there is none."""
        if not isinstance(name, str):
            self.fail(path, f"needs the name of a {registry.kind}: choose from {', '.join(sorted(registry.classes))}")
        return self._class(registry, name, path, registry.base)

    def options(self, cls: type[Any], values: Mapping[str, Any], path: str, title: str) -> dict[str, Any]:
        """Options of ``cls``, called ``title`` in errors: none unknown, none missing, each of the type of its hint."""
        parameters = parameters_of(cls)
        for key in values:
            if key not in parameters:
                self.fail(_join(path, key), f"{title} has no option '{key}'{_deeper(parameters, path, key)}")
        needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
        given = {key: value for key, value in values.items() if value is not None or key not in needed}
        checked = {key: self.value(parameters[key].annotation, value, _join(path, key)) for key, value in given.items()}
        for key in parameters:
            if key in needed - given.keys():
                self.fail(_join(path, key), f"is missing{_what(parameters[key].annotation)}")
        return checked

    def value(self, annotation: Any, value: Any, path: str) -> Any:
        """A component, or a plain value of the type ``annotation``."""
        kind = _kind_in(annotation)
        if kind is not None and not (value is None and NoneType in get_args(annotation)):
            registry, base = kind
            return self.component(registry, value, path, base)
        items = _kind_of_items(annotation)
        if items is not None and value is not None:
            return self.components(*items, value, path)
        if not self.trusted:
            self._check_stream_value(value, path)
        return self._plain(annotation, value, path)

    def fail(self, path: str, reason: str) -> NoReturn:
        """Raise :class:`ConfigError` with the source that set ``path``, as far as one did."""
        layer = self._layer(path)
        if layer is not None and layer.problem:
            raise ConfigError(layer.problem)
        source = None if layer is None else layer.source
        between = " " if reason.startswith(("must ", "is ", "needs ", "cannot ")) else ": "
        where = f"option {source}" if source == f"--{path}" else f"{source}: {path}" if source else path
        raise ConfigError(f"{where}{between}{reason}")

    def _try(self, form: Mapping[str, Any], path: str) -> None:
        """Build a component for what its constructor says: that knows its options, and not its own place."""
        try:
            built(form)
        except ConfigError as error:
            option = re.fullmatch(r"[a-z_]+\.([a-z_]+) (.*)", str(error), re.DOTALL)
            if option is None or option[1] not in form["init_args"]:
                raise
            self.fail(_join(path, option[1]), option[2])

    def _layer(self, path: str) -> Layer | None:
        """The last layer that sets ``path``, or else what ``path`` is a part of."""
        while path:
            for layer in reversed(self.layers):
                if _sets(layer.values, path):
                    return layer
            path = path.rpartition(".")[0]
        return None

    def _class(self, registry: Registry[Any], name: str, path: str, base: type[Any]) -> type[Any]:
        failure = failure_of(registry, name)
        if failure is not None:
            self.fail(path, f"{registry.kind} '{name}' cannot be had: {failure}")
        cls = registry.find(name)
        if cls is None and not self.trusted:
            self.fail(path, f"unknown {registry.kind} {name[:64]!r}; if a plugin has it, {HOW}")
        if cls is None and "." in name:
            cls = self._class_at(registry, name, path)
        if cls is None:
            self.fail(path, f"unknown {registry.kind} '{name}'{choices(name, _names(registry, base))}")
        if not issubclass(cls, base):
            self.fail(path, f"cannot be '{name}': choose from {', '.join(_names(registry, base))}")
        return cls

    def _class_at(self, registry: Registry[Any], name: str, path: str) -> type[Any]:
        cls = _imported(name) if self.imports else registered(name)
        if cls is None and not self.imports:
            self.fail(path, f"'{name[:200]}' is no registered class, and nothing else is imported here; {HOW}")
        if cls is None:
            plugin = name.startswith(f"{PACKAGE}.")
            self.fail(path, f"cannot import '{name}'" + (f": {HOW}" if plugin else ""))
        if not issubclass(cls, registry.base):
            self.fail(path, f"'{name}' is not a {registry.kind}: it must derive from {registry.base.__name__}")
        return cls

    def _check_stream_value(self, value: Any, path: str) -> None:
        for item in value if isinstance(value, list) else [value]:
            word = isinstance(item, str) and NAME.fullmatch(item)
            number = isinstance(item, (int, float)) and abs(item) <= STREAM_LIMIT
            if not (item is None or word or number):
                self.fail(path, f"must be a word or a number of at most {STREAM_LIMIT} in a stream")

    def _plain(self, annotation: Any, value: Any, path: str) -> Any:
        from jsonargparse import ArgumentError

        if value is None and annotation not in (Any, None) and type(None) not in get_args(annotation):
            self.fail(path, f"must be {describe(annotation)}, got null")
        layer = self._layer(path)
        text = layer.text if layer is not None and layer.source == f"--{path}" else None
        if layer is not None and layer.problem and not _takes_text(annotation):
            self.fail(path, layer.problem)
        if not self.imports and _names_a_class(value):
            self.fail(path, "names a class that is of no registered kind, and nothing is imported here")
        try:
            checked = _parser_of(annotation).parse_object({"value": _class_form(value)})
        except ArgumentError as error:
            if text is not None and _takes_text(annotation):
                return text
            if isinstance(value, Mapping) or annotation in (None, Any):
                self.fail(path, sentence(str(error)))
            self.fail(path, f"must be {describe(annotation)}, got {value!r}")
        return checked.as_dict()["value"]


@lru_cache(1024)
def _parser_of(annotation: Any) -> ArgumentParser:
    """A parser of one value; to make it takes a hundred times as long as to use it."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=None if annotation is Any else annotation)
    return parser


def sentence(message: str) -> str:
    """An error of jsonargparse or Lightning in one line, class names without their brackets."""
    message = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class '\1'", message)
    causes = re.findall(r"^ *- (?!Expected an? )(.+)$", message, re.MULTILINE)  # of the branches of a union
    if causes:
        return str(causes[0])
    message = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(message.split()))
    wrong_type = r'^Parser key "([\w.]+)": Expected an? (.+)\. Got value: (.*)$'
    return re.sub(wrong_type, r"option --\1 must be \2, got \3", message)


def describe(annotation: Any) -> str:
    """A type hint in words: ``int or null``, ``one of 'a', 'b'``, ``list of float``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return "null"
    if origin in (Union, UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in (list, tuple):
        return f"{origin.__name__} of {' and '.join(dict.fromkeys(describe(a) for a in args if a is not ...))}"
    return {"bool": "true or false", "int": "an integer", "float": "a number", "str": "text"}.get(
        getattr(annotation, "__name__", ""), str(getattr(annotation, "__name__", annotation))
    )


def build(cls: Callable[..., T], options: Mapping[str, Any]) -> T:
    """An object of ``cls`` from checked options. Raises :class:`ConfigError` where a constructor refuses them."""
    ready = {key: built(value) for key, value in options.items()}
    try:
        return cls(**ready)
    except (ValueError, OSError) as error:  # what constructors raise on options out of range and missing files
        raise ConfigError(str(error)) from error


def class_of(form: Mapping[str, Any]) -> type[Any]:
    """The class of a checked ``{"class_path": ..., "init_args": ...}``."""
    cls = _imported(form["class_path"])
    assert cls is not None  # it was checked
    return cls


def with_defaults(value: Any) -> Any:
    """A checked tree in which every component also holds the options that nobody gave."""
    if isinstance(value, (list, tuple)):
        return [with_defaults(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: with_defaults(item) for key, item in value.items()}
    options = parameters_of(class_of(value))
    defaults = {key: option.default for key, option in options.items() if option.default is not option.empty}
    given = value.get("init_args") or {}
    return {"class_path": value["class_path"], "init_args": with_defaults({**defaults, **given})}


def built(value: Any) -> Any:
    """A checked value with an object in place of each ``class_path`` and ``init_args``; see :func:`build`."""
    if isinstance(value, list):
        return [built(item) for item in value]
    if not isinstance(value, Mapping) or "class_path" not in value:
        return value
    return build(class_of(value), value.get("init_args") or {})


def _canonical(value: Any) -> Any:
    """``class_path`` and ``init_args`` folded into ``{"name": ..., option: ...}``, at every level.

    Text that begins with ``~/`` is a path below the home folder.
    """
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    if not isinstance(value, Mapping):
        return value
    value = dict(value)
    init_args = value.pop("init_args", None) or {}
    if not isinstance(init_args, Mapping):  # an option of that name, which no component has
        value, init_args = {**value, "init_args": init_args}, {}
    if "class_path" in value:
        value["name"] = value.pop("class_path")
    if "name" in value and "name" in init_args:
        init_args = {OWN_NAME if key == "name" else key: item for key, item in init_args.items()}
    return {str(key): _canonical(item) for key, item in {**value, **init_args}.items()}


def _own(key: str) -> str:
    """The option that a key of the canonical form stands for."""
    return "name" if key == OWN_NAME else key


def _class_form(value: Any) -> Any:
    """The inverse of :func:`_canonical` for what is not a registered component."""
    if isinstance(value, list):
        return [_class_form(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    options = {_own(key): _class_form(item) for key, item in value.items() if key != "name"}
    return {"class_path": value["name"], "init_args": options} if "name" in value else options


def _same(first: Any, second: Any) -> bool:
    return first == second or bool(_known(str(first)) & _known(str(second)))


def _known(name: str) -> set[type[Any]]:
    found = {registry.find(name) for registry in Registry.kinds.values()} - {None}
    if "." in name:
        found.add(_imported(name))
    return {cls for cls in found if cls is not None}


def _imported(path: str) -> type[Any] | None:
    known = registered(path)
    if known is not None:
        return known
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except (ImportError, TypeError, ValueError):  # TypeError: a relative name, such as a path
        return None
    return cls if isinstance(cls, type) else None


def _kind_in(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """The registry of a component of this type, which may be narrower than the registry's own, and the type."""
    candidates: Iterable[Any] = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = ((registry_of(c), c) for c in candidates if isinstance(c, type))
    return next(((registry, base) for registry, base in kinds if registry is not None), None)


def _kind_of_items(annotation: Any) -> tuple[Registry[Any], type[Any]] | None:
    """:func:`_kind_in` of the items of a list, or of a list or null."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    lists = [get_args(one) for one in candidates if get_origin(one) is list]
    return _kind_in(lists[0][0]) if lists and lists[0] else None


def _deeper(parameters: Mapping[str, Parameter], path: str, key: str) -> str:
    """The end of a sentence on an unknown option: where a component of these options has it, else the choices."""
    kinds = {name: _kind_in(parameter.annotation) for name, parameter in parameters.items()}
    for name, kind in kinds.items():
        if kind is not None and kind[0].default is not None and key in parameters_of(kind[0].get(kind[0].default)):
            return f": it is an option of {_join(path, name)}, so write {_join(path, name)}.{key}"
    return choices(key, parameters)


def _takes_text(annotation: Any) -> bool:
    """Whether an option is one or several names, so that what looks like YAML may be one."""
    kinds = set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
    return str in kinds and kinds <= {str, list[str], NoneType}


def _names_a_class(value: Any) -> bool:
    """Whether a canonical value, or a part of it, is a component."""
    if isinstance(value, list):
        return any(map(_names_a_class, value))
    return isinstance(value, Mapping) and ("name" in value or any(map(_names_a_class, value.values())))


def _what(annotation: Any) -> str:
    kind = _kind_in(annotation)
    if kind is None:
        return f": it must be {describe(annotation)}"
    registry, base = kind
    return f": choose a {registry.kind} from {', '.join(_names(registry, base))}"


def _names(registry: Registry[Any], base: type[Any]) -> list[str]:
    """Names of the components of a type."""
    return sorted(name for name, cls in registry.classes.items() if issubclass(cls, base))


def _sets(values: Any, path: str) -> bool:
    for key in path.split("."):
        if isinstance(values, str):
            return True
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
