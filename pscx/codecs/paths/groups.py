"""Random groups of a signal's numbers: each is coded with a codebook of its own, so cost is linear in the size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pscx.signal.noise import Noise

ORDER = 1 << 40  # noise index of the random order


@dataclass(frozen=True)
class Groups:
    """Cuts signals of ``count`` numbers into ``groups`` groups of equal size; the last one may be smaller.

    ``order`` ``(count,)`` says which number of the flattened signal comes at each place.
    """

    order: Tensor
    groups: int

    @property
    def size(self) -> int:
        """Numbers of a group."""
        return -(-len(self.order) // self.groups)

    def split(self, signal: Tensor) -> Tensor:
        """``(channels, height, width)`` to ``(groups, size)``, the last group filled with zeros."""
        flat = signal.flatten()[self.order]
        return functional.pad(flat, (0, self.groups * self.size - len(flat))).view(self.groups, self.size)

    def join(self, parts: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of :meth:`split`."""
        flat = torch.empty(len(self.order), dtype=parts.dtype, device=parts.device)
        flat[self.order] = parts.flatten()[: len(self.order)]
        return flat.view(shape)


def random_order(noise: Noise, count: int, device: torch.device) -> Tensor:
    """A random order of ``count`` places, the same on every machine: that of noise, equal numbers by their place."""
    keys = noise.normal((count,), iteration=ORDER, sample=0, step=0, device=device)
    return torch.sort(keys, stable=True).indices
