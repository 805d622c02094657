"""Sums whose order is fixed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from pscx.exact.integers import divide


def ordered_mean(parts: Iterable[Tensor]) -> Tensor:
    """Mean over the first dimension of all ``parts`` ``(n, ...)`` together, added one by one in the order given.

    However the parts are cut, the result is the same to the last bit: each addition is one IEEE operation on each
    element, where a library's own sum is free to add in any order.
    """
    total: Tensor | None = None
    count = 0
    for part in parts:
        total = _added(total, part)
        count += len(part)
        del part  # where each is made when its turn comes, the next has its memory
    if total is None:
        raise ValueError("there must be at least one part to take the mean of")
    return divide(total, count)


def _added(total: Tensor | None, part: Tensor) -> Tensor | None:
    """``total``, which is changed, and then each of ``part``."""
    for one in part:
        total = one.clone() if total is None else total.add_(one)
    return total
