"""The noise schedule of DDPM (Ho et al. 2020) in its usual forms, with the numbers of diffusers' ``DDPMScheduler``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pscx.exact.roots import square_root

CONFIG = "scheduler_config.json"
NAME = "DDPMScheduler"
STEPS, ENDS = 1000, {"beta_start": 1e-4, "beta_end": 0.02}  # by default
OFFSET = 0.008  # s of Nichol and Dhariwal 2021, Eq. 17
LARGEST_BETA = 0.999


def linear(steps: int, start: float, end: float) -> Tensor:
    """Ho et al. 2020, section 4: variances of the noise of each step in equal distances, ``(steps,)`` float32."""
    return evenly(start, end, steps)


def scaled_linear(steps: int, start: float, end: float) -> Tensor:
    """As Rombach et al. 2022 trained: standard deviations in equal distances; :func:`linear` otherwise."""
    return evenly(sqrt(start), sqrt(end), steps) ** 2


def evenly(start: float, end: float, steps: int) -> Tensor:
    """``torch.linspace`` of float32 numbers, ``(steps,)``, as it is with fused multiply-adds, on every machine.

    torch's has other last bits on processors without them.
    """
    if steps == 1:
        return torch.tensor([start], dtype=torch.float32)
    ends = torch.tensor([start, end], dtype=torch.float32)
    first, last = ends.double()
    step = ((ends[1] - ends[0]) / torch.tensor(float(steps - 1))).double()
    place = torch.arange(steps, dtype=torch.float64)
    return torch.where(place < steps // 2, first + step * place, last - step * (steps - 1 - place)).float()


def cosine(steps: int, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Nichol and Dhariwal 2021, Eq. 17, which knows neither ``start`` nor ``end``."""

    def share(time: float) -> float:
        return cos((time + OFFSET) / (1 + OFFSET) * pi / 2) ** 2

    betas = [min(1 - share((step + 1) / steps) / share(step / steps), LARGEST_BETA) for step in range(steps)]
    return torch.tensor(betas, dtype=torch.float32)


BETAS: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": cosine,
}
"""Variances of the noise of each step by the name of the schedule."""


@dataclass(frozen=True)
class DDPMSchedule:
    """A noise schedule, computed without diffusers; its file is one of ``DDPMScheduler``.

    Args:
        config: the content of ``scheduler_config.json``.
        alphas_cumprod: share of the signal's variance at each step, ``(steps,)`` float32.
    """

    config: Mapping[str, Any]
    alphas_cumprod: Tensor

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DDPMSchedule | None:
        """That of a ``scheduler_config.json``, or none where it is not one of :data:`BETAS`.

        Raises ``ValueError`` for a number that is none or out of range, such as a variance outside of (0, 1).
        """
        return cls.of_betas(config) if config.get("_class_name", NAME) == NAME else None

    @classmethod
    def of_betas(cls, config: Mapping[str, Any]) -> DDPMSchedule | None:
        """:meth:`of` the configuration of any scheduler that has the betas of ``DDPMScheduler``."""
        betas = BETAS.get(str(config.get("beta_schedule", "linear")))
        if betas is None or config.get("trained_betas") is not None:
            return None
        steps = config.get("num_train_timesteps", STEPS)
        if type(steps) is not int or steps < 1:
            raise ValueError(f"scheduler.num_train_timesteps must be an integer of at least 1, got {steps!r}")
        ends = {key: number_of(config, key, default) for key, default in ENDS.items()}
        for key, number in ends.items():
            if not 0 < number < 1:
                raise ValueError(f"scheduler.{key} must lie between 0 and 1, got {number}")
        noise = betas(steps, *ends.values())
        if config.get("rescale_betas_zero_snr", False):
            noise = ending_in_noise(noise)
        return cls(config, torch.cumprod(1 - noise, 0))

    def save_pretrained(self, folder: Path) -> None:
        """Write ``scheduler_config.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.config, "_class_name": NAME}, indent=2, sort_keys=True)
        (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")


def number_of(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a ``scheduler_config.json``. Raises ``ValueError`` where something else is there."""
    number = config.get(key, default)
    if type(number) not in (int, float):
        raise ValueError(f"scheduler.{key} must be a number, got {number!r}")
    return float(number)


def ending_in_noise(betas: Tensor) -> Tensor:
    """Variances whose last step leaves no signal, Lin et al. 2024, Algorithm 1; of the first step the share stays."""
    root = square_root(torch.cumprod(1 - betas, 0))
    first, last = root[0], root[-1]
    shares = ((root - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([shares[:1], shares[1:] / shares[:-1]])
