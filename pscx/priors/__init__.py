"""Priors: diffusion models of images, each seen as a denoiser."""

from pscx.priors.base import PRIORS, Prior
from pscx.priors.ddpm import DDPM
from pscx.priors.gaussian import Gaussian

__all__ = ["DDPM", "PRIORS", "Gaussian", "Prior"]
