"""Two denoising networks, each for its own range of noise, as one."""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from pscx.networks.residual_unet import ResidualUNet


class NoiseExperts(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Two :class:`ResidualUNet` of one shape, the first up to a noise level, the second above it.

    Experts by noise level as in Balaji et al. 2022 (eDiff-I), section 4.1: twice the weights at the cost of one
    evaluation, because each image goes through one of them.

    Args:
        in_channels: channels of ``sample``, at least 1.
        out_channels: channels of the answer, at least 1.
        block_out_channels: channels of each level, finest first.
        blocks: residual blocks of each level, as in :class:`ResidualUNet`.
        switch: the highest noise level of the first expert, over 0, in units of an image in [-1, 1].

    Raises:
        ValueError: ``switch`` is not over 0, or :class:`ResidualUNet` refuses the rest.
    """

    references = ("balaji2022ediffi",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 12,
        block_out_channels: tuple[int, ...] = (64, 96, 128),
        blocks: tuple[int, ...] = (2, 2, 2),
        switch: float = 0.25,
    ) -> None:
        super().__init__()
        if not switch > 0:
            raise ValueError(f"network.switch must be over 0, got {switch}")
        self.threshold = round(math.log(switch) * 4096) / 4096  # as the levels themselves: pscx.priors.schedules
        self.low = ResidualUNet(in_channels, out_channels, block_out_channels, blocks)
        self.high = ResidualUNet(in_channels, out_channels, block_out_channels, blocks)

    def start_from(self, network: ResidualUNet) -> None:
        """Give both experts the weights of one network that was trained on all noise levels."""
        for expert in (self.low, self.high):
            expert.load_state_dict(network.state_dict())

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        """``sample`` ``(batch, channels, height, width)``; ``timestep`` ``(batch,)`` is the log of the noise level."""
        low = timestep <= self.threshold
        if low.all():
            return self.low(sample, timestep)
        if not low.any():
            return self.high(sample, timestep)
        parts = [expert(sample[mask], timestep[mask]).sample for expert, mask in ((self.low, low), (self.high, ~low))]
        place = torch.argsort(torch.cat([low.nonzero(), (~low).nonzero()])[:, 0])
        return UNet2DOutput(sample=torch.cat(parts)[place])
