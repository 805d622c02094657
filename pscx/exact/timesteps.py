"""Sinusoidal embedding of time, Vaswani et al. 2017, section 3.5, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.embeddings import Timesteps

DIGITS = 40
PERIOD = 10000


class ExactTimesteps(nn.Module):
    """``layer`` as a table of all steps, each entry the float32 number next to the true sine or cosine.

    The table is made in decimal arithmetic of 40 digits, which is the same on every machine; a mathematical library's
    sine is not.

    Args:
        layer: the layer that this one stands for.
        steps: of the noise schedule; at least 1.

    Raises:
        ValueError: ``steps`` is out of range, or the layer has no frequencies.
    """

    def __init__(self, layer: Timesteps, steps: int) -> None:
        super().__init__()
        half = layer.num_channels // 2
        if steps < 1 or half <= layer.downscale_freq_shift:
            raise ValueError(f"exact must be false: {steps} steps in {layer.num_channels} channels have no exact form")
        with localcontext(Context(prec=DIGITS)):
            exponent = -Decimal(PERIOD).ln() / (half - Decimal(layer.downscale_freq_shift))
            angles = [Decimal(layer.scale) * (exponent * i).exp() for i in range(half)]
            waves = torch.tensor([list(wave(angle, steps)) for angle in angles], dtype=torch.float64)
        cosines, sines = waves.movedim(0, 1).unbind(-1)
        columns = [cosines, sines] if layer.flip_sin_to_cos else [sines, cosines]
        columns.append(torch.zeros(steps, layer.num_channels % 2, dtype=torch.float64))
        self.table: Tensor
        self.register_buffer("table", torch.cat(columns, 1).float())

    def forward(self, timesteps: Tensor) -> Tensor:
        """``(batch,)`` integers in [0, steps) to ``(batch, channels)`` float32. Raises ``ValueError`` for others."""
        if timesteps.is_floating_point():
            raise ValueError(f"an exact network takes timesteps as integers, got {timesteps.dtype}")
        return self.table[timesteps]


def wave(angle: Decimal, steps: int) -> Iterator[tuple[float, float]]:
    """Cosine and sine of 0, 1, ..., ``steps - 1`` times ``angle``, by the addition theorems."""
    cosine, sine = Decimal(1), Decimal(0)
    turn = (series(angle, 0), series(angle, 1))
    for _ in range(steps):
        yield float(cosine), float(sine)
        cosine, sine = cosine * turn[0] - sine * turn[1], sine * turn[0] + cosine * turn[1]


def series(angle: Decimal, first: int) -> Decimal:
    """Taylor series of the cosine (``first`` 0) or sine (1), for small angles."""
    term = angle if first else Decimal(1)
    total, order = term, first
    while abs(term) > Decimal(10) ** -(DIGITS + 2):
        term = -term * angle * angle / ((order + 1) * (order + 2))
        total, order = total + term, order + 2
    return total
