"""A Gaussian image model, whose denoiser, posterior and rate-distortion function are closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.priors.base import CPU, PRIORS, Prior, digest
from pscx.priors.ddpm_schedule import cosine
from pscx.priors.schedules import noise_levels

STEPS = 1000
LARGEST_SIDE = 2048  # a square matrix of that size has to be diagonalised


@PRIORS.register("gaussian")
class Gaussian(Prior):
    """Zero-mean Gaussian images with separable first-order autoregressive correlation: the oracle for tests.

    The covariance of two values is ``deviation^2 color^[channels differ] correlation^(|dy| + |dx|)``. The denoiser is
    the Wiener filter ``E[x0 | x] = C (C + sigma^2 I)^-1 x`` at any level, evaluated in the eigenbasis of ``C``, a
    Kronecker product of three small ones. The grid has the levels of the cosine schedule (Nichol and Dhariwal 2021).

    Args:
        correlation: between neighbouring pixels, in [0, 1).
        color: between the channels of a pixel, in [0, 1).
        deviation: standard deviation of a value, over 0; images are nominally in [-1, 1].

    Raises:
        ValueError: an option is out of range.
        PscxError: in use, for an image of over 2048 pixels on a side.
    """

    references = ()

    continuous = True

    def __init__(self, correlation: float = 0.95, color: float = 0.9, deviation: float = 0.5) -> None:
        super().__init__()
        for name, value in (("correlation", correlation), ("color", color)):
            if not 0 <= value < 1:
                raise ValueError(f"prior.{name} must lie in [0, 1), got {value}")
        if not deviation > 0:
            raise ValueError(f"prior.deviation must be over 0, got {deviation}")
        self.correlation, self.color, self.deviation = correlation, color, deviation
        self.stride = 1
        self.levels = noise_levels(torch.cumprod(1 - cosine(STEPS), 0).double())
        self.place: Tensor  # empty: it tells where the prior was moved to
        self.register_buffer("place", torch.zeros(0), persistent=False)
        self._spectra: dict[tuple[int, int, torch.device], tuple[list[Tensor], Tensor]] = {}

    def covariance(self, height: int, width: int) -> Tensor:
        """Exact covariance of an image, ``(n, n)`` float64 with ``n = 3 height width``."""
        color, rows, columns = self._factors(height, width)
        return torch.kron(color, torch.kron(rows, columns))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        bases, spectrum = self._spectrum(x.shape[-2], x.shape[-1], x.device)
        gain = spectrum / (spectrum + sigma * sigma)
        z = torch.einsum("ndhw,dc,hy,wx->ncyx", x.double(), *bases) * gain
        return torch.einsum("ncyx,dc,hy,wx->ndhw", z, *bases).to(x.dtype)

    def draw(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """One image of the model, ``(1, 3, height, width)`` float64; not clipped."""
        bases, spectrum = self._spectrum(height, width, CPU)
        z = spectrum.sqrt() * torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64)
        return torch.einsum("ncyx,dc,hy,wx->ndhw", z, *bases)

    def to_signal(self, image: Tensor) -> Tensor:
        return image

    def to_image(self, signal: Tensor) -> Tensor:
        return signal

    def signal_shape(self, height: int, width: int) -> tuple[int, ...]:
        check_sides(height, width)
        return (3, height, width)

    def block_covariance(self, block: int) -> Tensor:
        return self.covariance(block, block)

    def fingerprint(self) -> bytes:
        options = torch.tensor([self.correlation, self.color, self.deviation], dtype=torch.float64)
        return digest(options, self.levels)

    def _factors(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        color = self.color + (1 - self.color) * torch.eye(3, dtype=torch.float64)
        rows, columns = (
            self.correlation ** (torch.arange(n)[:, None] - torch.arange(n)).abs().double() for n in (height, width)
        )
        return self.deviation**2 * color, rows, columns

    def _spectrum(self, height: int, width: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Eigenvectors of the three factors, and the eigenvalues of their product ``(3, height, width)``."""
        key = height, width, device
        if key not in self._spectra:
            check_sides(height, width)
            values, vectors = zip(*(torch.linalg.eigh(f) for f in self._factors(height, width)), strict=True)
            spectrum = torch.einsum("c,y,x->cyx", *values).clamp_min(0)
            self._spectra = {key: ([vector.to(device) for vector in vectors], spectrum.to(device))}
        return self._spectra[key]


def check_sides(height: int, width: int) -> None:
    """Raise :class:`PscxError` where an image is too large for closed forms."""
    if max(height, width) > LARGEST_SIDE:
        raise PscxError(f"a gaussian prior takes sides of at most {LARGEST_SIDE} pixels, got {width}x{height}")
