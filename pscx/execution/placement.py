"""Where a codec computes: on the device that was asked for, or on the best that it can rely on."""

from __future__ import annotations

import torch
from torch import nn

from pscx.errors import PscxError
from pscx.execution.proof import prove
from pscx.runtime.devices import AUTO, accelerator, device_of, useless_gpu
from pscx.runtime.homes import home_of
from pscx.runtime.memory import out_of_memory
from pscx.runtime.notices import tell

CPU = torch.device("cpu")


def chosen(name: str | torch.device) -> torch.device:
    """The device of a name (:func:`pscx.runtime.devices.device_of`).

    ``auto`` is the accelerator of this machine where it gives the CPU's bits (:func:`pscx.execution.proof.prove`), else
    the CPU, with a sentence where that leaves a GPU idle. Raises :class:`PscxError` for a name that will not do.
    """
    if name != AUTO:
        return device_of(name)
    reason = why_not_auto()
    if reason:
        tell(reason)
    return CPU if reason else device_of(AUTO)


def why_not_auto() -> str:
    """A sentence where this machine has an accelerator that ``auto`` does not take; empty where all is well."""
    if found := useless_gpu():
        return f"this runs on the CPU although there is a GPU: {found}"
    kind = accelerator()
    if kind is None:
        return ""
    try:
        prove(device_of(kind))
    except (PscxError, RuntimeError, AssertionError, TypeError) as error:  # what torch raises of a driver that fails
        reason = str(error).partition("\n")[0]
        return f"this runs on the CPU although there is an accelerator ({kind}): {reason}"
    return ""


def move(network: nn.Module, device: torch.device, *, exact: bool) -> None:
    """Move a network to a device, checked beforehand where an ``exact`` codec relies on it.

    Raises :class:`PscxError` where the device fails the check, or has too little memory.
    """
    if exact:
        prove(device)
    with out_of_memory(f"moving the network to {device}"):
        network.to(device)
    if home_of(device) != device:
        tell(f"{device} has no float64: the network computes there in float32, all else on the CPU")
