"""Captions by a vision-language model, Li et al. 2023 (BLIP-2), loaded through transformers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pscx.captioners.base import CAPTIONERS, Captioner
from pscx.runtime.hub import local_folder, whole
from pscx.runtime.quiet import importing, quiet, without_bars

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@CAPTIONERS.register("blip2")
class Blip2(Captioner):
    """BLIP-2 (Li et al. 2023), the captions of the paper (Elata, Michaeli and Elad, TMLR 2025): greedy decoding.

    Args:
        path: a local folder or a hub id of a ``Blip2ForConditionalGeneration`` and its processor; safetensors only.
        dtype: number format of the network: ``fp32``, ``fp16`` or ``bf16``. It runs on the CPU.
        max_tokens: at most this many tokens a caption, 1 to 75: more does not fit a text encoder of Stable Diffusion.

    Raises:
        FileNotFoundError: nothing loadable is at ``path``.
        ValueError: an option is out of range.
    """

    references = ("li2023blip2",)

    def __init__(
        self,
        path: str = "Salesforce/blip2-opt-2.7b",
        dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
        max_tokens: int = 30,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"caption.dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if not 1 <= max_tokens <= 75:
            raise ValueError(f"caption.max_tokens must lie in 1..75, got {max_tokens}")
        self.processor, network = load_blip2(path)
        self.network = network.to(DTYPES[dtype]).eval().requires_grad_(False)
        self.max_tokens = max_tokens

    @torch.no_grad()
    def caption(self, image: NDArray[np.uint8], source: str = "") -> str:
        pixels = self.processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        with quiet():
            tokens = self.network.generate(
                pixel_values=pixels.to(self.network.dtype), do_sample=False, max_new_tokens=self.max_tokens
            )
        text: str = self.processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return " ".join(text.split())


def load_blip2(path: str) -> tuple[Any, Any]:
    """Processor and network. Raises ``FileNotFoundError`` in one sentence where they cannot be loaded."""
    try:
        with importing():
            from transformers import Blip2ForConditionalGeneration, Blip2Processor

        with quiet():
            folder = local_folder(path, FILES)
        with quiet(), without_bars():
            if not (folder / "config.json").is_file():
                raise OSError(f"{folder / 'config.json'} is missing")
            network = whole(Blip2ForConditionalGeneration.from_pretrained, folder, use_safetensors=True)
            return Blip2Processor.from_pretrained(folder), network
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no BLIP-2 at '{path}': expected a local folder with its config, processor and safetensors, set as "
            f"caption.path, or a hub id that can be reached ({str(error).splitlines()[0]})"
        ) from error
