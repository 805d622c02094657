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
        PscxError: convolutions of integers in float32 are not exact on this machine as torch is set up.
    """
    if not isinstance(network, ResidualUNet):
        raise ValueError(f"exact must be false: a {type(network).__name__} has no exact form, a ResidualUNet has")
    check_convolutions(torch.device("cpu"))
    replace_layers(network, weight_bits, activation_bits)


def replace_layers(module: nn.Module, weight_bits: int, activation_bits: int) -> None:
    """Replace every convolution below ``module`` by an exact one."""
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d)):
            setattr(module, name, ExactConvolution(child, weight_bits, activation_bits))
        else:
            replace_layers(child, weight_bits, activation_bits)


@lru_cache
def check_convolutions(device: torch.device) -> None:
    """Convolve integers that drive sums to the limit, and compare with a product of 64-bit integers.

    A library that rounds its inputs (TF32, bfloat16) or transforms them (Winograd) fails here instead of decoding
    garbage. Raises :class:`PscxError`.
    """
    channels, top = 32, 1023.0
    signs = torch.where(torch.arange(channels * 9).reshape(1, channels, 3, 3) % 3 == 0, -1.0, 1.0)
    weight = signs * ((LIMIT - 1) // (top * channels * 9) - 1)
    image = signs[0].repeat(1, 1, 4, 4) * (top - torch.arange(12.0))
    found = nn.functional.conv2d(image.to(device), weight.to(device)).cpu()
    if not torch.equal(found.long(), int64_convolution(image, weight)):
        raise PscxError(
            f"float32 convolutions of integers are not exact on {device.type}: exact decoding needs full float32 "
            "precision (torch.set_float32_matmul_precision('highest'), no TF32)"
        )


def int64_convolution(image: Tensor, weight: Tensor) -> Tensor:
    """``conv2d`` of integer-valued tensors in 64-bit integers, no padding: the reference."""
    size = weight.shape[-1]
    patches = image.long().unfold(2, size, 1).unfold(3, size, 1)
    return torch.einsum("nchwpq,ocpq->nohw", patches, weight.long())
