"""Networks of discrete variance-preserving steps, Ho et al. 2020 (DDPM)."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from pscx.priors.parameterisations.base import Parameterisation, Scalings
from pscx.priors.schedules import PREDICTIONS, nearest


class VariancePreserving(Parameterisation):
    """A network of ``x_t = sqrt(a) x0 + sqrt(1 - a) z`` and a step number ``t``.

    With ``a = 1 / (1 + sigma^2)``, ``x_t = sqrt(a) x``. ``c_noise`` is the step whose level is nearest to ``sigma``.

    Args:
        levels: noise level ``sqrt((1 - a) / a)`` of each step, ``(steps,)`` float64, rising.
        prediction: what the network predicts: ``epsilon`` (``z``), ``v_prediction``
            (``sqrt(a) z - sqrt(1 - a) x0``, Salimans and Ho 2022, appendix D) or ``sample`` (``x0``).
    """

    continuous = False

    def __init__(self, levels: Tensor, prediction: str) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        self.levels, self.prediction = levels, prediction

    def scalings(self, sigma: float) -> Scalings:
        power = sigma * sigma + 1
        t, root = nearest(self.levels, sigma), sqrt(power)
        if self.prediction == "v_prediction":
            return Scalings(1 / power, -(sigma / root), 1 / root, t)
        if self.prediction == "epsilon":
            return Scalings(1.0, -sigma, 1 / root, t)
        return Scalings(0.0, 1.0, 1 / root, t)
