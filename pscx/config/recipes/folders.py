"""User recipes: YAML files ``NAME.yaml`` in a user's folders or in installed packages.

Such a file holds ``model: {codec: ...}`` and nothing else. Components have their registered names: no text but a
``path`` has a dot, so that a stranger's file imports nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pscx.errors import PscxError
from pscx.runtime.notices import tell
from pscx.runtime.printing import printable
from pscx.runtime.safe_yaml import parse_yaml, read_bounded

VARIABLE, GROUP = "PSCX_RECIPES", "pscx.recipes"
HOW = f"name the folder of its file with --recipes FOLDER, in {VARIABLE} or to pscx.load_recipes"

_named: dict[Path, None] = {}  # in the order in which they were named


def load_recipes(*folders: str | Path) -> None:
    """Make the recipes in these folders known, beside those of ``PSCX_RECIPES`` and of installed packages.

    ``NAME.yaml`` in such a folder is the recipe NAME for :func:`pscx.load_codec`. A stream of it holds a digest of six
    bytes in place of the codec's configuration; a decoder looks for that digest in its own folders. A file that is no
    recipe is told of in the log and set aside. Raises :class:`PscxError` where a folder does not exist.
    """
    _named.update(dict.fromkeys(_folder(name, "--recipes") for name in folders))
    _, problems = _of_packages(tuple(sys.path))
    for problem in problems:
        tell(printable(problem))
    for file in recipe_files():
        try:
            read_user_recipe(file)
        except PscxError as error:
            set_aside(error)


def set_aside(error: PscxError) -> None:
    """Tell once that a file is not used, and why: ``error`` names it."""
    tell(printable(f"warning: {error}; this recipe is set aside"))


def recipe_folders() -> list[Path]:
    """Where user recipes are looked for, in order. Raises :class:`PscxError` where one does not exist."""
    variable = [_folder(name, VARIABLE) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    return list(dict.fromkeys([*variable, *_named, *_of_packages(tuple(sys.path))[0]]))


def named_folders() -> list[str]:
    """The folders that :func:`load_recipes` was given."""
    return [str(folder) for folder in _named]


def recipe_files() -> list[Path]:
    """The files of all user recipes, whether they can be used or not."""
    found = (file for folder in recipe_folders() for file in sorted(folder.glob("*.yaml")))
    return [file for file in found if not file.name.startswith(".")]


def user_recipe_names() -> list[str]:
    """Names of all user recipes."""
    return list(dict.fromkeys(file.stem for file in recipe_files()))


def files_named(name: str) -> list[Path]:
    """The files of all user recipes of that name."""
    return [file for file in recipe_files() if file.stem == name]


def read_user_recipe(file: Path) -> dict[str, Any]:
    """``{"model": {"codec": ...}}``. Raises :class:`PscxError`, one sentence with the file's name, where it is not."""
    try:
        tree = parse_yaml(read_bounded(file), f"'{file}'")
    except OSError as error:
        raise PscxError(f"cannot read the recipe '{file}': {error.strerror or error}") from error
    model = _only(tree, "model")
    codec = _only(model, "codec")
    if not isinstance(codec, dict):
        raise PscxError(f"'{file}' is not a recipe: it must hold 'model: {{codec: ...}}' and nothing else")
    dotted = _dotted(codec)
    if dotted:
        names = "components by their registered names, as in 'ddrm'"
        raise PscxError(f"'{file}' is not a recipe: it must have {names}, got {dotted[:64]!r}")
    return {"model": model}


def _only(tree: Any, key: str) -> Any:
    """The value of a mapping's only key, or none."""
    return tree[key] if isinstance(tree, dict) and list(tree) == [key] else None


def _dotted(value: Any) -> str:
    """A text in a section that could be a component's import path; empty where there is none."""
    if isinstance(value, dict):
        items = [item for key, item in value.items() if not (key == "path" and isinstance(item, str))]
        return next(filter(None, map(_dotted, items)), "")
    if isinstance(value, list):
        return next(filter(None, map(_dotted, value)), "")
    return value if isinstance(value, str) and "." in value else ""


def _folder(name: str | Path, source: str) -> Path:
    if not Path(name).is_dir():
        what = "is a file: recipes are loaded by folder" if Path(name).exists() else "does not exist"
        raise PscxError(f"{source}: the folder of recipes '{name}' {what}")
    return Path(name).resolve()


@lru_cache(1)
def _of_packages(path: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """The folders that installed packages bring, and what is wrong with others; ``path`` is where packages lie."""
    folders: list[Path] = []
    problems: list[str] = []
    for entry in entry_points(group=GROUP):
        found = _places(entry)
        folders += found
        if not found:
            package = f" of {entry.dist.name}" if entry.dist else ""
            problems.append(f"warning: the recipes '{entry.value}'{package} must be a package that is a folder")
    return folders, problems


def _places(entry: EntryPoint) -> list[Path]:
    """The folder of a package, which is not imported itself."""
    try:
        spec = find_spec(entry.value)
    except Exception:  # any error of the package around it
        return []
    places: Iterable[str] = () if spec is None else spec.submodule_search_locations or ()
    return [Path(place).resolve() for place in places if Path(place).is_dir()]
