"""The parts of a published latent diffusion model: a folder in diffusers' layout, or one file with all weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pscx.priors.ddpm_schedule import CONFIG
from pscx.priors.families import check_family, check_file_family
from pscx.priors.single_file import SUFFIX, configurations, converted, read_checkpoint
from pscx.runtime.hub import local_folder, whole
from pscx.runtime.quiet import importing, quiet, without_bars
from pscx.runtime.safe_yaml import read_json

INDEX, SCHEDULER = "model_index.json", "scheduler"
VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "tokenizer.model")
SAFE = {"use_safetensors": True}
OTHER_WEIGHTS = ("*.bin", "*.msgpack", "*.h5", "*.onnx*", "*.fp16.*", "*.bf16.*", "*.non_ema.*")


@dataclass(frozen=True)
class Layout:
    """What a kind of model consists of.

    Args:
        title: what an error calls the model.
        family: name of the prior that loads it.
        classes: class of each part by its folder, the denoiser first; tokenizers and text encoders are of transformers.
        optional: parts that may be missing.
        single: whether such models are read from a single file.
    """

    title: str
    family: str
    classes: Mapping[str, str]
    optional: tuple[str, ...] = ()
    single: bool = False

    @property
    def files(self) -> list[str]:
        """What is fetched from the hub."""
        return [INDEX, *(f"{part}/*" for part in (*self.classes, SCHEDULER))]

    @property
    def needed(self) -> list[str]:
        """Configurations that must be there."""
        networks = [part for part in self.classes if part not in self.optional and not part.startswith("tokenizer")]
        return [*(f"{part}/config.json" for part in networks), f"{SCHEDULER}/{CONFIG}"]


@dataclass(frozen=True)
class Parts:
    """The parts at one place; each is loaded when it is asked for.

    Args:
        layout: which there are.
        folder: configurations and tokenizers, and weights unless there is a ``checkpoint``.
        checkpoint: the weights of a single file by name, as they were published; empty for a folder.
    """

    layout: Layout
    folder: Path
    checkpoint: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def has(self, part: str) -> bool:
        return (self.folder / part).is_dir()

    @property
    def index(self) -> dict[str, Any]:
        """``model_index.json``; empty where there is none."""
        file = self.folder / INDEX
        return dict(read_json(file)) if file.is_file() else {}

    @property
    def schedule(self) -> dict[str, Any]:
        """``scheduler_config.json``."""
        return dict(read_json(self.folder / SCHEDULER / CONFIG))

    def network(self, part: str, dtype: torch.dtype = torch.float32) -> Any:
        """The denoiser or the autoencoder. Raises ``OSError`` or ``ValueError`` where it cannot be loaded whole."""
        with importing():
            import diffusers

        cls = getattr(diffusers, self.layout.classes[part])
        if self.checkpoint:
            found = converted(cls, self.checkpoint, self.folder / part)
        else:
            options = {"low_cpu_mem_usage": False, "torch_dtype": dtype, **SAFE}
            found = whole(cls.from_pretrained, self.folder / part, **options)
        return nn.Module.to(found, dtype)  # loading leaves some networks in the numbers of the file

    def text_encoder(self, part: str, dtype: torch.dtype) -> Any:
        """A text encoder; layers that overflow in float16, as T5 has, stay in float32. Raises as :meth:`network`."""
        with importing():
            import transformers

        cls = getattr(transformers, self.layout.classes[part])
        if self.checkpoint:
            return nn.Module.to(converted(cls, self.checkpoint, self.folder / part), dtype)
        return whole(cls.from_pretrained, self.folder / part, torch_dtype=dtype, **SAFE)

    def tokenizer(self, part: str) -> Any:
        """A tokenizer. Raises ``OSError`` where it has no vocabulary, without which transformers would do."""
        if not any((self.folder / part / file).is_file() for file in VOCABULARIES):
            raise OSError(f"{self.folder / part / VOCABULARIES[0]} is missing")
        with importing():
            import transformers

        return getattr(transformers, self.layout.classes[part]).from_pretrained(self.folder / part)


@contextmanager
def parts_at(path: str, layout: Layout) -> Iterator[Parts]:
    """The parts of a local folder, a hub id or a single ``.safetensors`` file; weights from safetensors alone.

    Whatever cannot be loaded inside this context is a ``FileNotFoundError`` of one sentence.
    """
    try:
        with quiet():
            parts = _of_file(Path(path), layout) if Path(path).is_file() else _of_folder(path, layout)
        with quiet(), without_bars():
            yield parts
    except (OSError, ValueError) as error:
        folders = ", ".join(f"{part}/" for part in layout.classes if part not in layout.optional)
        file = f", or a {SUFFIX} file of all weights" if layout.single else ""
        raise FileNotFoundError(
            f"no {layout.title} at '{path}': expected a local folder with {folders} and {SCHEDULER}/ and their "
            f"safetensors{file}, set as prior.path (or --prior to decompress), or a hub id that can be reached "
            f"({str(error).splitlines()[0]})"
        ) from error


def _of_folder(path: str, layout: Layout) -> Parts:
    folder = local_folder(path, layout.files, OTHER_WEIGHTS)
    check_family(folder, layout.family)
    return Parts(layout, _complete(folder, layout))


def _of_file(file: Path, layout: Layout) -> Parts:
    checkpoint = read_checkpoint(file)
    if not layout.single:
        raise ValueError("it is a file: of this kind of model a folder in diffusers' layout is read")
    check_file_family(file, checkpoint, layout.family)
    return Parts(layout, _complete(configurations(file, checkpoint), layout), checkpoint)


def _complete(folder: Path, layout: Layout) -> Path:
    for file in layout.needed:
        if not (folder / file).is_file():
            raise OSError(f"{folder / file} is missing")
    return folder
