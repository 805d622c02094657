"""Second-order statistics of Stable Diffusion's latents: what is known before the diffusion model is asked."""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 0.2  # of the correlation exp(-RATE * distance); a latent pixel stands for 8 x 8 of an image


def latent_covariance(channels: int, block: int) -> Tensor:
    """Covariance of ``block`` x ``block`` latent pixels, ``(channels block^2, channels block^2)`` float64.

    Unit variance in each channel, which is what the autoencoder's scaling factor is for (Rombach et al. 2022,
    appendix G), channels uncorrelated, isotropic exponential correlation (positive definite: Schoenberg 1938). A
    model, not a measurement: the row rule ``local`` mixes it with the covariance of the samples and corrects its scale
    from what was coded, so where it is off it costs bits and never correctness.
    """
    place = torch.arange(block, dtype=torch.float64)
    y, x = (t.reshape(-1) for t in torch.meshgrid(place, place, indexing="ij"))
    distance = torch.sqrt((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2)
    return torch.kron(torch.eye(channels, dtype=torch.float64), torch.exp(-RATE * distance))
