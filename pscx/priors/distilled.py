"""Models distilled to a few steps: their answer looks like a sample, and is no posterior mean."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import torch
from torch import Tensor

from pscx.exact.timesteps import frequencies
from pscx.runtime.notices import tell

CONSISTENCY = ("LCMScheduler", "TCDScheduler")
ADVERSARIAL = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")


def sign_of_distillation(scheduler: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """Why the configurations of a UNet and its scheduler are those of a few-step model; empty where they are not.

    Latent consistency models (Luo et al. 2023) have a scheduler of their own, or are told the guidance. Turbo models
    (Sauer et al. 2024) predict noise in steps counted from the last one (``trailing``).
    """
    name = str(scheduler.get("_class_name"))
    if name in CONSISTENCY:
        return f"its scheduler is the {name}"
    if network.get("time_cond_proj_dim") is not None:
        return "its network is told the guidance"
    trailing = scheduler.get("timestep_spacing") == "trailing" and not scheduler.get("rescale_betas_zero_snr")
    if name in ADVERSARIAL and trailing and scheduler.get("prediction_type", "epsilon") == "epsilon":
        return "its scheduler counts steps from the last one (timestep_spacing: trailing)"
    return ""


def tell_of(path: str, sign: str) -> None:
    """Say once that the model at ``path`` gives no posterior mean."""
    tell(
        f"the prior '{path}' is distilled to a few steps ({sign}): its answer is one likely image, not the mean of "
        "all, so use few sampler steps; what needs the mean is refused"
    )


def guidance_waves(guidance: float, width: int, device: torch.device) -> Tensor:
    """What a latent consistency model is told of the guidance, Luo et al. 2023, section 4.2: ``(1, width)`` float32."""
    places = torch.arange(width // 2, dtype=torch.float32, device=device)
    angles = 1000 * (guidance - 1) * torch.exp(-log(10000) / (width // 2 - 1) * places)
    return torch.cat([angles.sin(), angles.cos()])[None]


def exact_guidance_waves(guidance: float, width: int, device: torch.device) -> Tensor:
    """:func:`guidance_waves`, each the float32 number next to the true sine or cosine, on every machine."""
    waves = torch.tensor(frequencies(1000 * (guidance - 1), width // 2, 1.0), dtype=torch.float64, device=device)
    return torch.cat([waves[:, 1], waves[:, 0]])[None].float()
