"""Square roots that are rounded as IEEE 754 wants them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.exact.settings import OncePerSetting


def square_root(values: Tensor) -> Tensor:
    """``sqrt`` of a float32 or float64 tensor, correctly rounded.

    On a CPU, torch's is within one unit in the last place, and differs between instruction sets. That of another
    device is looked at by :func:`check_roots`.
    """
    return torch.as_tensor(np.sqrt(values.numpy())) if values.device.type == "cpu" else values.sqrt()


@OncePerSetting
def check_roots(device: torch.device) -> None:
    """Raise :class:`PscxError` where the square roots of a device are not those of :func:`square_root` on the CPU."""
    whole = torch.arange(1, 1 << 15, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        values = torch.cat([whole, whole.reciprocal(), whole * (1 / 3)]).to(dtype)
        if not torch.equal(square_root(values.to(device)).cpu(), square_root(values)):
            raise PscxError(f"square roots on {device} are not rounded as IEEE 754 wants them: exact codecs rely on it")
