"""Networks of the project's own, in diffusers' model classes."""

from pscx.networks.noise_experts import NoiseExperts
from pscx.networks.residual_unet import ResidualUNet

__all__ = ["NoiseExperts", "ResidualUNet"]
