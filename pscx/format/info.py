"""What a stream says of itself."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pscx.config import STREAM_FAMILY
from pscx.config.recipes import RECIPES, USER_RECIPE, read_shipped
from pscx.format.container import VERSION, Header, unpack
from pscx.registry import NAME, class_of_kind

UNKNOWN = "parameter"
"""Name of a parameter of which nothing else is known."""

if TYPE_CHECKING:
    from pscx.codecs.user_recipes import UserRecipe


def stream_info(data: bytes) -> dict[str, Any]:
    """The header of a stream in plain values, nothing decoded.

    Sizes are in pixels and bytes, ``bpp`` counts the whole stream, ``spec`` is as it stands in the stream (none where
    a recipe is named), ``arithmetic`` what the encoder computed with (none where that is the same on every machine).
    ``signal`` is what the stream is of, ``pixels`` or ``latents``, which an autoencoder in floating point turns into
    pixels (none where that is not known). ``recipe_digest`` identifies a user recipe (else none); ``recipe`` is then
    its name, or none where its file is not found. ``parameter_name`` is what the quantizer calls its parameter, as far
    as it is known. Raises :class:`pscx.errors.StreamError` where it is not a whole stream.
    """
    header, payload = unpack(data)
    return {
        "version": VERSION,
        "height": header.height,
        "width": header.width,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.height * header.width),
        "payload_bytes": len(payload),
        "recipe": _recipe_name(header),
        "recipe_digest": header.digest.hex() or None,
        "spec": _readable(header.spec),
        "fingerprint": header.fingerprint.hex(),
        "parameter": header.parameter,
        "parameter_name": None if header.parameter is None else _parameter_name(header),
        "seed": header.seed,
        "caption": header.caption or None,
        "arithmetic": header.arithmetic or None,
        "signal": _signal(header),
    }


def _recipe_name(header: Header) -> str | None:
    if header.recipe != USER_RECIPE:
        return RECIPES.get(header.recipe, f"number {header.recipe}") if header.recipe else None
    found = _user_recipe(header.digest)
    return None if found is None else found.name


def _user_recipe(digest: bytes) -> UserRecipe | None:
    from pscx.codecs.user_recipes import find_user_recipe  # imports torch
    from pscx.config.recipes.folders import recipe_files

    return find_user_recipe(digest) if recipe_files() else None


def _spec(header: Header) -> Any:
    """That of the stream or of its recipe; none where it cannot be read."""
    if header.recipe in RECIPES:
        return read_shipped(RECIPES[header.recipe])["model"]["codec"]
    if header.recipe == USER_RECIPE:
        found = _user_recipe(header.digest)
        return None if found is None else found.spec
    return _readable(header.spec)


def _signal(header: Header) -> str | None:
    name = _named(_spec(header), "prior")
    return None if name is None else _word("prior", name, "signal", "pixels")


def _parameter_name(header: Header) -> str:
    spec = _spec(header)
    family = spec.get("name", STREAM_FAMILY) if isinstance(spec, dict) else STREAM_FAMILY
    if family != STREAM_FAMILY:
        turned = _word("codec", str(family), "turned")
        return UNKNOWN if turned in spec else turned
    name = _named(spec, "quantizer")
    return UNKNOWN if name is None else _word("quantizer", name, "parameter_name")


def _named(spec: Any, kind: str) -> str | None:
    """The name of a component in a spec, or none; the spec is not trusted."""
    form = spec.get(kind) if isinstance(spec, dict) else None
    name = form.get("name") if isinstance(form, dict) else form
    return name if isinstance(name, str) else None


def _word(kind: str, name: str, attribute: str, otherwise: str = UNKNOWN) -> str:
    """The word that a component's class has as ``attribute``; of a class that is not imported, :func:`_declared`."""
    if (found := class_of_kind(kind, name)) is not None:
        return str(getattr(found, attribute))
    return _declared(f"{kind}s", name, attribute, otherwise)


def _declared(folder: str, name: str, attribute: str, otherwise: str = UNKNOWN) -> str:
    """The word ``attribute`` in the source file of a component that ships with pscx: importing the class loads torch.

    ``otherwise`` if there is no such file, or no line ``attribute = "..."`` in a class of it.
    """
    file = files("pscx") / folder / f"{name}.py"
    if not NAME.fullmatch(name) or not file.is_file():
        return otherwise
    found = re.search(rf'^    {attribute} = "(\w+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else otherwise


def _readable(spec: str) -> Any:
    try:
        return json.loads(spec) if spec else None
    except (ValueError, RecursionError):
        return spec
