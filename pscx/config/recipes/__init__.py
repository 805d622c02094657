"""Recipes: codecs that ship with pscx. A stream names one by its number, so a released recipe never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pscx.registry import choices

FOLDER = Path(__file__).parent
RECIPES: dict[int, str] = {1: "default", 2: "paper-pixel", 3: "fast", 4: "best"}


def read_recipe(name: str) -> dict[str, Any]:
    """The ``model`` section of a recipe, as ``{"model": ...}``. Raises ``KeyError`` with the choices."""
    if name not in RECIPES.values():
        raise KeyError(f"unknown recipe '{name}'{choices(name, RECIPES.values())}")
    values: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return values
