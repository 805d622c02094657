"""What the scheduler of a published flow-matching model means: how its times are scaled and shifted."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from pscx.priors.ddpm_schedule import number_of
from pscx.priors.parameterisations import FlowMatching

FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
TIMES = 1000


def flow_of(config: Mapping[str, Any]) -> FlowMatching:
    """The flow of a ``scheduler_config.json``: of a flow-matching scheduler, or one with ``use_flow_sigmas``.

    The network is told ``num_train_timesteps s``. Where the shift depends on the image's size
    (``use_dynamic_shifting``), it is that of the largest size that the schedule knows, as :class:`pscx.priors.Prior`
    has one grid for all sizes; it moves the steps of ``linear`` spacing alone. Raises ``ValueError`` for another
    scheduler, and where one of these is no number.
    """
    name = str(config.get("_class_name"))
    if name not in FLOW and not config.get("use_flow_sigmas"):
        raise ValueError(f"its scheduler is a {name}, which has no times of flow matching")
    return FlowMatching(TIMES, number_of(config, "num_train_timesteps", TIMES), _shift(config))


def _shift(config: Mapping[str, Any]) -> float:
    if config.get("use_dynamic_shifting"):
        return exp(number_of(config, "max_shift", 1.15))
    return number_of(config, "flow_shift" if config.get("use_flow_sigmas") else "shift", 1.0)
