"""Networks of straight paths from signal to noise, Lipman et al. 2023 (flow matching), Liu et al. 2023."""

from __future__ import annotations

import torch

from pscx.priors.parameterisations.base import Parameterisation, Scalings


class FlowMatching(Parameterisation):
    """A network that predicts the velocity ``z - x0`` from ``x_s = (1 - s) x0 + s z`` and the time ``s`` in (0, 1).

    With ``sigma = s / (1 - s)``, ``x_s = (1 - s) x`` and ``x0 = x_s - s velocity``.

    Args:
        times: the grid has the levels of ``u = k / times`` for ``k = 1, ..., times - 1``; at least 3.
        time_scale: the network is told ``time_scale s``; over 0, often 1 or 1000.
        shift: over 0; with ``shift`` over 1 the grid leans to high levels: ``s = shift u / (1 + (shift - 1) u)``, Esser
            et al. 2024 (Stable Diffusion 3), Eq. 23.
    """

    continuous = True

    def __init__(self, times: int = 1000, time_scale: float = 1.0, shift: float = 1.0) -> None:
        if times < 3:
            raise ValueError(f"times must be at least 3, got {times}")
        if not time_scale > 0:
            raise ValueError(f"time_scale must be over 0, got {time_scale}")
        if not shift > 0:
            raise ValueError(f"shift must be over 0, got {shift}")
        place = torch.arange(1, times, dtype=torch.float64)
        # s / (1 - s) of the shifted time is shift u / (1 - u)
        self.levels, self.time_scale = shift * place / (times - place), time_scale

    def scalings(self, sigma: float) -> Scalings:
        signal, noise = 1 / (1 + sigma), sigma / (1 + sigma)
        return Scalings(signal, -noise, signal, self.time_scale * noise)
