"""Networks with the preconditioning of Karras et al. 2022 (EDM), section 5."""

from __future__ import annotations

from math import log, sqrt

import torch

from pscx.priors.parameterisations.base import Parameterisation, Scalings


class EDM(Parameterisation):
    """A network whose input and target have variance 1 at every noise level: EDM, Table 1, last column.

    Args:
        sigma_data: standard deviation of the signal that the network was trained for, over 0.
        sigma_min: lowest level that it knows, over 0.
        sigma_max: highest, over ``sigma_min``.
        rho: how far the grid leans to low levels (Eq. 5), over 0.
        count: levels of the grid, at least 2.
    """

    continuous = True

    def __init__(
        self,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        count: int = 1000,
    ) -> None:
        for name, value in (("sigma_data", sigma_data), ("sigma_min", sigma_min), ("rho", rho)):
            if not value > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        if not sigma_max > sigma_min:
            raise ValueError(f"sigma_max must be over sigma_min ({sigma_min}), got {sigma_max}")
        if count < 2:
            raise ValueError(f"count must be at least 2, got {count}")
        self.sigma_data = sigma_data
        ends = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        self.levels = torch.linspace(*ends, count, dtype=torch.float64) ** rho

    def scalings(self, sigma: float) -> Scalings:
        data = self.sigma_data
        power = sigma * sigma + data * data
        root = sqrt(power)
        return Scalings(data * data / power, sigma * data / root, 1 / root, log(sigma) / 4)
