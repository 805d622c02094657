"""Networks of pscx, in plain torch."""

from pscx.networks.base import Network
from pscx.networks.noise_experts import NoiseExperts
from pscx.networks.residual_unet import ResidualUNet

__all__ = ["Network", "NoiseExperts", "ResidualUNet"]
