"""The accelerator and the strategy of :mod:`pretend_device` for Lightning, as a package for a device brings them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from pretend_device import NAME, PLACE, backend


class StandIn(Accelerator):
    """One device."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [PLACE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return backend.present

    @staticmethod
    def name() -> str:
        return NAME

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}


class OnStandIn(SingleDeviceStrategy):
    """All on the one device; Lightning's own takes the CPU for what it does not know."""

    strategy_name = NAME

    def __init__(self, **options: Any) -> None:
        super().__init__(device=PLACE, accelerator=StandIn(), **options)


def register() -> None:
    """In Lightning's registries, once a process."""
    if NAME not in AcceleratorRegistry:
        AcceleratorRegistry.register(NAME, StandIn)
        StrategyRegistry.register(NAME, OnStandIn)
