"""A network whose every layer is exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.exact.attention import ExactAttention
from pscx.exact.convolution import ACTIVATION_BITS, LIMIT, WEIGHT_BITS, ExactConvolution
from pscx.exact.forms import FORMS, FRAMES, Precision
from pscx.exact.group_norm import ExactGroupNorm
from pscx.exact.layer_norm import ExactLayerNorm
from pscx.exact.linear import ExactLinear
from pscx.exact.planes import byte_planes, digits
from pscx.exact.settings import OncePerSetting, refuse_rounding
from pscx.exact.wide import ExactWideConvolution, ExactWideLinear


def make_exact(
    network: nn.Module,
    weight_bits: int = WEIGHT_BITS,
    activation_bits: int = ACTIVATION_BITS,
    steps: int = 1000,
    *,
    wide: bool = False,
    place: str = "",
    freeing: bool = False,
) -> None:
    """Replace the layers of ``network``, in place, by exact ones.

    What is left in between are single IEEE operations on each element, which are the same on every machine as they
    are. So only modules that are known to be built so are taken (:mod:`pscx.exact.forms`); where there is another,
    nothing is replaced.

    Args:
        network: a :class:`pscx.networks.ResidualUNet`, a diffusers ``UNet2DModel`` or ``UNet2DConditionModel``, or a
            ``CLIPTextModel`` of transformers, for instance.
        weight_bits: of a weight of a convolution, with its sign; 2 to 16.
        activation_bits: of an activation of a convolution, with its sign; 2 to 16 (:class:`ExactConvolution`).
        steps: of the noise schedule, where the network embeds them; at least 1.
        wide: weights and activations of 16 bits in all convolutions and linear layers (:mod:`pscx.exact.wide`), for a
            network whose weights were never meant to have 8.
        place: what an error calls the network.
        freeing: replace each layer as soon as its exact form is made, so that the floats of only one are held beside
            it. A network that is refused is then left with some layers replaced.

    Raises:
        ValueError: a number is out of range, or a part of the network has no exact form.
    """
    register_forms(network)
    found = exact_layers(network, place, Precision(weight_bits, activation_bits, steps=steps, wide=wide))
    for parent, name, layer in found if freeing else list(found):
        setattr(parent, name, layer)


def register_forms(network: nn.Module) -> None:
    """Add the forms of the libraries that ``network`` has layers of; other networks do without importing them."""
    sources = {type(module).__module__.partition(".")[0] for module in network.modules()}
    if "diffusers" in sources:
        from pscx.exact import diffusers_layers

        diffusers_layers.register()
    if "transformers" in sources:
        from pscx.exact import clip_layers

        clip_layers.register()


def exact_layers(module: nn.Module, path: str, precision: Precision) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every layer below ``module`` in its exact form, after the module that holds it and its name there.

    ``path`` leads to ``module``. A layer that stands in two places gets a form in each. Raises ``ValueError`` for a
    part without an exact form.
    """
    kind = type(module)
    if kind not in FRAMES:
        raise ValueError(f"exact must be false: {path or 'the network'} is a {kind.__name__}, which has no exact form")
    with naming(path):
        FRAMES[kind](module)
    for name, child in module._modules.items():
        place = f"{path}.{name}" if path else name
        if child is not None and type(child) in FORMS:
            with naming(place):
                layer = FORMS[type(child)](child, precision)
            yield module, name, layer
        elif child is not None:
            yield from exact_layers(child, place, precision)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the place in the network to what a layer refuses."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} ({path})" if path else str(error)) from error


ROUNDING = (
    *(ExactConvolution, ExactLinear, ExactWideConvolution, ExactWideLinear),
    *(ExactAttention, ExactGroupNorm, ExactLayerNorm),
)
"""Layers that round what they are given, and so have no gradient."""

CHECKED_CHANNELS, CHECKED_BATCH = 32, 16
WIDE = 9, 10
"""Bits of weights and activations that are tried beside bytes: what rounds to bfloat16 leaves bytes as they are."""


@OncePerSetting
def check_convolutions(device: torch.device) -> None:
    """Run exact layers on integers that drive their sums to the limit, and compare with 64-bit integers.

    Layers, memory layout and a batch are those of real use. A library that rounds its inputs (TF32, bfloat16) or
    transforms them (Winograd) fails here instead of decoding garbage. Done once for each device and each combination
    of torch's settings (:mod:`pscx.exact.settings`). Raises :class:`PscxError`, of the settings alone where they
    permit a library to round. What is tried is the path in float32, and that activations become the bytes they should;
    convolutions of bytes have a check of their own (:mod:`pscx.exact.integer`).
    """
    refuse_rounding(device)
    check_digits(device)
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


def check_digits(device: torch.device) -> None:
    """Raise :class:`PscxError` where numbers do not become the bytes that arithmetic of 64-bit integers gives."""
    for form in (digits(16, False), digits(8, True)):
        whole = torch.arange(0 if form.zero == 0 else -form.top, form.top + 1, max(1, form.top // 200))
        shifted = whole + form.zero * (257 if form.count == 2 else 1)
        wanted = torch.stack([shifted // 256, shifted % 256][2 - form.count :])
        near = torch.where(whole % 2 == 0, 0.5, 0.25) * torch.where(whole > 0, -1.0, 1.0)  # ties go to even numbers
        x = (whole + near).float()[None, None, :, None] * 0.5
        planes = byte_planes(x.to(device), torch.full((1, 1, 1), 2.0, device=device), form)
        if not torch.equal(planes.cpu().flatten(1).long(), wanted):
            raise PscxError(f"float32 numbers are not rounded to integers as IEEE 754 wants it on {device.type}")


def _full_layer(kind: type[nn.Conv2d | nn.ConvTranspose2d], size: int, stride: int) -> ExactConvolution:
    """A layer whose weights are all equal in magnitude and as large as one group of channels allows."""
    with torch.device("meta"):
        layer = kind(CHECKED_CHANNELS, CHECKED_CHANNELS, size, stride, bias=False)
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape), requires_grad=False)
    exact = ExactConvolution(layer, *WIDE)
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
