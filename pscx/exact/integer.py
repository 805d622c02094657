"""Convolutions of bytes by oneDNN, where this processor adds their products exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pscx.errors import PscxError
from pscx.exact.backends import plain_convolutions
from pscx.exact.settings import OncePerSetting

Path = Literal["integer", "float32"]
_chosen: ContextVar[Path | None] = ContextVar("path of exact convolutions", default=None)

STACKED = 1 << 17
"""Numbers of a plane up to which both go through one call, which takes less time; larger ones, one call each."""


@contextmanager
def convolving(path: Path) -> Iterator[None]:
    """Exact convolutions inside, in this thread, by oneDNN's operator on bytes or in float32. Results are the same.

    What no call on bytes exists for stays in float32. Raises :class:`PscxError` where the path is ``integer`` and the
    operator is not exact on this processor, and ``ValueError`` for another name.
    """
    if path not in ("integer", "float32"):
        raise ValueError(f"the path of exact convolutions must be integer or float32, got {path}")
    if path == "integer" and not exact_on_bytes(torch.device("cpu")):
        raise PscxError("convolutions of bytes are not exact on this processor, as torch is set up: use float32")
    token = _chosen.set(path)
    try:
        yield
    finally:
        _chosen.reset(token)


def path_on(device: torch.device) -> Path:
    """The path inside :func:`convolving`, else what a check of the processor finds; float32 where there is no CPU."""
    if device.type != "cpu":
        return "float32"
    return _chosen.get() or ("integer" if exact_on_bytes(device) else "float32")


class Packed:
    """Weights of 8 bits ``(out, in, height, width)`` in the layout that this processor wants, for one zero point.

    Planes have their border, so there is no padding, and oneDNN is told no zero point: what the added ``zero`` amounts
    to in each output is an integer, and is taken away as a bias. oneDNN would find it again in each call.
    """

    def __init__(self, weight: Tensor, stride: tuple[int, int], zero: int) -> None:
        self.geometry: list[list[int]] = [list(stride), [0, 0], [1, 1]]
        self.ones, self.zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
        self.bias = weight.flatten(1).float().sum(1).mul_(-zero) if zero else None
        pack = torch.ops.onednn.qconv_prepack
        self.weight: Tensor = pack(weight.to(torch.int8).contiguous(), self.ones, 1.0, 0, *self.geometry, 1, None)

    def __call__(self, plane: Tensor) -> Tensor:
        """Sums of ``plane``, uint8, less the zero point, times the weights: float32, channels last."""
        plane = plane.contiguous(memory_format=torch.channels_last)
        numbers: tuple[Any, ...] = (plane, 1.0, 0, self.weight, self.ones, self.zeros, self.bias)
        output: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        found: Tensor = torch.ops.onednn.qconv2d_pointwise(*numbers, *self.geometry, 1, *output)
        return found


SHAPES = (
    *((13, 96, 3, 1), (96, 96, 3, 1), (192, 192, 3, 1), (96, 12, 3, 1)),
    *((96, 128, 2, 2), (64, 64, 3, 2), (192, 512, 1, 1)),
)
"""Channels in and out, size and stride of what is tried."""
NONZERO = 56
"""Channels of a 3x3 convolution whose sums of 255 times 127 stay below 2^24."""


@OncePerSetting
def exact_on_bytes(device: torch.device) -> bool:
    """Whether oneDNN's convolutions of bytes have exact sums on this CPU; tried once for each of torch's settings.

    Without VNNI or AMX they add pairs of products in 16 bits and saturate. So the numbers tried reach the bounds: 255
    against weights of 127 in a row, of either sign, in the shapes, zero points and batches of real use. They are
    compared with float32 convolutions, which :func:`pscx.exact.check_convolutions` has seen to be exact.
    """
    if sys.byteorder != "little" or not torch.backends.mkldnn.is_available():
        return False
    try:
        return all(_exact(*shape, zero) for shape in SHAPES for zero in (0, 128))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):  # no such operator, or another one
        return False


def _exact(inputs: int, outputs: int, size: int, stride: int, zero: int) -> bool:
    """One sample and two, against float32."""
    weight = full_weight(inputs, outputs, size)
    places = torch.arange(2 * 9 * 10 * inputs).view(2, 9, 10, inputs).permute(0, 3, 1, 2)
    plane = torch.where(places % 7 == 3, places % 251, 255).to(torch.uint8)
    plane[1, :, :, 5:] = 0
    packed = Packed(weight, (stride, stride), zero)
    with plain_convolutions():
        wanted = functional.conv2d(plane.float() - zero, weight.float(), None, stride)
    return torch.equal(packed(plane), wanted) and torch.equal(packed(plane[:1]), wanted[:1])


def full_weight(inputs: int, outputs: int, size: int) -> Tensor:
    """Weights of ±127 ``(outputs, inputs, size, size)`` whose sums with 255 stay below 2^24.

    Signs are the same along 2, 4, 6 or 8 input channels, and in the first two outputs along all. Of many channels, each
    output has some pairs of neighbours, and 0 for the others.
    """
    output, channel = torch.arange(outputs)[:, None], torch.arange(inputs)
    signs = torch.where((channel // (2 + 2 * (output % 4))) % 2 == 0, 127, -127)
    signs[0], signs[1:2] = 127, -127
    signs *= (channel // 2 + output) % -(-inputs // NONZERO) == 0
    return signs[:, :, None, None].repeat(1, 1, size, size)
