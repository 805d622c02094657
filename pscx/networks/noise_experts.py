"""Two denoising networks, each for its own range of noise, as one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pscx.networks.base import Network, Output
from pscx.networks.residual_unet import ResidualUNet


class NoiseExperts(Network):
    """Two :class:`ResidualUNet` of equally many levels, the first up to a noise level, the second above it.

    Experts by noise level as in Balaji et al. 2022 (eDiff-I), section 4.1: twice the weights at the cost of one
    evaluation, because each image goes through one of them.

    Args:
        in_channels: channels of ``sample``, at least 1.
        out_channels: channels of the answer, at least 1.
        block_out_channels: channels of each level, finest first.
        blocks: residual blocks of each level, as in :class:`ResidualUNet`.
        switch: the highest noise level of the first expert, over 0, in units of an image in [-1, 1].
        low_block_out_channels: those of the first expert, as many levels, or none for ``block_out_channels``: with
            little noise fine levels matter most.
        low_blocks: those of the first expert, or none for ``blocks``.

    Raises:
        ValueError: ``switch`` is not over 0 and finite, the experts differ in their number of levels, or
            :class:`ResidualUNet` refuses the rest.
    """

    references = ("balaji2022ediffi",)

    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 12,
        block_out_channels: tuple[int, ...] = (64, 96, 128),
        blocks: tuple[int, ...] = (2, 2, 2),
        switch: float = 0.25,
        low_block_out_channels: tuple[int, ...] | None = None,
        low_blocks: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=block_out_channels,
            blocks=blocks,
            switch=switch,
            low_block_out_channels=low_block_out_channels,
            low_blocks=low_blocks,
        )
        if not 0 < switch < math.inf:
            raise ValueError(f"network.switch must be over 0 and finite, got {switch}")
        levels = len(block_out_channels)
        for name, numbers in (("low_block_out_channels", low_block_out_channels), ("low_blocks", low_blocks)):
            if numbers is not None and (len(numbers) != levels or min(numbers) < 1):
                raise ValueError(
                    f"network.{name} must hold one number of at least 1 for each of block_out_channels ({levels}), "
                    f"got {list(numbers)}"
                )
        self.border = round(math.log(switch) * 4096) / 4096  # as the levels themselves: pscx.priors.schedules
        low_channels = block_out_channels if low_block_out_channels is None else low_block_out_channels
        self.low = ResidualUNet(in_channels, out_channels, low_channels, blocks if low_blocks is None else low_blocks)
        self.high = ResidualUNet(in_channels, out_channels, block_out_channels, blocks)

    def start_from(self, network: ResidualUNet | NoiseExperts) -> None:
        """Start each expert from that of a trained pair, or both from one network for all noise levels.

        As :meth:`ResidualUNet.start_from`, whose ``ValueError`` this raises.
        """
        experts = (network.low, network.high) if isinstance(network, NoiseExperts) else (network, network)
        for expert, trained in zip((self.low, self.high), experts, strict=True):
            expert.start_from(trained)

    def expert(self, level: float) -> ResidualUNet:
        """The network for a noise level, given by its logarithm as :meth:`forward` takes it."""
        found: ResidualUNet = self.low if level <= self.border else self.high
        return found

    def forward(self, sample: Tensor, timestep: Tensor) -> Output:
        """``sample`` ``(batch, channels, height, width)``; ``timestep`` ``(batch,)`` is the log of the noise level."""
        low = timestep <= self.border
        for expert, takes in ((self.low, low), (self.high, ~low)):
            if takes.all():
                answer: Output = expert(sample, timestep)
                return answer
        parts = [expert(sample[mask], timestep[mask]).sample for expert, mask in ((self.low, low), (self.high, ~low))]
        place = torch.argsort(torch.cat([low.nonzero(), (~low).nonzero()])[:, 0])
        return Output(sample=torch.cat(parts)[place])
