"""Devices that support float64."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache
def home_of(device: torch.device) -> torch.device:
    """``device``, or the CPU if the device has no float64, as Apple's MPS."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        if "float64" not in str(error):
            raise
        return torch.device("cpu")
    return device
