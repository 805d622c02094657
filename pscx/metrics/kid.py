"""Kernel inception distance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pscx.metrics.base import METRICS
from pscx.metrics.features import PatchFeatures, gathered


@METRICS.register("kid")
class KID(PatchFeatures):
    """Kernel inception distance (Binkowski et al. 2018, section 3) of patches as in HiFiC; lower is better.

    Computed by torchmetrics: the mean over subsets that are drawn at random of the unbiased estimate, with the
    kernel ``(x y / numbers + 1)^3``. It is 0 on average for two draws of one distribution, and below 0 for sets that
    are closer to each other, as pictures and their best reconstructions are.

    Args:
        side: of a patch, in pixels, at least 16.
        weights: a file of Inception's weights: a TorchScript, such as StyleGAN's and clean-fid's
            ``inception-2015-12-05.pt``, or those of torch-fidelity; by default the latter, from torch hub's folder of
            checkpoints.
        network: in place of Inception any module that makes features ``(n, numbers)`` of patches ``(n, 3, side, side)``
            of bytes.
        download: whether to download torch-fidelity's file where it is missing.
        subset_size: patches in a subset, at least 2; there must be as many patches.
        subsets: how many subsets, at least 1.
        seed: seed of the subsets.
    """

    references = ("binkowski2018kid", "mentzer2020hific")
    title = "KID"

    def __init__(
        self,
        side: int = 256,
        weights: str | None = None,
        network: nn.Module | None = None,
        download: bool = False,
        subset_size: int = 1000,
        subsets: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(side, weights, network, download)
        if subset_size < 2 or subsets < 1:
            raise ValueError(
                f"subset_size must be at least 2 and subsets at least 1, got subset_size {subset_size} and "
                f"subsets {subsets}"
            )
        self.subset_size, self.subsets, self.seed = subset_size, subsets, seed

    def compute(self, kept: Sequence[Tensor]) -> float:
        from torchmetrics.image.kid import KernelInceptionDistance

        real, fake = gathered(self, list(kept), self.subset_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that features are held in memory
            # What is kept is of all processes already.
            metric = KernelInceptionDistance(nn.Identity(), self.subsets, self.subset_size, sync_on_compute=False)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            mean, _ = metric.compute()
        return float(mean)
