"""A denoising network of convolutions and ReLU alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pscx.networks.base import Network, Output

NOISE_SCALE = 3.0  # the noise map holds the natural logarithm of the noise level over this number
RESIDUAL_GAIN = 0.2  # initial weights of a block's last convolution, against those that keep the variance
LEAK = 0.03  # gradient of a rectified number below 0, in training


class ResidualUNet(Network):
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

    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 12,
        block_out_channels: tuple[int, ...] = (64, 96, 128),
        blocks: tuple[int, ...] = (2, 2, 2),
    ) -> None:
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        super().__init__(**channels, block_out_channels=block_out_channels, blocks=blocks)
        widths = list(block_out_channels)
        if not widths:
            raise ValueError("network.block_out_channels must not be empty")
        if len(widths) != len(blocks):
            raise ValueError(
                f"network.blocks must hold one number for each of block_out_channels ({len(widths)}), got {len(blocks)}"
            )
        for name, number in {**channels, "block_out_channels": min(widths), "blocks": min(blocks)}.items():
            if number < 1:
                raise ValueError(f"network.{name} must be at least 1, got {number}")
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
        """Begin with a trained network's function, as far as no block of it is left out; to be called on fresh weights.

        Levels may be wider, and blocks more or fewer. New channels keep the random weights into them, and weights from
        them into channels of ``network`` are 0; new blocks are the identity, their ``second`` being 0. The function is
        kept as in Chen et al. 2016 (Net2Net), where new channels are copies. Without a block that ``network`` has,
        answers are worse until training makes up for it.

        Raises:
            ValueError: the channels in or out or the number of levels are not those of ``network``, or a level of it is
                wider.
        """
        theirs, ours = network.config, self.config
        outside = [(config.in_channels, config.out_channels) for config in (theirs, ours)]
        if outside[0] != outside[1]:
            raise ValueError(
                "network.in_channels and out_channels must be those of the network it starts from, "
                f"{outside[0]}, got {outside[1]}"
            )
        before, now = list(theirs.block_out_channels), list(ours.block_out_channels)
        if len(before) != len(now) or any(a > b for a, b in zip(before, now, strict=True)):
            raise ValueError(
                "network.block_out_channels must have as many levels as the network it starts from, each at least as "
                f"wide ({before}), got {now}"
            )
        trained = dict(network.named_modules())
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and name in trained:
                widen(layer, trained[name])
            elif isinstance(layer, ResidualBlock) and name not in trained:
                for tensor in layer.second.parameters():
                    tensor.zero_()

    def coarse_weights(self) -> list[Tensor]:
        """Weights of two or more dimensions of all layers below the finest level."""
        fine = ("head.", "down.0.", "up.0.", "tail.") if len(self.up) else ("head.", "body.", "tail.")
        return [tensor for name, tensor in self.named_parameters() if tensor.ndim > 1 and not name.startswith(fine)]

    def forward(self, sample: Tensor, timestep: Tensor) -> Output:
        """``sample`` ``(batch, channels, height, width)``; ``timestep`` ``(batch,)`` is the log of the noise level."""
        level = (timestep * (1 / NOISE_SCALE)).to(sample)[:, None, None, None].expand(-1, 1, *sample.shape[2:])
        with torch.autocast(sample.device.type, enabled=False):  # little noise drowns in what bfloat16 rounds away
            x = self.head(torch.cat([sample, level], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks.children():  # one by one: a call of them all holds what the first was given
                x = block(x)
            kept.append(x)
            x = shrink(x)
        x = self.body(x)
        for blocks, grow in reversed(list(zip(self.up, self.grow, strict=True))):
            x = grow(x) + kept.pop()
            for block in blocks.children():
                x = block(x)
        return Output(sample=self.tail(x))


class ResidualBlock(nn.Module):
    """``x + W2 relu(W1 x)`` with 3x3 convolutions, as He et al. 2016 without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for layer, gain in ((self.first, 2.0**0.5), (self.second, RESIDUAL_GAIN)):
            for tensor in (tensor for tensor in layer.parameters() if not tensor.is_meta):
                nn.init.normal_(tensor, std=gain / (9 * channels) ** 0.5 if tensor.ndim > 1 else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x)
        change: Tensor = self.second(Rectified.apply(hidden) if self.training else hidden.relu())  # type: ignore[no-untyped-call]
        return x + change


class Rectified(torch.autograd.Function):
    """ReLU whose gradient below 0 is that of a leaky one; for training alone.

    A channel that no input activates has no gradient through a ReLU, and stays silent for the rest of the training.
    Whole blocks of an earlier embedded prior had gone silent so.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, gradient, gradient * LEAK)


def widen(layer: nn.Conv2d | nn.ConvTranspose2d, trained: nn.Module) -> None:
    """Give a convolution the weights of a narrower one; the outputs that the narrower one has ignore new inputs."""
    known: Tensor = trained.get_parameter("weight")
    turned = isinstance(layer, nn.ConvTranspose2d)  # its weight is (in, out, ...), not (out, in, ...)
    by_output, known = (tensor.transpose(0, 1) if turned else tensor for tensor in (layer.weight, known))
    by_output[: len(known)] = 0
    by_output[: len(known), : known.shape[1]] = known
    assert layer.bias is not None
    layer.bias[: known.shape[0]] = trained.get_parameter("bias")


def chain(channels: int, count: int) -> nn.Sequential:
    """``count`` residual blocks one after another."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
