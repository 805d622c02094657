"""Priors: diffusion models of images, each seen as a denoiser."""

from pscx.priors.base import PRIORS, Prior
from pscx.priors.ddpm import DDPM
from pscx.priors.gaussian import Gaussian
from pscx.priors.stable_diffusion import StableDiffusion

__all__ = ["DDPM", "PRIORS", "Gaussian", "Prior", "StableDiffusion"]
