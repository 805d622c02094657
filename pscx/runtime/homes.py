"""Where numbers of 64 bits can live."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache
def home_of(device: torch.device) -> torch.device:
    """``device``, or the CPU where that has no float64, as Apple's MPS has not."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        if "float64" not in str(error):
            raise
        return torch.device("cpu")
    return device
