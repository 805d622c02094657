"""A network with the preconditioning of Karras et al. 2022 (EDM) as one denoiser of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pscx.priors.ddpm_schedule import CONFIG, number_of
from pscx.priors.denoiser import Network, PixelDenoiser, patch_of, pixel_parts, through
from pscx.priors.parameterisations import EDM
from pscx.priors.schedules import Scheduler, load_scheduler
from pscx.runtime.safe_yaml import read_json

SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
NUMBERS = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}  # and what they are by default


class EDMDenoiser(nn.Module):
    """A ``UNet2DModel`` that is told ``ln(sigma) / 4``, turned into ``E[x0 | x]``.

    Args:
        network: takes ``3 p^2`` channels for an integer ``p >= 1`` and gives as many, or twice as many, the second half
            of which is not used.
        parameterisation: the standard deviation of the data, and the levels that it was trained on.
    """

    prediction = "edm"

    def __init__(self, network: Network, parameterisation: EDM) -> None:
        super().__init__()
        self.patch = patch_of(network)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameterisation = parameterisation
        self.stride = self.patch * 2 ** (len(network.config.block_out_channels) - 1)
        self.conditions: Tensor
        self.register_buffer("conditions", torch.tensor([parameterisation.sigma_data]), persistent=False)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """``E[x0 | x]`` for ``x = x0 + sigma z``, shape and dtype of ``x``."""
        return self.parameterisation.denoise(self._output, x, sigma)

    def _output(self, scaled: Tensor, c_noise: float) -> Tensor:
        x = scaled.to(self.conditions.device, self.network.dtype)
        conditions = torch.full((len(x),), c_noise, device=x.device)
        return through(self.network, self.patch, x, conditions).to(scaled)


def load_pixels(path: str | Path) -> PixelDenoiser | EDMDenoiser:
    """Load from a local folder or a hub id, as :func:`pscx.priors.denoiser.load_denoiser`; EDM's networks too."""
    network, schedule = pixel_parts(path, _schedule)
    return EDMDenoiser(network, schedule) if isinstance(schedule, EDM) else PixelDenoiser(network, schedule)


def _schedule(folder: Path) -> Scheduler | EDM:
    config = read_json(folder / CONFIG)
    if config.get("_class_name") not in SCHEDULERS:
        return load_scheduler(folder)
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError(f"scheduler.prediction_type of EDM must be epsilon, got {config['prediction_type']!r}")
    numbers: dict[str, Any] = {name: number_of(config, name, default) for name, default in NUMBERS.items()}
    return EDM(**numbers)
