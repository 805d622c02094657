"""Type hints and errors of other libraries in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import Parameter
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pscx.config.kinds import alternatives, kind_in, names_of
from pscx.registry import choices, parameters_of
from pscx.runtime.printing import printable

LONGEST = 200  # characters of a value in an error
PLAIN = {"bool": "true or false", "int": "an integer", "float": "a number", "str": "text", "NoneType": "null"}


def sentence(message: str) -> str:
    """An error of jsonargparse or Lightning in one line, class names without their brackets."""
    message = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class '\1'", message)
    union = r'^Parser key "([\w.]+)": Does not validate against any .* Subtypes: \[(.*?)\] .* Given value: (.*)$'
    if found := re.match(union, " ".join(message.split())):
        kinds = re.sub(r"<class '(\w+)'>", r"\1", found[2]).split(", ")
        return f"option --{found[1]} must be {' or '.join(PLAIN.get(kind, kind) for kind in kinds)}, got {found[3]}"
    causes = re.findall(r"^ *- (?!Expected an? )(.+)$", message, re.MULTILINE)  # errors of the branches of a union
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
    if alternatives(annotation) != (annotation,):
        return " or ".join(describe(one) for one in alternatives(annotation))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in (list, tuple):
        return f"{origin.__name__} of {' and '.join(dict.fromkeys(describe(a) for a in args if a is not ...))}"
    return PLAIN.get(getattr(annotation, "__name__", ""), str(getattr(annotation, "__name__", annotation)))


def shortened(value: Any) -> str:
    """A value as an error shows it: its beginning and its end, where it is long."""
    return printable(repr(value), LONGEST)


def what(annotation: Any) -> str:
    kind = kind_in(annotation)
    if kind is None:
        return f": it must be {describe(annotation)}"
    registry, base = kind
    return f": choose a {registry.kind} from {', '.join(names_of(registry, base))}"


def deeper(parameters: Mapping[str, Parameter], path: str, key: str) -> str:
    """Ends the error for an unknown option: the component that has this option, or else the choices."""
    kinds = {name: kind_in(parameter.annotation) for name, parameter in parameters.items()}
    for name, kind in kinds.items():
        if kind is not None and kind[0].default is not None and key in parameters_of(kind[0].get(kind[0].default)):
            return f": it is an option of {join(path, name)}, so write {join(path, name)}.{key}"
    return choices(key, parameters)


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
