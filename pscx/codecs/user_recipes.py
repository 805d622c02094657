"""User recipes in streams: the digest that names one, and the way back to its spec."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pscx.codecs.specs import spec_of_layer
from pscx.config import read_yaml
from pscx.config.recipes import DIGEST
from pscx.config.recipes.folders import HOW, read_user_recipe, recipe_files, recipe_folders, set_aside
from pscx.errors import PscxError, StreamError


@dataclass(frozen=True)
class UserRecipe:
    """A recipe in a file: its codec's spec, as :func:`pscx.codecs.specs.codec_spec` has it, and the spec's digest."""

    file: Path
    spec: Mapping[str, Any] = field(repr=False)
    digest: bytes

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.file.stem


def digest_of(spec: Mapping[str, Any]) -> bytes:
    """Six bytes that identify a spec: neither the order of keys nor whether a whole number is a float matters.

    >>> digest_of({"a": 1, "b": 2.0}) == digest_of({"b": 2, "a": 1.0})
    True
    """
    text = json.dumps(_with_whole_numbers(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).digest()[:DIGEST]


def user_digest(spec: Mapping[str, Any]) -> bytes:
    """The digest of a spec that is a user recipe; empty where it is none."""
    digest = digest_of(spec)
    return digest if any(recipe.digest == digest for recipe in _recipes()) else b""


def find_user_recipe(digest: bytes) -> UserRecipe | None:
    """The user recipe of that digest, or none."""
    return next((recipe for recipe in _recipes() if recipe.digest == digest), None)


def user_spec(digest: bytes) -> Mapping[str, Any]:
    """The spec of the user recipe of that digest. Raises :class:`StreamError` where there is none."""
    found = find_user_recipe(digest)
    if found is None:
        folders = ", ".join(f"'{folder}'" for folder in recipe_folders())
        where = f"none of the recipes in {folders} has it" if folders else "no folder of recipes is named"
        raise StreamError(f"the stream was made with a user recipe (digest {digest.hex()}), and {where}: {HOW}")
    return found.spec


def _recipes() -> Iterator[UserRecipe]:
    """All user recipes that can be used; the others are told of."""
    for file in recipe_files():
        try:
            facts = file.stat()
            yield _read(file, facts.st_mtime_ns, facts.st_size)
        except PscxError as error:
            set_aside(error)
        except OSError:  # it has gone since the folder was read
            continue


@lru_cache(256)
def _read(file: Path, changed: int, size: int) -> UserRecipe:
    read_user_recipe(file)
    spec = spec_of_layer(read_yaml(file))
    return UserRecipe(file, spec, digest_of(spec))


def _with_whole_numbers(value: Any) -> Any:
    """A tree of plain values in which every number that is whole is an integer."""
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
