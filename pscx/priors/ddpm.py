"""A pixel-space diffusion model, Ho et al. 2020 (DDPM), loaded through diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor
from torch.nn import functional

from pscx.priors.base import Prior, fingerprint

EMBEDDED = Path(__file__).parent / "embedded"


class DDPM(Prior):
    """Pixel-space DDPM (Ho et al. 2020): a diffusers ``UNet2DModel`` and its noise schedule.

    A network over ``3 p^2`` channels sees the image through space-to-depth with factor ``p``, so one of 12 channels
    works at half resolution. Images are ``(batch, 3, height, width)`` in [-1, 1]; their sides must be multiples of
    :attr:`stride`.

    Args:
        path: ``embedded`` for the prior that ships with pscx, else a local folder or a hub id, in the layout of
            ``DDPMPipeline`` (``unet/`` and ``scheduler/``) or with both configs at its root.
    """

    def __init__(self, path: str = "embedded") -> None:
        super().__init__()
        folder = EMBEDDED if path == "embedded" else Path(path)
        network, scheduler = _load(str(folder) if path == "embedded" or folder.exists() else path)
        self._set(network, scheduler)
