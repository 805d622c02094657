"""A learnt codec as one complete file, which is a config and a user recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pscx.codecs.base import CODECS, SignalCodec
from pscx.registry import registry_of

NAME = "codec.yaml"
HEAD = """\
# What pscx fit learnt, as a whole codec: pscx compress --config codec.yaml, or a recipe in a folder of recipes.
"""


def second_config(learnt: Mapping[str, Any], place: str = "") -> bytes:
    """A config with the options ``learnt`` of a codec, to be given beside the codec's own."""
    head = f"# What pscx fit learnt: a second --config beside that of the codec{place}.\n"
    return (head + yaml.safe_dump({"model": {"codec": {**learnt}}}, sort_keys=False)).encode()


def codec_file(codec: SignalCodec, **learnt: Mapping[str, Any]) -> bytes:
    """The content of the file: every option of ``codec``, and the components ``learnt`` in place of its own."""
    options = {key: _plain(value) for key, value in codec.options().items() if key not in learnt}
    section = {"name": CODECS.name_of(type(codec)), **options, **learnt}
    given = {key: value for key, value in section.items() if value is not None}
    return (HEAD + yaml.safe_dump({"model": {"codec": given}}, sort_keys=False)).encode()


def _plain(value: Any) -> Any:
    registry = registry_of(type(value))
    return value if registry is None else registry.spec(value)
