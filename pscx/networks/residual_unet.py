"""A denoising network of convolutions and ReLU alone."""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

NOISE_SCALE = 3.0  # the noise map holds the natural logarithm of the noise level over this number
RESIDUAL_GAIN = 0.2  # initial weights of a block's last convolution, against those that keep the variance


class ResidualUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual U-Net after Zhang et al. 2021 (DRUNet): no normalisation, no attention, the noise level as a channel.

    Levels are joined by strided 2x2 convolutions and their transposes, and the way up adds what the way down had.

    Args:
        in_channels: channels of ``sample``, at least 1.
        out_channels: channels of the answer, at least 1.
        block_out_channels: channels of each level, finest first.
        blocks: residual blocks of each level, on the way down and again on the way up; of the coarsest, once.

    Raises:
        ValueError: ``blocks`` and ``block_out_channels`` differ in length, or a number is below 1.
    """

    references = ("zhang2021drunet",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 12,
        block_out_channels: tuple[int, ...] = (64, 96, 128),
        blocks: tuple[int, ...] = (2, 2, 2),
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        if len(widths) != len(blocks) or not widths:
            raise ValueError(
                f"network.blocks must hold one number for each of block_out_channels ({len(widths)}), got {len(blocks)}"
            )
        if min(*widths, *blocks, in_channels, out_channels) < 1:
            raise ValueError("network.in_channels, out_channels, block_out_channels and blocks must be at least 1")
        self.head = nn.Conv2d(in_channels + 1, widths[0], 3, padding=1)
        levels = list(zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(chain(width, count) for width, count in levels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairwise(widths))
        self.body = chain(*levels[-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(chain(width, count) for width, count in levels[:-1])
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        for tensor in self.tail.parameters():
            nn.init.zeros_(tensor)

    @torch.no_grad()
    def start_from(self, network: ResidualUNet) -> None:
        """Take over the weights of a trained network of equally many levels that has at most as many channels in each.

        What channels it had compute what they did: nothing flows into them from new ones, which begin with random
        weights (Chen et al. 2016, Net2Net, in the form of a residual network). So do blocks that it had not, which
        begin by changing nothing; blocks that it had over are left out, and those are missed until others learn
        their part.

        Raises:
            ValueError: it has other levels or ends, or more channels in a level.
        """
        theirs, ours = network.config, self.config
        ends = all(theirs[name] == ours[name] for name in ("in_channels", "out_channels"))
        before, now = tuple(theirs.block_out_channels), tuple(ours.block_out_channels)
        if not ends or len(before) != len(now) or any(a > b for a, b in zip(before, now, strict=True)):
            raise ValueError(
                f"a network of channels {now} cannot start from one of {before}: it needs as many levels, "
                "each at least as wide, and the same channels in and out"
            )
        trained = dict(network.named_parameters())
        for name, weight in self.named_parameters():
            known = trained.get(name)
            if known is None:
                if ".second." in name:
                    weight.zero_()
                continue
            if weight.ndim == 1:
                weight.zero_()
                weight[: len(known)] = known
                continue
            into = 1 if name.startswith("grow.") else 0  # transposed convolutions hold their outputs second
            out, inward = known.shape[into], known.shape[1 - into]
            rows = weight.transpose(0, into)
            rows[:out] = 0
            rows[:out, :inward] = known.transpose(0, into)

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        """``sample`` ``(batch, channels, height, width)``; ``timestep`` ``(batch,)`` is the log of the noise level."""
        level = (timestep * (1 / NOISE_SCALE)).to(sample)[:, None, None, None].expand(-1, 1, *sample.shape[2:])
        with torch.autocast(sample.device.type, enabled=False):  # little noise drowns in what bfloat16 rounds away
            x = self.head(torch.cat([sample, level], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            kept.append(blocks(x))
            x = shrink(kept[-1])
        x = self.body(x)
        for blocks, grow in reversed(list(zip(self.up, self.grow, strict=True))):
            x = blocks(grow(x) + kept.pop())
        return UNet2DOutput(sample=self.tail(x))


class ResidualBlock(nn.Module):
    """``x + W2 relu(W1 x)`` with 3x3 convolutions, as He et al. 2016 without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for layer, gain in ((self.first, 2.0**0.5), (self.second, RESIDUAL_GAIN)):
            for tensor in layer.parameters():
                nn.init.normal_(tensor, std=gain / (9 * channels) ** 0.5 if tensor.ndim > 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(self.first(x).relu())
        return x + change


def chain(channels: int, count: int) -> nn.Sequential:
    """``count`` residual blocks one after another."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
