"""What the networks of pscx share: their options, and files in the layout of a diffusers model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pscx.networks.whole_weights import from_file, in_file
from pscx.runtime.safe_yaml import read_json

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHARDS = f"{WEIGHTS}.index.json"  # of a network whose weights are in several files
PICKLED = "diffusion_pytorch_model.bin"
N = TypeVar("N", bound="Network")


class Output(NamedTuple):
    """What a network answers, as those of diffusers do: ``sample`` ``(batch, channels, height, width)``."""

    sample: Tensor


class Options(dict[str, Any]):
    """Options of a network, as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the network has no option '{name}'") from None


class Network(nn.Module):
    """A network of pscx. It needs nothing of diffusers, whose layout its files have.

    Args:
        **options: all constructor options of the class, kept as :attr:`config`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.config = Options(options)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights; exact layers hold theirs as buffers."""
        tensors = (tensor for part in (self.parameters(), self.buffers()) for tensor in part)
        return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())

    @classmethod
    def from_config(cls: type[N], config: Mapping[str, Any]) -> N:
        """A network with random weights. Keys with an underscore are remarks.

        Raises ``ValueError`` for an option that the class does not have or that it refuses.
        """
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"a {cls.__name__} cannot be made from {CONFIG}: {error}") from error

    @classmethod
    def from_pretrained(cls: type[N], folder: Path) -> N:
        """The network of a folder that :meth:`save_pretrained` wrote, in the number format of its file.

        Convolutions may be stored as whole numbers ``X.weight`` int8 with a scale for each output channel,
        ``X.weight_scale`` float32. Such a network is float32, with weights ``whole * scale``; its exact form has the
        whole numbers themselves.

        Raises ``OSError`` where a file is missing, and ``ValueError`` where the weights are not those of the network.
        """
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            network = cls.from_config(read_json(folder / CONFIG))
        stored, wanted = read_weights(folder), network.state_dict()
        try:
            weights = from_file(network, stored)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        for what, names in (("no", wanted.keys() - weights.keys()), ("unknown", weights.keys() - wanted.keys())):
            if names:
                raise ValueError(f"{folder / CONFIG} has {what} weights for {min(names)}")
        for name, tensor in weights.items():
            if tensor.shape != wanted[name].shape:
                shapes = f"{tuple(wanted[name].shape)}, got {tuple(tensor.shape)}"
                raise ValueError(f"the weights {name} in {folder} must be of shape {shapes}")
        network.load_state_dict(weights, assign=True)
        return network

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write the options and the weights into a folder.

        Weights that were loaded from whole numbers, and still are these times their scale, are written so. All others
        are in their number format, or in ``dtype``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remarks = {"_class_name": type(self).__name__, "_diffusers_version": version("diffusers")}
        text = json.dumps({**self.config, **remarks}, indent=2, sort_keys=True)
        (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")
        save_file(in_file(self, dtype), folder / WEIGHTS, metadata={"format": "pt"})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, by name. Raises ``OSError`` where there are none, ``ValueError`` for damaged ones."""
    if (folder / WEIGHTS).is_file():
        return _read_file(folder / WEIGHTS)
    if (folder / SHARDS).is_file():
        try:
            files = {Path(str(name)).name for name in read_json(folder / SHARDS)["weight_map"].values()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"'{folder / SHARDS}' must hold weight_map, the file of each weight") from error
        return {name: tensor for file in sorted(files) for name, tensor in _read_file(folder / file).items()}
    if (folder / PICKLED).is_file():
        return _read_file(folder / PICKLED)
    raise OSError(f"{folder / WEIGHTS} is missing")


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
            raise ValueError("it must hold tensors by name")
        return weights
    except OSError:
        raise
    except Exception as error:  # of several kinds, depending on what is wrong with the file
        raise ValueError(f"the weights in '{file}' cannot be read: {str(error).splitlines()[0]}") from error
