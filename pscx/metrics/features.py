"""Features of patches, which metrics of a set compare: whose network they are of, and how they are computed."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Hashable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pscx.errors import PscxError
from pscx.metrics.base import Image, SetMetric
from pscx.metrics.held import held
from pscx.metrics.patches import patches
from pscx.metrics.weights import Published, find_weights, sha256_of
from pscx.registry import class_path

FIDELITY = Published(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
)
SCRIPTED = "inception-2015-12-05.pt"
BATCH = 32


class PatchFeatures(SetMetric):
    """What Fréchet and kernel distance have in common: features of the patches of both pictures.

    Args:
        side: of a patch, in pixels, at least 16.
        weights: a file of Inception's weights: a TorchScript, such as StyleGAN's and clean-fid's
            ``inception-2015-12-05.pt``, or those of torch-fidelity; by default the latter, from torch hub's folder of
            checkpoints.
        network: in place of Inception any module that makes features ``(n, numbers)`` of patches ``(n, 3, side, side)``
            of bytes.
        download: whether to download torch-fidelity's file where it is missing.
    """

    higher_is_better = False

    def __init__(
        self, side: int = 256, weights: str | None = None, network: nn.Module | None = None, download: bool = False
    ) -> None:
        if side < 16:
            raise ValueError(f"side must be at least 16 pixels, got {side}")
        if weights is not None and network is not None:
            raise ValueError("give weights or a network, not both: the weights are those of Inception")
        self.side, self.weights, self.download = side, weights, download
        self.network = None if network is None else network.requires_grad_(False).eval()
        self._loaded: nn.Module | None = None  # keeps Inception

    @property
    def shared(self) -> Hashable:
        if self.network is not None:
            return self.side, self.digests()[class_path(type(self.network))], str(self.device)
        return self.side, self.weights, str(self.device)

    def files(self) -> list[Path]:
        if self.network is not None:
            return []
        if self.weights is None:
            _need_fidelity(self.name)
        file = find_weights(self.name, FIDELITY, self.weights, self.download)
        if not _is_script(file):
            _need_fidelity(self.name)
        return [file]

    def digests(self) -> dict[str, str]:
        """That of Inception's file, or of a network's class and tensors by the name of the class."""
        if self.network is None:
            return super().digests()
        return {class_path(type(self.network)): _digest(self.network)}

    def prepare(self) -> None:
        self._module()

    @torch.no_grad()
    def keep(self, original: Image, other: Image) -> Tensor:
        """Features of the patches, ``(2, patches, numbers)``, float32; no patches where the picture is smaller."""
        both = torch.stack([patches(original, self.side), patches(other, self.side)])
        if both.shape[1] == 0:
            return torch.zeros(2, 0, 0)
        module = self._module()
        parts = [module(part.to(self.device)) for part in torch.split(both.flatten(0, 1), BATCH)]
        found = torch.cat([part.float().cpu() for part in parts])
        if found.ndim != 2 or len(found) != 2 * both.shape[1]:
            raise PscxError(f"{self.name}: the network must make features (n, numbers), got {tuple(found.shape)}")
        return found.reshape(2, both.shape[1], -1)

    def _module(self) -> nn.Module:
        if self.network is not None:
            return self.network.to(self.device)
        file = self.files()[0]
        key = ("inception", file, sha256_of(file), self.device)
        self._loaded = held(key, lambda: _inception(file, self.device))
        return self._loaded


def gathered(metric: PatchFeatures, kept: list[Tensor], least: int) -> tuple[Tensor, Tensor]:
    """Features of all patches, originals' and others', ``(patches, numbers)`` float64.

    Raises :class:`PscxError` where there are fewer than ``least``.
    """
    count = sum(part.shape[1] for part in kept)
    if count < least:
        raise PscxError(
            f"{metric.name} needs at least {least} patches of {metric.side}x{metric.side} pixels, got {count}: "
            "give it more or larger pictures, or set its option side"
            + (" or subset_size" if hasattr(metric, "subset_size") else "")
        )
    first, second = torch.cat([part for part in kept if part.shape[1]], 1).double()
    return first, second


def _need_fidelity(name: str) -> None:
    if find_spec("torch_fidelity") is None:
        raise PscxError(
            f"{name} needs a network for its features: install torch-fidelity, or name with the option weights a "
            f"TorchScript such as StyleGAN's {SCRIPTED}, or give a network by its class path"
        )


def _inception(file: Path, device: torch.device) -> nn.Module:
    return (_scripted(file, device) if _is_script(file) else _fidelity(file)).requires_grad_(False).eval().to(device)


class _Scripted(nn.Module):
    """A TorchScript; StyleGAN's gives features rather than classes where it is asked to."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.module = module
        schema = module.forward.schema  # type: ignore[attr-defined]
        names = [argument.name for argument in schema.arguments]
        self.options = {"return_features": True} if "return_features" in names else {}

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.module(x, **self.options)
        return features


def _scripted(file: Path, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 advises torch.export, which this file is not
        return _Scripted(torch.jit.load(str(file), map_location=device))


def _is_script(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _fidelity(file: Path) -> nn.Module:
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file))


def _digest(network: nn.Module) -> str:
    digest = sha256(f"{class_path(type(network))} {network!r}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)).tobytes())
    return digest.hexdigest()
