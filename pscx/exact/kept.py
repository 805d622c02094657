"""What is made of a tensor once, and again when the tensor has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept(Generic[T]):
    """Something made of a tensor. A copy, or another process, begins with nothing.

    It holds while the tensor is the same one, in the same memory, and counts the same number of changes in place; of an
    inference tensor, for which torch does not count, while the sum of its bits is the same.
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, tuple[int, int], T] | None = None

    def of(self, tensor: Tensor, make: Callable[[], T]) -> T:
        """What ``make`` made of ``tensor``, float32 or int16."""
        bits = torch.int32 if tensor.element_size() == 4 else torch.int16
        changes = int(tensor.view(bits).sum()) if tensor.is_inference() else tensor._version
        state = tensor.data_ptr(), changes
        if self._known is None or self._known[0] is not tensor or self._known[1] != state:
            self._known = tensor, state, make()
        return self._known[2]

    def __reduce__(self) -> tuple[type[Kept[Any]], tuple[()]]:
        return Kept, ()
