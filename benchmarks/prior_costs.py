"""Parameters, and operations of one evaluation, of published denoisers: counted on torch's meta device, no weights.

    python benchmarks/prior_costs.py

Configurations are those of the published repositories. An image is 1024x1024, or what the model was made for. Products
of matrices and convolutions are counted, a multiplication and an addition as two operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from real_sizes import SD21_UNET, SDXL_UNET
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pscx.priors.conversion.adm import Shape

SD35_MEDIUM = {
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
FLUX = {"guidance_embeds": True}
SANA = {
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
}
ADM = Shape([256, 256, 512, 512, 1024, 1024], 2, [3, 4, 5], 64, 6, "resnet", True, 1024)
EDM = Shape([192, 384, 576, 768], 3, [1, 2, 3], 64, 3, "resnet", True, 768)
Call = Callable[[Any, Callable[..., Tensor]], object]


def of_sdxl(network: Any, x: Callable[..., Tensor]) -> object:
    added = {"text_embeds": x(1, 1280), "time_ids": x(1, 6)}
    return network(x(1, 4, 128, 128), x(1), encoder_hidden_states=x(1, 77, 2048), added_cond_kwargs=added)


def of_flux(network: Any, x: Callable[..., Tensor]) -> object:
    places = {"img_ids": x(4096, 3), "txt_ids": x(512, 3)}
    text = {"encoder_hidden_states": x(1, 512, 4096), "pooled_projections": x(1, 768)}
    return network(x(1, 4096, 64), timestep=x(1), guidance=x(1), **places, **text)


MODELS: dict[str, tuple[str, dict[str, Any], Call]] = {
    "SD 2.1, 512": ("UNet2DConditionModel", SD21_UNET, lambda n, x: n(x(1, 4, 64, 64), x(1), x(1, 77, 1024))),
    "SDXL, 1024": ("UNet2DConditionModel", SDXL_UNET, of_sdxl),
    "SD 3.5 medium, 1024": (
        "SD3Transformer2DModel",
        SD35_MEDIUM,
        lambda n, x: n(x(1, 16, 128, 128), x(1, 333, 4096), x(1, 2048), x(1)),
    ),
    "Flux.1, 1024": ("FluxTransformer2DModel", FLUX, of_flux),
    "Sana 1.6B, 1024": ("SanaTransformer2DModel", SANA, lambda n, x: n(x(1, 32, 32, 32), x(1, 300, 2304), x(1))),
    "ADM, 256": ("UNet2DModel", ADM.config(), lambda n, x: n(x(1, 3, 256, 256), x(1))),
    "EDM ADM, 64": ("UNet2DModel", EDM.config(), lambda n, x: n(x(1, 3, 64, 64), x(1))),
}


def main() -> None:
    print("| denoiser, image side | parameters / 1e6 | weights in bf16 | operations / 1e12 |\n|---|---|---|---|")
    for name, (kind, options, call) in MODELS.items():
        with torch.device("meta"), torch.no_grad():
            network = getattr(diffusers, kind)(**options)
            counter = FlopCounterMode(display=False)
            with counter:
                call(network, torch.zeros)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        numbers = f"{parameters / 1e6:.0f} | {2 * parameters / 1e9:.1f} GB | {counter.get_total_flops() / 1e12:.2f}"
        print(f"| {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
