"""Pixels to a codec's signal and back, with the padding that the codec asks for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pscx.codecs.base import SignalCodec
from pscx.images import to_pixels, to_tensor
from pscx.runtime.memory import check_memory
from pscx.runtime.returned import returned

Pixels = NDArray[np.uint8]


def padded(codec: SignalCodec, height: int, width: int) -> tuple[int, int]:
    """The sides of an image of this size when it is padded as far as the codec asks for."""
    return height + -height % codec.stride, width + -width % codec.stride


def signal_of(codec: SignalCodec, pixels: Pixels) -> Tensor:
    """The signal ``(channels, height, width)`` of pixels ``(height, width, 3)``, padded with their edges.

    It is float32, where the codec's signals live.
    """
    height, width = pixels.shape[:2]
    full = padded(codec, height, width)
    edges = np.pad(pixels, ((0, full[0] - height), (0, full[1] - width), (0, 0)), "edge")
    return codec.to_signal(to_tensor(edges).to(codec.device))[0]


def check_encoding(codec: SignalCodec, pixels: Pixels) -> None:
    """Raise :class:`pscx.runtime.memory.OutOfMemoryError` where encoding an image takes more memory than is left."""
    height, width = pixels.shape[:2]
    shape = codec.signal_shape(*padded(codec, height, width))
    check_memory(codec.memory(shape), f"encoding {width}x{height} pixels", codec.device)


def shown(codec: SignalCodec, signal: Tensor, height: int, width: int) -> Pixels:
    """The pixels ``(height, width, 3)`` of a signal, without its padding."""
    shape = codec.signal_shape(*padded(codec, height, width))
    signal = returned(codec, "restore", signal, shape, codec.device, None)
    return to_pixels(codec.to_image(signal[None])[:, :, :height, :width])
