"""What a variance-preserving noise schedule means in numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pscx.exact.roots import square_root
from pscx.priors.ddpm_schedule import CONFIG, DDPMSchedule
from pscx.runtime.quiet import importing
from pscx.runtime.safe_yaml import read_json

PREDICTIONS = ("epsilon", "v_prediction", "sample")
LEAST_SIGNAL = 2.0**-24
HIGHEST_LEVEL = 250.0  # that a network is told


class Scheduler(Protocol):
    """What is asked of a scheduler: :class:`pscx.priors.ddpm_schedule.DDPMSchedule` or one of diffusers."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its options, as in ``scheduler_config.json``."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """Share of the signal's variance at each step, ``(steps,)`` float32, falling."""

    def save_pretrained(self, folder: Path) -> None:
        """Write ``scheduler_config.json`` into a folder."""


def noise_levels(alphas_cumprod: Tensor) -> Tensor:
    """Noise over signal of each step, Song et al. 2021 (DDIM), Eq. 4: ``sqrt((1 - a) / a)``.

    ``alphas_cumprod`` has shape ``(steps,)`` with values in (0, 1]; so has the answer, in units of the signal
    (an image in [-1, 1]: multiply by 127.5 for grey levels).
    """
    return square_root((1 - alphas_cumprod) / alphas_cumprod)


def log_levels(alphas_cumprod: Tensor) -> Tensor:
    """Natural logarithm of the noise level of each step, ``(steps,)`` float32, to 12 bits behind the point.

    Rounded so that the last digits of a machine's logarithm do not matter. Levels over 250, which hide all of an
    image, count as 250: a schedule may end far above the step before, where a network is hardly trained.
    """
    levels = noise_levels(alphas_cumprod.double()).clamp_max(HIGHEST_LEVEL)
    return ((levels.log() * 4096).round() / 4096).float()


def nearest(levels: Tensor, sigma: float) -> int:
    """Place of the level nearest to ``sigma`` among ``levels`` ``(all,)``; one outside of them means an end."""
    return int((levels - sigma).abs().argmin())


def load_scheduler(folder: Path) -> Scheduler:
    """The scheduler of a folder with ``scheduler_config.json``, of the diffusers class that this names.

    Any class over discrete variance-preserving steps will do (DDPM, DDIM, PNDM, Euler, DPM-Solver, ...): its noise
    schedule is used, not its way of sampling. That of DDPM needs no diffusers in its usual forms. Raises ``ValueError``
    for one that has no such schedule, and ``OSError`` where the file is missing.
    """
    config = read_json(folder / CONFIG)
    own = DDPMSchedule.of(config)
    return _of_diffusers(config) if own is None else own


def _of_diffusers(config: Mapping[str, Any]) -> Scheduler:
    with importing():
        import diffusers

    name = str(config.get("_class_name", "DDPMScheduler"))
    kind: Any = getattr(diffusers, name, None)
    known = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not known:
        raise ValueError(f"its scheduler is a {name}, which this version of diffusers does not have")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy about what some of them do
        try:
            scheduler: Scheduler = kind.from_config(config)
        except (AttributeError, NotImplementedError, TypeError) as error:  # of options that it does not have or know
            reason = str(error).partition("\n")[0]
            raise ValueError(f"its scheduler is a {name}, which cannot be made of its options: {reason}") from error
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"its scheduler is a {name}, which has no variance-preserving steps")
    return scheduler


def signal_shares(scheduler: Scheduler) -> Tensor:
    """``alphas_cumprod`` of a scheduler, ``(steps,)`` float64, all over 0.

    A schedule that ends in noise alone (Lin et al. 2024, zero terminal SNR) ends at 2^-24 instead, so that noise
    levels are finite.
    """
    shares: Tensor = scheduler.alphas_cumprod.double()
    return torch.where(shares > 0, shares, shares[shares > 0].min().clamp_max(LEAST_SIGNAL))


def prediction_of(scheduler: Scheduler) -> str:
    """What the scheduler's network predicts. Raises ``ValueError`` where that is none of :data:`PREDICTIONS`."""
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"scheduler.prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    return str(prediction)


def lognormal_weights(alphas_cumprod: Tensor, center: float, spread: float, uniform: float) -> Tensor:
    """Probability of training on each step: log noise level normal, as Karras et al. 2022 (EDM), section 5.

    ``center`` is the median noise level (units of the signal), ``spread`` the standard deviation of its natural
    logarithm, ``uniform`` the share in [0, 1] that goes to all steps alike. Returns shape ``(steps,)``, sum 1.
    """
    log_sigma = noise_levels(alphas_cumprod.double()).log()
    density = torch.exp(-0.5 * ((log_sigma - torch.tensor(center).double().log()) / spread) ** 2)
    density = density * torch.gradient(log_sigma)[0].abs()
    return (1 - uniform) * density / density.sum() + uniform / len(density)
