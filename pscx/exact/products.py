"""Whether a device's matrix products of integers are exact."""

from __future__ import annotations

import torch
from torch.nn import functional

from pscx.errors import PscxError
from pscx.exact.convolution import LIMIT
from pscx.exact.group_norm import EXACT
from pscx.exact.settings import OncePerSetting, refuse_rounding
from pscx.runtime.homes import home_of


@OncePerSetting
def check_products(device: torch.device) -> None:
    """Multiply integers that drive sums to the limits of float32 and float64, and compare with 64-bit integers.

    One operand takes most of the digits, then the other. Done once for each device and each combination of torch's
    settings (:mod:`pscx.exact.settings`). Raises :class:`PscxError` where torch's settings permit a library to round
    its inputs (TF32, bfloat16), and where one rounds them or its sums.
    """
    refuse_rounding(device)
    inner = 64
    limits = {torch.float32: LIMIT, torch.float64: 1 << EXACT}
    if home_of(device) != device:
        del limits[torch.float64]  # it has none
    for dtype, limit in limits.items():
        wide = torch.full((inner, inner), limit // (inner * 15) - 1) - torch.eye(inner, dtype=torch.long)
        narrow = torch.where(torch.arange(inner * 9).reshape(9, inner) % 17 == 0, -15, 15)
        for left, right in ((wide, narrow), (narrow, wide)):
            found = functional.linear(left.to(device, dtype), right.to(device, dtype)).cpu()
            if not torch.equal(found.long(), (left[:, None] * right).sum(2)):
                name = str(dtype).removeprefix("torch.")
                raise PscxError(
                    f"{name} products of integers are not exact on {device.type}: exact decoding needs full precision "
                    "(torch.set_float32_matmul_precision('highest'), no TF32)"
                )
