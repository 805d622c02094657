"""What to cite for a configuration: ``pscx cite``.

A component says it in its class attribute ``references``: keys of ``citations.bib`` beside this file, or, for a plugin,
whole BibTeX entries. Networks and other classes that a config names may have that attribute, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pscx.ablation import read_plan
from pscx.config import Checker, Layer, class_of, with_defaults
from pscx.errors import PscxError
from pscx.registry import class_path
from pscx.runs.lightning import DEFAULTS
from pscx.runs.modules import MODULES

FILE = Path(__file__).with_name("citations.bib")
OURS = "pscx"
ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}$", re.MULTILINE | re.DOTALL)


@lru_cache
def entries() -> Mapping[str, str]:
    """The BibTeX entries of ``citations.bib`` by their keys."""
    return {match[1]: match[0] for match in ENTRY.finditer(FILE.read_text(encoding="utf-8"))}


def cited_by(cls: type[Any]) -> list[str]:
    """The BibTeX entries of what a class refers to. Raises :class:`PscxError` for a key that is not known."""
    references: Iterable[str] = getattr(cls, "references", ())
    unknown = [key for key in references if key not in entries() and not ENTRY.fullmatch(key.strip())]
    if unknown:
        raise PscxError(
            f"{class_path(cls)}: a reference must be a key of pscx/catalogue/citations.bib or a BibTeX entry, got "
            f"{unknown[0]!r}"
        )
    return [entries().get(key, key.strip()) for key in references]


def bibliography(layers: Sequence[Layer]) -> list[str]:
    """The entries of pscx and of all parts of a configuration, or of each cell of an ablation, without repeats.

    Nothing is built or loaded, but for an ablation, whose cells are checked. Raises :class:`pscx.ConfigError` for a
    configuration that is not right.
    """
    found = [entries()[OURS]]
    for model in _models(layers):
        for cls in _classes(with_defaults(model)):
            found += cited_by(cls)
    return list(dict.fromkeys(found))


def _models(layers: Sequence[Layer]) -> list[Any]:
    if any("axes" in layer.values for layer in layers):
        return [cell.tree["model"] for cell in read_plan(layers).cells]
    checker = Checker(layers)
    tree = checker.tree(DEFAULTS)
    checker.sections(tree)
    return [checker.component(MODULES, tree["model"], "model")]


def _classes(value: Any) -> Iterator[type[Any]]:
    """The classes of a checked tree, outermost first."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield class_of(value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _classes(item)
