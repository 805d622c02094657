"""pscx: image compression with pretrained diffusion models.

What is named here loads on first use, so that ``pscx --version`` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pscx.codec import PSC
    from pscx.config import ConfigError
    from pscx.errors import ImageError, PscxError, StreamError
    from pscx.imagecodec import Codec, Decompressor, Simulation, load_codec
    from pscx.images import read_image, write_image
    from pscx.info import stream_info
    from pscx.plugins import load_plugins

__version__ = "0.1.0"

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
    "read_image",
    "stream_info",
    "write_image",
]

_HOMES = {
    "PSC": "pscx.codec",
    "Codec": "pscx.imagecodec",
    "ConfigError": "pscx.config",
    "Decompressor": "pscx.imagecodec",
    "ImageError": "pscx.errors",
    "PscxError": "pscx.errors",
    "Simulation": "pscx.imagecodec",
    "StreamError": "pscx.errors",
    "load_codec": "pscx.imagecodec",
    "load_plugins": "pscx.plugins",
    "read_image": "pscx.images",
    "stream_info": "pscx.info",
    "write_image": "pscx.images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pscx' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
