"""How many images an accelerator has under way at once, where nobody says it: as many as its free memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MOST = 32  # images: beyond that a GPU gains nothing
SHARE = 0.8  # of the free memory: what an image takes is an estimate


def room_on(device: torch.device) -> int | None:
    """Bytes that images may take on a device together; none for the CPU, and where a device does not tell."""
    from pscx.runtime.devices import free_memory

    free = free_memory(device)
    return None if free is None else int(SHARE * free)
