"""Networks of the project's own, in diffusers' model classes."""

from pscx.networks.residual_unet import ResidualUNet

__all__ = ["ResidualUNet"]
