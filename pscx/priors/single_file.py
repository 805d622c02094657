"""Single-file checkpoints, as their authors trained them: all weights under other names, and no configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pscx.runtime.hub import local_folder
from pscx.runtime.quiet import importing
from pscx.runtime.safe_yaml import read_json

SUFFIX = ".safetensors"
WITHOUT_WEIGHTS = ("*.json", "*/*.json", "*/*.txt", "*/*.model")
MARKS = ("model_index.json", "scheduler/scheduler_config.json")
CLIP = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """All weights of a file by name. Raises ``ValueError`` where it is no safetensors."""
    if file.suffix != SUFFIX:
        raise ValueError(
            f"'{file.name}' is no {SUFFIX}: a pickle runs code when it is read, so convert it where it is trusted"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except SafetensorError as error:
        raise ValueError(f"'{file.name}' holds no safetensors: {error}") from error


def configurations(file: Path, checkpoint: Mapping[str, Tensor]) -> Path:
    """The folder with the configuration and tokenizers of a single file.

    That is the file's own folder, or the folder named as the file without its suffix, where one is in diffusers'
    layout; else the repository of the hub that diffusers takes such weights for, without its weights. Raises
    ``ValueError`` where there is none.
    """
    for folder in (file.parent, file.with_suffix("")):
        if any((folder / mark).is_file() for mark in MARKS):
            return local_folder(folder, ())
    with importing():
        from diffusers.loaders.single_file_utils import fetch_diffusers_config

    repository = str(fetch_diffusers_config(dict(checkpoint))["pretrained_model_name_or_path"])
    try:
        return local_folder(repository, WITHOUT_WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(
            f"a single file has no configuration and no tokenizer, so the folders of '{repository}', without their "
            f"weights, must be beside it or in '{file.with_suffix('')}': {error}"
        ) from error


def converted(cls: type[Any], checkpoint: Mapping[str, Tensor], folder: Path) -> Any:
    """A network of class ``cls``, of the configuration in ``folder``, with its weights out of a single file.

    Raises ``ValueError`` where the file lacks some, or they do not fit.
    """
    with importing():
        from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as KNOWN

    if cls.__name__ not in KNOWN:
        return _text_encoder(cls, checkpoint, folder)
    config = read_json(folder / "config.json")
    try:
        weights = KNOWN[cls.__name__]["checkpoint_mapping_fn"](checkpoint=dict(checkpoint), config=config)
    except (KeyError, IndexError) as error:
        raise ValueError(f"the file has no weights for {error} of its {folder.name}") from error
    return _filled(cls.from_config(config), weights, folder)


def _text_encoder(cls: type[Any], checkpoint: Mapping[str, Tensor], folder: Path) -> Any:
    """A text encoder, of CLIP or OpenCLIP."""
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    encoder = cls(cls.config_class.from_pretrained(folder))
    wanted = OPEN_CLIP[1:] if folder.name.endswith("_2") else (*CLIP, OPEN_CLIP[0])
    prefix = next((prefix for prefix in wanted if any(key.startswith(prefix) for key in checkpoint)), None)
    if prefix is None:
        raise ValueError(f"the file has no weights of its {folder.name}")
    if prefix in OPEN_CLIP:
        weights = convert_open_clip_checkpoint(encoder, checkpoint, prefix=prefix)
    else:
        weights = convert_ldm_clip_checkpoint(checkpoint, remove_prefix=prefix)
    if not hasattr(encoder, "text_model"):  # flat in newer versions of transformers
        weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
    return _filled(encoder, weights, folder)


def _filled(network: Any, weights: Mapping[str, Tensor], folder: Path) -> Any:
    try:
        missing = network.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"the file's weights do not fit '{folder / 'config.json'}': {_second(error)}") from error
    if missing:
        raise ValueError(f"the file has no weights for {min(missing)} of its {folder.name}")
    return network


def _second(error: RuntimeError) -> str:
    """What torch says first behind its heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[1] if len(lines) > 1 else lines[0]
