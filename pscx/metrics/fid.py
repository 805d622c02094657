"""Fréchet inception distance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pscx.metrics.base import METRICS
from pscx.metrics.features import PatchFeatures, gathered


class Taken(nn.Identity):
    """Features in place of pictures; torchmetrics asks how many numbers each has."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features: int = num_features


@METRICS.register("fid")
class FID(PatchFeatures):
    """Fréchet inception distance (Heusel et al. 2017, Eq. 6) of patches as in HiFiC; equal sets: 0, lower is better.

    Computed by torchmetrics. It is biased upwards where patches are few: some thousands are usual, and values of
    different numbers of patches do not compare.

    Args:
        side: of a patch, in pixels, at least 16.
        weights: a file of Inception's weights: a TorchScript, such as StyleGAN's and clean-fid's
            ``inception-2015-12-05.pt``, or those of torch-fidelity; by default the latter, from torch hub's folder of
            checkpoints.
        network: in place of Inception any module that makes features ``(n, numbers)`` of patches ``(n, 3, side, side)``
            of bytes.
        download: whether to download torch-fidelity's file where it is missing.
    """

    references = ("heusel2017fid", "mentzer2020hific")
    title = "FID"

    def compute(self, kept: Sequence[Tensor]) -> float:
        from torchmetrics.image.fid import FrechetInceptionDistance

        real, fake = gathered(self, list(kept), 2)
        metric = FrechetInceptionDistance(Taken(real.shape[1]), sync_on_compute=False)  # of all processes already
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return float(metric.compute())
