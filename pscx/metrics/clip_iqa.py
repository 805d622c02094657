"""CLIP-IQA: whether a picture is nearer to "Good photo." or to "Bad photo."."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures
from torch import Tensor

from pscx.errors import PscxError
from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.runtime.extras import broken_torchvision
from pscx.runtime.hub import local_folder, no_downloads, whole

MODEL = "openai/clip-vit-base-patch16"
WANTED = ("*.json", "*.txt", "*.safetensors")
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SCALE = 100.0


@METRICS.register("clip_iqa")
class CLIPIQA(ImageMetric):
    """CLIP-IQA (Wang et al. 2023, Eq. 4): a probability in [0, 1] that the picture is good, higher is better.

    It looks at the reconstruction alone. torchmetrics' values with ``model_name_or_path`` a CLIP of transformers: with
    position embedding, which the paper leaves out, on the central square shrunk to the network's side.

    Args:
        weights: a folder as transformers saves a CLIP, or its name on the hub, which is looked for in the hub's cache.
        good: what a good picture is called.
        bad: what a bad one is called.
        download: whether to fetch the weights where they are not on this machine.
    """

    references = ("wang2023clipiqa",)
    title, higher_is_better = "CLIP-IQA", True

    def __init__(
        self, weights: str = MODEL, good: str = "Good photo.", bad: str = "Bad photo.", download: bool = False
    ) -> None:
        if not weights or not good or not bad:
            raise ValueError("weights, good and bad must not be empty")
        self.weights, self.good, self.bad, self.download = weights, good, bad, download
        self._kept: tuple[Hashable, Any, Tensor] | None = None

    def files(self) -> list[Path]:
        folder = _folder(self.weights, self.download)
        return sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))

    def prepare(self) -> None:
        self._anchors()

    @torch.no_grad()
    def measure(self, original: Image, other: Image) -> float:
        model, anchors = self._anchors()
        side = model.config.vision_config.image_size
        features = _embedding(model.get_image_features(pixel_values=prepared(other, side)[None].to(self.device)))
        return float((SCALE * features @ anchors.T).softmax(-1)[0, 0])

    def _anchors(self) -> tuple[Any, Tensor]:
        """The network, and the unit vectors of both sentences."""
        folder = _folder(self.weights, self.download)
        key = (folder, self.good, self.bad, self.device)
        try:
            if self._kept is None or self._kept[0] != key:
                self._kept = key, *_loaded(*key)
            return self._kept[1:]
        except (OSError, ValueError) as error:
            raise PscxError(f"clip_iqa cannot load a CLIP from '{self.weights}': {error}") from error


def prepared(image: Image, side: int) -> Tensor:
    """A picture as CLIP takes it: the shorter side shrunk to ``side``, the central square, normalised."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = (max(int(side * width / shorter), side), max(int(side * height / shorter), side))
    small = np.asarray(Pictures.fromarray(image).resize(size, Pictures.Resampling.BICUBIC))
    top, left = (small.shape[0] - side) // 2, (small.shape[1] - side) // 2
    square = torch.from_numpy(small[top : top + side, left : left + side].copy()).movedim(-1, 0).float() / 255
    mean, deviation = (square.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (square - mean) / deviation


def _folder(weights: str, download: bool) -> Path:
    try:
        if download:
            return local_folder(weights, WANTED)
        with no_downloads():
            return local_folder(weights, WANTED)
    except FileNotFoundError as error:
        raise PscxError(
            f"clip_iqa needs a CLIP, and '{weights}' is no folder and not in the hub's cache: name a folder with the "
            f"option weights, or allow the download with download: true ({error})"
        ) from error
    except ValueError as error:
        raise PscxError(f"clip_iqa: {error}") from error


def _loaded(folder: Path, good: str, bad: str, device: torch.device) -> tuple[Any, Tensor]:
    try:
        from transformers import CLIPModel, CLIPTokenizer
    except Exception as error:
        sentence = broken_torchvision(error)
        raise PscxError(f"clip_iqa: {sentence or f'transformers does not load: {error}'}") from error
    model = whole(CLIPModel.from_pretrained, folder, local_files_only=True).eval().requires_grad_(False).to(device)
    tokens = CLIPTokenizer.from_pretrained(folder, local_files_only=True)(
        [good, bad], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        text = model.get_text_features(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
    return model, _embedding(text)


def _embedding(output: Any) -> Tensor:
    """Unit vectors; transformers 5 wraps them."""
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1)
