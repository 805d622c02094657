"""Patches of pictures, as HiFiC's protocol cuts them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def patches(image: NDArray[np.uint8], side: int) -> Tensor:
    """Square patches of ``(height, width, 3)`` as ``(patches, 3, side, side)`` (Mentzer et al. 2020, appendix A.7).

    Those of a grid from the upper left corner, and where both sides are at least one and a half patches those of a
    grid that begins half a patch lower and further right. What is left over at the other ends is not used.
    """
    whole = torch.from_numpy(image).movedim(-1, 0)
    return torch.cat([_grid(whole[:, origin:, origin:], side) for origin in (0, side // 2)])


def _grid(image: Tensor, side: int) -> Tensor:
    if min(image.shape[1:]) < side:
        return image.new_zeros(0, 3, side, side)
    cut = image.unfold(1, side, side).unfold(2, side, side)  # (3, down, across, side, side)
    return cut.flatten(1, 2).movedim(0, 1).contiguous()
