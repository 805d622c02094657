"""Layers of a configuration: YAML files and options of the command line, and how they are merged.

jsonargparse reads and merges files and options too, but it lacks two things. It does not keep the source of a value,
which the errors here name. It knows no short names inside a file, and adds no options to a component that was given by
its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pscx.config.canonical import OWN_NAME, canonical
from pscx.config.kinds import BrokenModuleError, imported
from pscx.errors import PscxError
from pscx.registry import Registry
from pscx.runtime.safe_yaml import UnreadableError, parse_yaml, read_bounded

OPTION = re.compile(r"--((?:model|data|trainer)(?:\.[\w.-]+)?|recipe|config)(?:=(.*))?", re.DOTALL)


class ConfigError(PscxError):
    """A configuration that cannot be used; the message names the source, the key and what is allowed."""


@dataclass(frozen=True)
class Layer:
    """Values from one source: ``source`` is a file's name, an option or ``recipe 'default'``.

    ``text`` is the original text of an option that looks like YAML; ``problem`` says why it is not valid YAML.
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
    return Layer(str(path), canonical(values))


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

    Invalid YAML stays text, because an option may take text such as a folder called ``[1] photos``. Any other option
    is refused with the YAML error.
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
    return Layer(f"--{key}", canonical(values), text, problem)


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


def _same(first: Any, second: Any) -> bool:
    return first == second or bool(_known(str(first)) & _known(str(second)))


def _known(name: str) -> set[type[Any]]:
    found = {registry.find(name) for registry in Registry.kinds.values()} - {None}
    if "." in name:
        with suppress(BrokenModuleError):  # the checker tells of it, with the source of the name
            found.add(imported(name))
    return {cls for cls in found if cls is not None}
