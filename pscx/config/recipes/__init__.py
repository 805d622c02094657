"""Recipes: whole codecs that have a name. Those that ship with pscx also have a number, which streams store, and never
change once they are released. User recipes are files in folders (:mod:`pscx.config.recipes.folders`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pscx.config.recipes.folders import files_named, read_user_recipe, user_recipe_names
from pscx.registry import choices

FOLDER = Path(__file__).parent
RECIPES: dict[int, str] = {
    1: "default",
    2: "paper-pixel",
    3: "fast",
    4: "best",
    5: "paper-latent",
    6: "turbo",
    7: "latent",
    8: "latent-fast",
    9: "latent-rows",
    10: "perceptual",
}
USER_RECIPE, DIGEST = 255, 6  # number of all user recipes, and bytes of the digest that names one


def read_recipe(name: str) -> dict[str, Any]:
    """The ``model`` section of a recipe that ships or of a user recipe, as ``{"model": ...}``.

    Raises ``KeyError`` with the choices where there is none, or with the files where there are several, and
    :class:`pscx.errors.PscxError` where the user's file is no recipe.
    """
    files = files_named(name)
    if name in RECIPES.values():
        if files:
            raise KeyError(f"'{name}' ships with pscx, and '{files[0]}' has the same name: rename that file")
        return read_shipped(name)
    if len(files) > 1:
        raise KeyError(f"'{name}' is the name of both '{files[0]}' and '{files[1]}': rename one of them")
    if not files:
        raise KeyError(f"unknown recipe '{name}'{choices(name, recipe_names())}")
    return read_user_recipe(files[0])


def read_shipped(name: str) -> dict[str, Any]:
    """:func:`read_recipe` of one that ships with pscx, whatever user recipes there are."""
    values: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def recipe_names() -> list[str]:
    """All names that :func:`read_recipe` takes."""
    return [*RECIPES.values(), *user_recipe_names()]
