"""Devices by their names, and whether torch can use them here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pscx.errors import PscxError

AUTO = "auto"
FORM = "auto, cpu, cuda, cuda:1, mps or another that torch knows"
DRIVERS = ("/proc/driver/nvidia", "/dev/kfd")
"""What is there where a driver of a GPU is."""


def device_of(name: str | torch.device) -> torch.device:
    """The usable device of that name; for ``auto`` the best one of this machine, unchecked.

    Raises :class:`PscxError` for a name that torch does not know, and if torch cannot use the device here.
    """
    if name == AUTO:
        return device_of(accelerator() or "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise PscxError(f"device must be {FORM}, got '{name}'") from None
    if device.type == "cpu":
        return torch.device("cpu")
    module = _module(device)
    if module is None:
        raise PscxError(f"device must be {FORM}, got '{name}'")
    if not (torch.backends.mps if device.type == "mps" else module).is_available():
        raise PscxError(f"device {name} cannot be used: {_why_not(device.type)}")
    count = int(module.device_count())
    if (device.index or 0) >= count:
        there = ", ".join(f"{device.type}:{i}" for i in range(count))
        raise PscxError(f"device {name} does not exist: this machine has {there}")
    return torch.device(device.type, device.index or 0)


def accelerator() -> str | None:
    """Torch's name of this machine's accelerator, such as ``cuda`` or ``mps``; none without one."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    current = getattr(torch, "accelerator", None)  # from torch 2.6 on
    if current is None or not current.is_available():
        return None
    return str(current.current_accelerator().type)


def useless_gpu() -> str:
    """Why torch cannot use this machine's GPU; empty if it can, or without a GPU."""
    return "" if accelerator() or not any(Path(driver).exists() for driver in DRIVERS) else _why_not("cuda")


def free_memory(device: torch.device) -> int | None:
    """Free bytes on a device, with those that torch has reserved; none if unknown."""
    module: Any = _module(device)
    if device.type == "cpu" or not hasattr(module, "mem_get_info"):
        return None
    free = int(module.mem_get_info(device)[0])
    if hasattr(module, "memory_reserved"):
        free += int(module.memory_reserved(device)) - int(module.memory_allocated(device))
    return free


def _module(device: torch.device) -> Any:
    try:
        module = torch.get_device_module(device)
    except RuntimeError:
        return None
    return module if hasattr(module, "device_count") else None


def _why_not(kind: str) -> str:
    version = f"torch {torch.__version__}"
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return f"{version} is a build for the CPU, install one for the GPU"
    return f"{version} finds no such device that it can use, see to its driver"
