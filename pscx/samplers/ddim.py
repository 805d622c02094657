"""One step of denoising diffusion implicit models, Song et al. 2021 (DDIM)."""

from __future__ import annotations

from math import sqrt

from torch import Tensor


def ddim_step(x: Tensor, x0: Tensor, sigma: float, after: float, eta: float, noise: Tensor) -> Tensor:
    """From noise level ``sigma`` down to ``after``: DDIM, Eq. 12 with the sigma of Eq. 16, over ``sqrt(alpha)``.

    ``x0 + sqrt(after^2 - c^2) (x - x0) / sigma + c z`` with ``c = eta after sqrt(1 - after^2 / sigma^2)``: with ``eta``
    1 the ancestral step of DDPM (Ho et al. 2020), with 0 a deterministic one. ``x``, ``x0`` and ``noise`` have one
    shape; with ``after`` 0 the answer is ``x0``.
    """
    fresh = eta * after * sqrt(1 - (after / sigma) ** 2)
    kept = sqrt(max(after**2 - fresh**2, 0.0))
    return x0 + kept / sigma * (x - x0) + fresh * noise
