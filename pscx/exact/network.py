"""A network whose every layer is exact."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.exact.convolution import LIMIT, ExactConvolution
from pscx.networks import ResidualUNet


def make_exact(network: nn.Module, weight_bits: int = 9, activation_bits: int = 11) -> None:
    """Replace the layers of ``network``, in place, by exact ones.

    What is left in between are single IEEE operations on each element (sums of two, ReLU, copies), which are the same
    on every machine as they are. So only networks that are known to be built so are taken.

    Raises:
        ValueError: another network than :class:`pscx.networks.ResidualUNet`.
    """
    if not isinstance(network, ResidualUNet):
        raise ValueError(f"exact must be false: a {type(network).__name__} has no exact form, a ResidualUNet has")
    replace_layers(network, weight_bits, activation_bits)


def replace_layers(module: nn.Module, weight_bits: int, activation_bits: int) -> None:
    """Replace every convolution below ``module`` by an exact one."""
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d)):
            setattr(module, name, ExactConvolution(child, weight_bits, activation_bits))
        else:
            replace_layers(child, weight_bits, activation_bits)


CHECKED_CHANNELS, CHECKED_BATCH = 32, 16


@lru_cache
def check_convolutions(device: torch.device) -> None:
    """Run exact layers on integers that drive their sums to the limit, and compare with 64-bit integers.

    Layers, memory layout and a batch are those of real use. A library that rounds its inputs (TF32, bfloat16) or
    transforms them (Winograd) fails here instead of decoding garbage. Raises :class:`PscxError`.
    """
    for kind, size, stride in ((nn.Conv2d, 3, 1), (nn.Conv2d, 2, 2), (nn.ConvTranspose2d, 2, 2)):
        exact = _full_layer(kind, size, stride)
        pattern = exact.weight[:, 0, :1, :1] if exact.transposed else exact.weight[0]
        image = pattern.sign().repeat(1, 4, 4) * (exact.top - torch.arange(float(CHECKED_BATCH))[:, None, None, None])
        wanted = int64_convolution(image, exact.weight, stride, exact.transposed)
        exact = exact.to(device)
        found = exact.convolved(image.to(device).contiguous(memory_format=torch.channels_last), exact.splits[0])
        if not torch.equal(found.cpu().long(), wanted):
            raise PscxError(
                f"float32 convolutions of integers are not exact on {device.type}: exact decoding needs full float32 "
                "precision (torch.set_float32_matmul_precision('highest'), no TF32)"
            )


def _full_layer(kind: type[nn.Conv2d | nn.ConvTranspose2d], size: int, stride: int) -> ExactConvolution:
    """A layer whose weights are all equal in magnitude and as large as one group of channels allows."""
    with torch.device("meta"):
        layer = kind(CHECKED_CHANNELS, CHECKED_CHANNELS, size, stride, bias=False)
    layer = layer.to_empty(device="cpu").requires_grad_(False)
    nn.init.zeros_(layer.weight)
    exact = ExactConvolution(layer)
    terms = CHECKED_CHANNELS * (1 if exact.transposed else size**2)
    signs = torch.where(torch.arange(layer.weight.numel()) % 3 == 0, -1.0, 1.0).view_as(layer.weight)
    exact.weight.copy_(signs * ((LIMIT - 1) // (int(exact.top) * terms)))
    return exact


def int64_convolution(image: Tensor, weight: Tensor, stride: int, transposed: bool = False) -> Tensor:
    """``conv2d`` without padding, or ``conv_transpose2d`` with a stride of the kernel's size, in 64-bit integers."""
    if transposed:
        return torch.einsum("nchw,copq->nohpwq", image.long(), weight.long()).flatten(4, 5).flatten(2, 3)
    size = weight.shape[-1]
    patches = image.long().unfold(2, size, stride).unfold(3, size, stride)
    return torch.einsum("nchwpq,ocpq->nohw", patches, weight.long())
