"""Which steps of a noise schedule a sampler visits."""

from __future__ import annotations

from math import exp, log

from torch import Tensor

SPACINGS = ("linear", "log")


def timesteps(levels: Tensor, start: float | None, stop: float, steps: int, spacing: str) -> list[int]:
    """Step numbers from noise level ``start`` down to ``stop``, at most ``steps`` of them, strictly falling.

    ``levels`` ``(all,)`` are the schedule's noise levels, rising; a level outside of it means its nearest end.
    """
    last = len(levels) - 1
    first = last if start is None else int((levels - start).abs().argmin())
    end = int((levels - stop).abs().argmin())
    if steps == 1 or first <= end:
        return [first]
    if spacing == "linear":
        return sorted({round(point) for point in evenly(first, end, steps)}, reverse=True)
    wanted = [exp(point) for point in evenly(log(levels[first]), log(levels[end]), steps)]
    return sorted({int((levels - level).abs().argmin()) for level in wanted}, reverse=True)


def evenly(first: float, last: float, count: int) -> list[float]:
    """``count`` (at least 2) numbers from ``first`` to ``last`` at equal distances.

    In Python's arithmetic: a library's own ranges differ in the last digit from one instruction set to the next.
    """
    return [first + (last - first) * i / (count - 1) for i in range(count)]
