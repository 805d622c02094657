"""pscx: image compression with pretrained diffusion models.

What is named here loads on first use, so that ``pscx --version`` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pscx.api import Codec, Decompressor, Simulation, load_codec
    from pscx.codecs.psc.codec import PSC
    from pscx.config import ConfigError
    from pscx.config.plugins import load_plugins
    from pscx.config.recipes.folders import load_recipes
    from pscx.errors import ImageError, PscxError, StreamError
    from pscx.format.info import stream_info
    from pscx.images import read_image, write_image

__version__ = "0.2.0"

__all__ = [
    "PSC",
    "Codec",
    "ConfigError",
    "Decompressor",
    "ImageError",
    "PscxError",
    "Simulation",
    "StreamError",
    "__version__",
    "load_codec",
    "load_plugins",
    "load_recipes",
    "read_image",
    "stream_info",
    "write_image",
]

_HOMES = {
    "PSC": "pscx.codecs.psc.codec",
    "Codec": "pscx.api",
    "ConfigError": "pscx.config",
    "Decompressor": "pscx.api",
    "ImageError": "pscx.errors",
    "PscxError": "pscx.errors",
    "Simulation": "pscx.api",
    "StreamError": "pscx.errors",
    "load_codec": "pscx.api",
    "load_plugins": "pscx.config.plugins",
    "load_recipes": "pscx.config.recipes.folders",
    "read_image": "pscx.images",
    "stream_info": "pscx.format.info",
    "write_image": "pscx.images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pscx' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
