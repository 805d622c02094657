"""Second-order statistics of photographs: what is known before a diffusion model is asked."""

from __future__ import annotations

import torch
from torch import Tensor

# Orthonormal colour axes and, along each, variance and correlation exp(-rate * distance^power) with the distance in
# pixels. Measured about mid-grey on 3,000 crops of 64x64 from photographs shrunk by 1 to 2; image range [-1, 1].
AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))
VARIANCES = (0.696, 0.0836, 0.0167)
RATES = (0.058, 0.0105, 0.0135)
POWERS = (0.69, 0.95, 0.92)


def photograph_covariance(block: int) -> Tensor:
    """Covariance of ``block`` x ``block`` pixels of a photograph, ``(3 block^2, 3 block^2)`` float64.

    Isotropic stretched-exponential correlation (positive definite for powers in (0, 2]: Schoenberg 1938) on each of
    three colour axes; ordered channel, row, column.
    """
    place = torch.arange(block, dtype=torch.float64)
    y, x = (t.reshape(-1) for t in torch.meshgrid(place, place, indexing="ij"))
    distance = torch.sqrt((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2)
    total = torch.zeros(3 * block**2, 3 * block**2, dtype=torch.float64)
    for axis, variance, rate, power in zip(AXES, VARIANCES, RATES, POWERS, strict=True):
        color = torch.tensor(axis, dtype=torch.float64)
        color = color / color.norm()
        total += torch.kron(variance * torch.outer(color, color), torch.exp(-rate * distance**power))
    return total
