"""Square roots that are rounded as IEEE 754 wants them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def square_root(values: Tensor) -> Tensor:
    """``sqrt`` of a float32 or float64 tensor, correctly rounded.

    On a CPU, torch's is within one unit in the last place, and differs between instruction sets. That of another
    device is looked at by :func:`pscx.exact.check_roots`.
    """
    return torch.as_tensor(np.sqrt(values.numpy())) if values.device.type == "cpu" else values.sqrt()
