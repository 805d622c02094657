"""Natural logarithm from additions, multiplications and one division."""

from __future__ import annotations

from math import log, sqrt

import torch
from torch import Tensor

LN_2 = log(2)
MIDDLE, LN_MIDDLE = sqrt(2), log(2) / 2
FRACTION, ONE = (1 << 23) - 1, 127 << 23  # bits of a float32 number behind the point, and the bits of 1


def logarithm(x: Tensor) -> Tensor:
    """``ln x`` of a float32 tensor of normal numbers over 0, one result on every machine.

    With ``x = 2^k m`` and ``z = (m - sqrt(2)) / (m + sqrt(2))`` it is ``k ln 2 + ln sqrt(2) + 2 (z + z^3/3 + z^5/5)``.
    The error is at most 2.5e-6, or 2e-7 of the result where that is more. Each step is a single IEEE operation on each
    element, or on the bits. What is not such a number has no meaning here.
    """
    bits = x.view(torch.int32)
    power = (bits >> 23).sub_(127).to(torch.float32)
    m = (bits & FRACTION).bitwise_or_(ONE).view(torch.float32)
    z = (m - MIDDLE).div_(m.add_(MIDDLE))
    square = z * z
    series = (square * (2 / 5)).add_(2 / 3).mul_(square).add_(2.0).mul_(z)
    return series.add_(LN_MIDDLE).add_(power.mul_(LN_2))
