"""What a stream says of itself."""

from __future__ import annotations

import json
from typing import Any

from pscx.recipes import RECIPES
from pscx.stream import VERSION, unpack


def stream_info(data: bytes) -> dict[str, Any]:
    """The header of a stream in plain values, nothing decoded.

    Sizes are in pixels and bytes, ``bpp`` counts the whole stream, ``spec`` is as it stands in the stream (none where
    a recipe is named). Raises :class:`pscx.errors.StreamError` where it is not a whole stream.
    """
    header, payload = unpack(data)
    return {
        "version": VERSION,
        "height": header.height,
        "width": header.width,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.height * header.width),
        "payload_bytes": len(payload),
        "recipe": RECIPES.get(header.recipe, f"number {header.recipe}") if header.recipe else None,
        "spec": _readable(header.spec),
        "fingerprint": header.fingerprint.hex(),
        "parameter": header.parameter,
        "seed": header.seed,
        "caption": header.caption or None,
    }


def _readable(spec: str) -> Any:
    try:
        return json.loads(spec) if spec else None
    except (ValueError, RecursionError):
        return spec
