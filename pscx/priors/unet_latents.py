"""What latent diffusion models with a UNet share: what it predicts, its schedule, whether it was distilled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from pscx.priors.ddpm_schedule import DDPMSchedule
from pscx.priors.distilled import sign_of_distillation, tell_of
from pscx.priors.latent import LatentOptions, LatentPrior
from pscx.priors.parameterisations import VariancePreserving
from pscx.priors.parts import SCHEDULER, Parts
from pscx.priors.schedules import PREDICTIONS, load_scheduler, noise_levels, prediction_of, signal_shares
from pscx.priors.texts import Texts

UNET_MAPS = 40  # of as many channels as the finest level has, at its size: measured at the published widths


@dataclass(frozen=True)
class Diffusion:
    """What a UNet predicts, what its schedule makes of that, and why it seems distilled: empty where it does not.

    ``schedule`` is the configuration of its scheduler.
    """

    prediction: str
    parameterisation: VariancePreserving
    sign: str
    schedule: Mapping[str, Any]

    def exact(self) -> Diffusion:
        """With noise levels from arithmetic that is the same on every machine, where torch's differs in last bits.

        Raises ``ValueError`` where the schedule has no such form.
        """
        known = DDPMSchedule.of_betas(self.schedule)
        levels = None if known is None else noise_levels(signal_shares(known))
        found = self.parameterisation.levels
        if levels is None or levels.shape != found.shape or not torch.allclose(levels, found, rtol=1e-4):
            kind = self.schedule.get("_class_name"), self.schedule.get("beta_schedule")
            raise ValueError(f"exact must be false: the schedule of {kind[0]} with betas {kind[1]} has no exact form")
        return replace(self, parameterisation=VariancePreserving(levels, self.prediction))


def diffusion_of(parts: Parts, unet: Any) -> Diffusion:
    """That of a model's scheduler. Raises ``ValueError`` or ``OSError`` where there is none that will do."""
    scheduler = load_scheduler(parts.folder / SCHEDULER)
    prediction = prediction_of(scheduler)
    parameterisation = VariancePreserving(noise_levels(signal_shares(scheduler)), prediction)
    sign = sign_of_distillation(parts.schedule, unet.config)
    return Diffusion(prediction, parameterisation, sign, {**scheduler.config, **parts.schedule})


class UNetLatents(LatentPrior):
    """A latent prior with a UNet and a variance-preserving schedule; it says so where it was distilled.

    Args:
        path: where the model was found, for that sentence.
        unet: the denoiser, of diffusers.
        vae: the autoencoder, of diffusers.
        texts: the text encoders.
        diffusion: see :func:`diffusion_of`.
        options: see :class:`pscx.priors.latent.LatentOptions`.
        upcast: as of :class:`pscx.priors.latent.LatentPrior`.
    """

    implied: ClassVar[Mapping[str, Any]] = {"exact": False}

    def __init__(
        self,
        path: str,
        unet: Any,
        vae: Any,
        texts: Texts,
        diffusion: Diffusion,
        options: LatentOptions,
        *,
        upcast: bool = False,
    ) -> None:
        self.prediction, self.posterior_mean = diffusion.prediction, not diffusion.sign
        if options.exact:
            diffusion = diffusion.exact()
        super().__init__(unet, vae, texts, diffusion.parameterisation, options, upcast=upcast)
        if diffusion.sign:
            tell_of(path, diffusion.sign)
        self.stride = self.autoencoder.factor * 2 ** (len(unet.config.block_out_channels) - 1)

    def activations(self, height: int, width: int) -> int:
        return UNET_MAPS * int(self.network.config.block_out_channels[0]) * height * width

    def facts(self) -> list[float]:
        return [PREDICTIONS.index(self.prediction)]
