"""ADM (Dhariwal and Nichol 2021) written out under the names of guided-diffusion's and of EDM's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import log

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


class Draw:
    """Random weights, drawn where a network first asks for them, and kept by name."""

    def __init__(self, seed: int) -> None:
        self.weights: Weights = {}
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, center: float = 0.0) -> Tensor:
        if name not in self.weights:
            fan = max(1, torch.Size(shape[1:]).numel())
            self.weights[name] = center + torch.randn(*shape, generator=self.generator) / fan**0.5
        return self.weights[name]

    def conv(self, name: str, x: Tensor, channels: int, size: int = 3) -> Tensor:
        weight = self(f"{name}.weight", channels, x.shape[1], size, size)
        return functional.conv2d(x, weight, self(f"{name}.bias", channels), padding=size // 2)

    def linear(self, name: str, x: Tensor, channels: int) -> Tensor:
        return functional.linear(x, self(f"{name}.weight", channels, x.shape[1]), self(f"{name}.bias", channels))

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self(f"{name}.weight", x.shape[1], center=1.0), self(f"{name}.bias", x.shape[1])
        return functional.group_norm(x, 32, weight, bias, 1e-5)


def waves(t: Tensor, width: int) -> Tensor:
    """Vaswani et al. 2017, cosines first, down to almost 1 / 10000."""
    angles = t[:, None] * torch.exp(-log(10000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], 1)


def resampled(x: Tensor, way: str) -> Tensor:
    if way == "down":
        return functional.avg_pool2d(x, 2)
    return functional.interpolate(x, scale_factor=2.0) if way == "up" else x


NAMES = {
    "adm": ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection"),
    "edm": ("norm0", "conv0", "affine", "norm1", "conv1", "skip"),
}


def residual(draw: Draw, kind: str, name: str, x: Tensor, emb: Tensor, channels: int, way: str = "") -> Tensor:
    """Section 3 there: resampled between norm and convolution; the embedding of time scales and shifts."""
    norm0, conv0, affine, norm1, conv1, skip = (f"{name}.{part}" for part in NAMES[kind])
    h = draw.conv(conv0, resampled(functional.silu(draw.norm(norm0, x)), way), channels)
    scale, shift = draw.linear(affine, functional.silu(emb), 2 * channels)[..., None, None].chunk(2, 1)
    h = draw.conv(conv1, functional.silu(draw.norm(norm1, h) * (1 + scale) + shift), channels)
    x = resampled(x, way)
    return h + (x if x.shape[1] == channels else draw.conv(skip, x, channels, 1))


def attend(draw: Draw, kind: str, name: str, x: Tensor, head: int, *, new_order: bool) -> Tensor:
    batch, channels, height, width = x.shape
    heads = channels // head
    if kind == "adm":
        flat = draw.norm(f"{name}.norm", x).flatten(2)
        weight, bias = draw(f"{name}.qkv.weight", 3 * channels, channels, 1), draw(f"{name}.qkv.bias", 3 * channels)
        qkv = functional.conv1d(flat, weight, bias)
        shape = (batch, 3, heads, head, -1) if new_order else (batch, heads, 3, head, -1)
        q, k, v = qkv.reshape(shape).unbind(1 if new_order else 2)
    else:
        qkv = draw.conv(f"{name}.qkv", draw.norm(f"{name}.norm2", x), 3 * channels, 1).flatten(2)
        q, k, v = qkv.reshape(batch, heads, head, 3, -1).unbind(3)
    weights = torch.softmax(torch.einsum("bhct,bhcs->bhts", q, k) / head**0.5, -1)
    found = torch.einsum("bhts,bhcs->bhct", weights, v).reshape(batch, channels, height * width)
    if kind == "adm":
        weight, bias = draw(f"{name}.proj_out.weight", channels, channels, 1), draw(f"{name}.proj_out.bias", channels)
        return x + functional.conv1d(found, weight, bias).reshape_as(x)
    return x + draw.conv(f"{name}.proj", found.reshape_as(x), channels, 1)


def guided_diffusion(
    draw: Draw,
    x: Tensor,
    t: Tensor,
    *,
    widths: tuple[int, ...],
    blocks: int,
    attention: tuple[int, ...],
    head: int,
    updown: bool = True,
    new_order: bool = False,
    label: int | None = None,
    classes: int = 0,
) -> Tensor:
    """Six channels, the noise first."""
    emb = draw.linear("time_embed.0", waves(t, widths[0]), 4 * widths[0])
    emb = draw.linear("time_embed.2", functional.silu(emb), 4 * widths[0])
    if classes:
        emb = emb + draw("label_emb.weight", classes, 4 * widths[0])[label]
    number, skips = count(1), [draw.conv("input_blocks.0.0", x, widths[0])]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            name = f"input_blocks.{next(number)}"
            h = residual(draw, "adm", f"{name}.0", skips[-1], emb, width)
            if level in attention:
                h = attend(draw, "adm", f"{name}.1", h, head, new_order=new_order)
            skips.append(h)
        if level < len(widths) - 1:
            name = f"input_blocks.{next(number)}.0"
            if updown:
                skips.append(residual(draw, "adm", name, skips[-1], emb, width, "down"))
            else:
                weight, bias = draw(f"{name}.op.weight", width, width, 3, 3), draw(f"{name}.op.bias", width)
                skips.append(functional.conv2d(skips[-1], weight, bias, stride=2, padding=1))
    h = residual(draw, "adm", "middle_block.0", skips[-1], emb, widths[-1])
    h = attend(draw, "adm", "middle_block.1", h, head, new_order=new_order)
    h = residual(draw, "adm", "middle_block.2", h, emb, widths[-1])
    number = count()
    for level, width in reversed([*enumerate(widths)]):
        for layer in range(blocks + 1):
            name = f"output_blocks.{next(number)}"
            h = residual(draw, "adm", f"{name}.0", torch.cat([h, skips.pop()], 1), emb, width)
            if level in attention:
                h = attend(draw, "adm", f"{name}.1", h, head, new_order=new_order)
            if level and layer == blocks:
                up = f"{name}.{2 if level in attention else 1}"
                if updown:
                    h = residual(draw, "adm", up, h, emb, width, "up")
                else:
                    h = draw.conv(f"{up}.conv", resampled(h, "up"), width)
    return draw.conv("out.2", functional.silu(draw.norm("out.0", h)), 6)


def edm(
    draw: Draw,
    x: Tensor,
    t: Tensor,
    *,
    side: int,
    widths: tuple[int, ...],
    blocks: int,
    attention: tuple[int, ...],
    label: int | None = None,
    classes: int = 0,
) -> Tensor:
    """``F`` of Karras et al. 2022, Eq. 7, told ``t``; heads of 64 channels."""
    emb = draw.linear("model.map_layer0", waves(t, widths[0]), 4 * widths[0])
    emb = draw.linear("model.map_layer1", functional.silu(emb), 4 * widths[0])
    if classes:
        emb = emb + draw("model.map_label.weight", 4 * widths[0], classes)[:, label]

    def block(name: str, x: Tensor, width: int, *, attended: bool = False, way: str = "") -> Tensor:
        h = residual(draw, "edm", f"model.{name}", x, emb, width, way)
        return attend(draw, "edm", f"model.{name}", h, 64, new_order=False) if attended else h

    skips = [draw.conv(f"model.enc.{side}x{side}_conv", x, widths[0])]
    for level, width in enumerate(widths):
        size = f"{side >> level}x{side >> level}"
        if level:
            skips.append(block(f"enc.{size}_down", skips[-1], widths[level - 1], way="down"))
        for i in range(blocks):
            skips.append(block(f"enc.{size}_block{i}", skips[-1], width, attended=level in attention))
    h = skips[-1]
    for level, width in reversed([*enumerate(widths)]):
        size = f"{side >> level}x{side >> level}"
        if level == len(widths) - 1:
            h = block(f"dec.{size}_in1", block(f"dec.{size}_in0", h, width, attended=True), width)
        else:
            h = block(f"dec.{size}_up", h, widths[level + 1], way="up")
        for i in range(blocks + 1):
            h = block(f"dec.{size}_block{i}", torch.cat([h, skips.pop()], 1), width, attended=level in attention)
    return draw.conv("model.out_conv", functional.silu(draw.norm("model.out_norm", h)), 3)


def contiguous(weights: Mapping[str, Tensor]) -> Weights:
    return {key: value.contiguous() for key, value in weights.items()}
