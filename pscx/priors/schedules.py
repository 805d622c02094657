"""What a variance-preserving noise schedule means in numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.exact.roots import square_root


def noise_levels(alphas_cumprod: Tensor) -> Tensor:
    """Noise over signal of each step, Song et al. 2021 (DDIM), Eq. 4: ``sqrt((1 - a) / a)``.

    ``alphas_cumprod`` has shape ``(steps,)`` with values in (0, 1]; so has the answer, in units of the signal
    (an image in [-1, 1]: multiply by 127.5 for grey levels).
    """
    return square_root((1 - alphas_cumprod) / alphas_cumprod)


def log_levels(alphas_cumprod: Tensor) -> Tensor:
    """Natural logarithm of the noise level of each step, ``(steps,)`` float32, to 12 bits behind the point.

    Rounded so that the last digits of a machine's logarithm do not matter.
    """
    return ((noise_levels(alphas_cumprod.double()).log() * 4096).round() / 4096).float()


def lognormal_weights(alphas_cumprod: Tensor, center: float, spread: float, uniform: float) -> Tensor:
    """Probability of training on each step: log noise level normal, as Karras et al. 2022 (EDM), section 5.

    ``center`` is the median noise level (units of the signal), ``spread`` the standard deviation of its natural
    logarithm, ``uniform`` the share in [0, 1] that goes to all steps alike. Returns shape ``(steps,)``, sum 1.
    """
    log_sigma = noise_levels(alphas_cumprod.double()).log()
    density = torch.exp(-0.5 * ((log_sigma - torch.tensor(center).double().log()) / spread) ** 2)
    density = density * torch.gradient(log_sigma)[0].abs()
    return (1 - uniform) * density / density.sum() + uniform / len(density)
