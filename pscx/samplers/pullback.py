"""A denoiser and the transpose of its Jacobian, for samplers that are guided through the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.exact import ROUNDING
from pscx.priors.base import Prior


def denoise_with_pullback(prior: Prior, x: Tensor, sigma: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``x0 = E[x0 | x]`` and the map ``v -> (d x0 / d x)^T v``, usable once; both ``(n, *shape)``.

    Rows of the batch do not mix: each has its own Jacobian. Raises :class:`PscxError` under inference mode, where
    torch cannot differentiate, and for an exact network, whose rounding has no gradient.
    """
    if any(isinstance(module, ROUNDING) for module in prior.modules()):
        raise PscxError("this sampler takes gradients through the network, and an exact prior has none: choose another")
    if torch.is_inference_mode_enabled():
        raise PscxError("this sampler takes gradients through the network: set trainer.inference_mode to false")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = prior.denoise(x, sigma)

    def pullback(vector: Tensor) -> Tensor:
        return torch.autograd.grad(x0, x, vector)[0]

    return x0.detach(), pullback
