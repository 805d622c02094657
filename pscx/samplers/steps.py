"""Which steps of a noise schedule a sampler visits."""

from __future__ import annotations

import torch
from torch import Tensor

SPACINGS = ("linear", "log")


def timesteps(levels: Tensor, start: float | None, stop: float, steps: int, spacing: str) -> list[int]:
    """Step numbers from noise level ``start`` down to ``stop``, at most ``steps`` of them, strictly falling.

    ``levels`` ``(all,)`` are the schedule's noise levels, rising; a level outside of it means its nearest end.
    """
    last = len(levels) - 1
    first = last if start is None else int((levels - start).abs().argmin())
    end = int((levels - stop).abs().argmin())
    if steps == 1 or first <= end:
        return [first]
    if spacing == "linear":
        chosen = torch.linspace(first, end, steps).round().long()
    else:
        wanted = torch.linspace(float(levels[first].log()), float(levels[end].log()), steps, dtype=torch.float64).exp()
        chosen = (levels[None] - wanted[:, None]).abs().argmin(1)
    return sorted(set(chosen.tolist()), reverse=True)
