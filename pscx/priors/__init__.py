"""Priors: diffusion models of images, each seen as a denoiser."""

from pscx.priors.base import PRIORS, Prior
from pscx.priors.ddpm import DDPM
from pscx.priors.flux import Flux
from pscx.priors.gaussian import Gaussian
from pscx.priors.sana import Sana
from pscx.priors.sd3 import SD3
from pscx.priors.sdxl import SDXL
from pscx.priors.speed import SPEEDS, Speed
from pscx.priors.stable_diffusion import StableDiffusion

__all__ = ["DDPM", "PRIORS", "SD3", "SDXL", "SPEEDS", "Flux", "Gaussian", "Prior", "Sana", "Speed", "StableDiffusion"]
