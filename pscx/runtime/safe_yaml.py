"""Reads untrusted YAML and JSON within bounds, or refuses it with one sentence.

The bounds are far above what any file of pscx holds. They keep the time and the memory of reading in proportion to the
file: an alias counts as much as what it stands for.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from pscx.errors import PscxError

BYTES = 1 << 22  # of a YAML file
JSON_BYTES = 1 << 26  # of a JSON file; a table of a coder is the largest
NODES = 100_000  # values, lists and mappings, with aliases expanded
DEPTH = 64  # lists and mappings inside each other
DIGITS = 400  # of a number
SHOWN = 64  # characters of a key in a message

CORE = "tag:yaml.org,2002:"
PLAIN = {f"{CORE}{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}
NUMBERS = (f"{CORE}int", f"{CORE}float")
JSON_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}


class UnreadableError(PscxError, ValueError):
    """Text that is not valid, or beyond the bounds; the message names the source and the line."""


def read_bounded(path: str | Path, limit: int = BYTES) -> bytes:
    """The content of a file. Raises ``OSError``, and :class:`UnreadableError` where it has over ``limit`` bytes."""
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnreadableError(f"'{path}' exceeds {limit} bytes, the limit for this kind of file")
    return data


def parse_yaml(text: str | bytes, source: str) -> Any:
    """One YAML document of mappings, lists, text, numbers, true, false and null; dates stay text.

    Raises :class:`UnreadableError`, which begins with ``source``, where it is no such document, a mapping has a key
    twice, an alias stands for what it is part of, or a bound is passed.

    >>> parse_yaml("{a: 1, b: [x, 2020-01-01]}", "this")
    {'a': 1, 'b': ['x', '2020-01-01']}
    >>> parse_yaml("{a: 1, a: 2}", "this")
    Traceback (most recent call last):
        ...
    pscx.runtime.safe_yaml.UnreadableError: this: the key 'a' is given twice, in line 1 and again in line 1
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        return yaml.load(text, Loader=_Loader)
    except _RefusedError as error:
        raise UnreadableError(f"{source}: {_place(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UnreadableError(f"{source} is not valid YAML: {_place(error)}") from error


def parse_json(data: str | bytes, source: str) -> Any:
    """A JSON document, in UTF-8 if ``data`` is bytes.

    Raises :class:`UnreadableError` where it is none, or nests over 64 levels deep.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        if _json_depth(text) <= DEPTH:
            return json.loads(text)
    except ValueError as error:
        raise UnreadableError(f"{source} is not valid JSON: {error}") from error
    raise UnreadableError(f"{source}: its brackets are nested more than {DEPTH} levels deep")


def read_json(path: str | Path) -> Any:
    """:func:`parse_json` of a file. Raises ``OSError`` where it cannot be read."""
    return parse_json(read_bounded(path, JSON_BYTES), f"'{path}'")


def _json_depth(text: str) -> int:
    """How deep brackets are nested in what a JSON parser may read of ``text``."""
    depth, deepest, quoted = 0, 0, False
    for mark in JSON_MARKS.finditer(text):
        if mark[0] == '"':
            quoted = not quoted
        elif not quoted:
            depth += DEEPER.get(mark[0], 0)
            deepest = max(deepest, depth)
    return deepest


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that is not read."""


class _Loader(yaml.SafeLoader):
    """Checks each node as soon as it is composed, before anything is made of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._deepest = self._nodes = 0
        self._finished: dict[int, tuple[int, int]] = {}  # by node: the number of nodes and levels below it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._depth, outer = self._depth + 1, self._deepest
        self._deepest, before = self._depth, self._nodes
        self._check_bounds(mark)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            nodes, levels = self._finished.get(id(node), (0, 0))
            if not nodes:
                _refuse(f"the alias '*{_short(event.anchor)}' stands for what it is part of", mark)
            self._nodes, self._deepest = self._nodes + nodes, self._depth + levels
        else:
            self._nodes += 1
            self._finished[id(node)] = self._nodes - before, self._deepest - self._depth
        self._check_bounds(mark)
        self._depth, self._deepest = self._depth - 1, max(outer, self._deepest)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        _check_tag(node)
        if node.tag in NUMBERS and len(node.value) > DIGITS:
            _refuse(f"a number has over {DIGITS} characters", node.start_mark)
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        _check_tag(node)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        _check_tag(node)
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse("a key is a list or a mapping", key.start_mark)
            name = str(self.construct_object(key)) if key.tag != f"{CORE}merge" else key.value
            if name in seen:
                lines = f"in line {seen[name].line + 1} and again"
                _refuse(f"the key {_short(name)!r} is given twice, {lines}", key.start_mark)
            seen[name] = key.start_mark
        return node

    def _check_bounds(self, mark: yaml.Mark) -> None:
        if self._deepest > DEPTH:
            _refuse(f"lists and mappings nest over {DEPTH} levels deep", mark)
        if self._nodes > NODES:
            _refuse(f"it holds over {NODES} values, aliases included", mark)


# A date is text here, as in jsonargparse, and so is a lone "=".
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _check_tag(node: yaml.Node) -> None:
    if node.tag not in PLAIN:
        _refuse(f"the tag '{_short(node.tag)}' is not read", node.start_mark)


def _refuse(reason: str, mark: Any) -> NoReturn:
    raise _RefusedError(problem=reason, problem_mark=mark)


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} in line {mark.line + 1}" if mark else str(problem)
