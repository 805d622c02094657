"""One step of denoising diffusion implicit models, Song et al. 2021 (DDIM)."""

from __future__ import annotations

from torch import Tensor


def ddim_step(x: Tensor, x0: Tensor, a: Tensor, b: Tensor, eta: float, noise: Tensor) -> Tensor:
    """From signal variance ``a`` to ``b > a``, DDIM, Eq. 12 with the sigma of Eq. 16.

    ``sqrt(b) x0 + sqrt(1 - b - c^2) e + c z`` with ``e = (x - sqrt(a) x0) / sqrt(1 - a)`` and
    ``c = eta sqrt((1 - b) / (1 - a)) sqrt(1 - a / b)``: with ``eta`` 1 the ancestral step of DDPM (Ho et al. 2020),
    with 0 a deterministic one. ``x``, ``x0`` and ``noise`` have one shape; with ``b`` 1 the answer is ``x0``.
    """
    fresh = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    kept = (1 - b - fresh**2).clamp_min(0).sqrt()
    return b.sqrt() * x0 + kept * (x - a.sqrt() * x0) / (1 - a).sqrt() + fresh * noise
