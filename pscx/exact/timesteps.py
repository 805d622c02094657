"""Sinusoidal embedding of time, Vaswani et al. 2017, section 3.5, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, localcontext
from functools import lru_cache
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
        self.table: Tensor
        self.register_buffer("table", columns(waves.movedim(0, 1), layer))

    def forward(self, timesteps: Tensor) -> Tensor:
        """``(batch,)`` integers in [0, steps) to ``(batch, channels)`` float32. Raises ``ValueError`` for floats."""
        if timesteps.is_floating_point():
            raise ValueError(f"an exact network takes timesteps as integers, got {timesteps.dtype}")
        return self.table[timesteps]


class ExactSizes(nn.Module):
    """``layer`` for whole numbers without a bound, such as the sides of an image in pixels.

    Each is computed when it is first asked for, in decimal arithmetic as :class:`ExactTimesteps` does it for all.

    Args:
        layer: the layer that this one stands for.

    Raises:
        ValueError: the layer has no frequencies.
    """

    def __init__(self, layer: Timesteps) -> None:
        super().__init__()
        self.layer, self.count = layer, layer.num_channels // 2
        if self.count <= layer.downscale_freq_shift:
            raise ValueError(f"exact must be false: sizes in {layer.num_channels} channels have no exact form")

    def forward(self, sizes: Tensor) -> Tensor:
        """``(batch,)`` integers of at least 0 to ``(batch, channels)`` float32. Raises ``ValueError`` for floats."""
        if sizes.is_floating_point():
            raise ValueError(f"an exact network takes sizes as integers, got {sizes.dtype}")
        shift = float(self.layer.downscale_freq_shift)
        waves = [frequencies(size * self.layer.scale, self.count, shift) for size in sizes.tolist()]
        return columns(torch.tensor(waves, dtype=torch.float64), self.layer).to(sizes.device)


@lru_cache(256)
def frequencies(number: float, count: int, shift: float) -> Sequence[tuple[float, float]]:
    """Cosine and sine of ``number`` times each of ``count`` frequencies, the first of which is 1."""
    with localcontext(Context(prec=DIGITS)):
        exponent = -Decimal(PERIOD).ln() / (count - Decimal(shift))
        return [circle(Decimal(number) * (exponent * i).exp()) for i in range(count)]


def circle(angle: Decimal) -> tuple[float, float]:
    """Cosine and sine of an angle of any size, by halving it until it is small and doubling the result.

    Each doubling doubles the error, so of 40 digits some 34 are left for angles up to a million.
    """
    turns = max(0, int(angle.copy_abs()).bit_length())
    small = angle / (1 << turns)
    cosine, sine = series(small, 0), series(small, 1)
    for _ in range(turns):
        cosine, sine = cosine * cosine - sine * sine, 2 * cosine * sine
    return float(cosine), float(sine)


def columns(waves: Tensor, layer: Timesteps) -> Tensor:
    """Cosines and sines ``(rows, frequencies, 2)`` in the order of ``layer``, ``(rows, channels)`` float32."""
    cosines, sines = waves.unbind(-1)
    odd = torch.zeros(len(waves), layer.num_channels % 2, dtype=torch.float64)
    return torch.cat([*([cosines, sines] if layer.flip_sin_to_cos else [sines, cosines]), odd], 1).float()


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
