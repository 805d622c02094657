"""Functions of single elements, taken a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PART = 1 << 16
"""Elements that are held at a time: a function of many steps finds them in the processor's cache at each."""


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` of a function that sees each element by itself and keeps shape and dtype."""
    if x.numel() <= PART or x.device.type != "cpu":
        return function(x)
    if not (x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))):
        x = x.contiguous()
    result = torch.empty_like(x)
    whole, target = (tensor.as_strided((x.numel(),), (1,)) for tensor in (x, result))
    for part, place in zip(torch.split(whole, PART), torch.split(target, PART), strict=True):
        place.copy_(function(part))
    return result
