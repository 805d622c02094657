"""A fingerprint of weights that is computed again only where they have changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pscx.priors.base import digest

Facts = tuple[object, ...]
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """:func:`pscx.priors.base.digest` of tensors, which costs a cryptographic hash of all weights, kept while it holds.

    It holds while each tensor lies in the same memory, counts the same number of changes in place, and has the same sum
    of its bits. The first tells weights that were moved, converted or replaced, the second all that torch does in
    place, the third what goes around its count (``weight.data.copy_(...)``, an array of NumPy over the same memory).
    To sum takes a tenth of the time of a hash. Memory is told by weak references: none of it is pinned, and none that
    was freed and given out again is taken for what it was.
    """

    def __init__(self) -> None:
        self._known: tuple[list[Facts], bytes] | None = None

    def of(self, weights: Sequence[Tensor], others: Sequence[Tensor] = ()) -> bytes:
        """Six bytes that identify the exact values, dtypes and shapes of ``weights`` and then of ``others``.

        The latter are few numbers, which may be other tensors in each call.
        """
        found = [(*facts(tensor), total) for tensor, total in zip(weights, sums_of(weights), strict=True)]
        found += [(digest(tensor),) for tensor in others]
        if self._known is None or self._known[0] != found or any(tensor.is_inference() for tensor in weights):
            self._known = found, digest(*weights, *others)  # torch does not count the changes of inference tensors
        return self._known[1]

    def __reduce__(self) -> tuple[type[Fingerprint], tuple[()]]:
        """A copy in other memory, or in another process, begins with nothing."""
        return Fingerprint, ()


def facts(tensor: Tensor) -> Facts:
    """What tells that a tensor has not changed, beside :func:`sum_of`."""
    memory = StorageWeakRef(tensor.untyped_storage())
    place = memory, tensor.storage_offset(), tensor.shape, tensor.stride()
    changes = None if tensor.is_inference() else tensor._version
    return *place, tensor.dtype, tensor.device, changes


def sums_of(tensors: Sequence[Tensor]) -> list[int]:
    """The :func:`sum_of` each tensor; a device is asked once for those of all that lie there."""
    places: dict[torch.device, list[int]] = {}
    for i, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(i)
    found: dict[int, int] = {}
    for own in places.values():
        sums = torch.stack([sum_of(tensors[i]) for i in own])
        found |= zip(own, sums.tolist(), strict=True)
    return [found[i] for i in range(len(tensors))]


def sum_of(tensor: Tensor) -> Tensor:
    """Sum of a tensor's bits, taken as integers of its own width, modulo 2^64; int64, of no dimensions."""
    bits = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return bits.detach().view(INTEGERS[bits.element_size()]).sum(dtype=torch.int64)
