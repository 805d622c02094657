"""torch's settings that decide whether integers in float32 are summed as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Any, Generic, TypeVar

import torch

from pscx.errors import PscxError

R = TypeVar("R")
PRECISIONS = (
    *("fp32_precision", "cuda.matmul.fp32_precision", "cudnn.fp32_precision", "cudnn.conv.fp32_precision"),
    *("mkldnn.fp32_precision", "mkldnn.matmul.fp32_precision", "mkldnn.conv.fp32_precision"),
    *("cuda.matmul.allow_tf32", "cudnn.allow_tf32", "mkldnn.allow_tf32", "mkldnn.enabled"),
)
"""Names below :mod:`torch.backends`. Which of them there are depends on torch's version."""
FULL = ("ieee", "none", False)  # values of a precision that let no operand be rounded
DECISIVE = {"cuda": ("cuda.matmul",), "cpu": ("mkldnn.matmul", "mkldnn.conv")}  # cuDNN is off in exact layers


def settings(device: torch.device) -> tuple[object, ...]:
    """All that torch is set to that may change how it multiplies on ``device``, in this thread; it can be hashed."""
    return (
        *(precision(name) for name in PRECISIONS),
        legacy_precision(),
        autocast(device),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


def permitted_rounding(device: torch.device) -> tuple[str, str] | None:
    """The library that torch lets round the operands of float32 products on ``device``, and to what; or none.

    Whether it does depends on the processor and on the shapes, so no trial can exclude it.
    """
    for library in DECISIVE.get(device.type, ()):
        told = precision(f"{library}.fp32_precision")
        if told is None:  # torch before 2.9
            told = _told_before(library)
        if told not in FULL:
            return library, "tf32" if told is True else str(told)
    return None


def refuse_rounding(device: torch.device) -> None:
    """Raise :class:`PscxError` where torch lets a library round the operands of float32 products on ``device``."""
    if rounding := permitted_rounding(device):
        library, kind = rounding
        raise PscxError(
            f"exact decoding needs full float32 precision, and torch.backends.{library} may round to {kind} on "
            f"{device.type}: call torch.set_float32_matmul_precision('highest') and set no other precision"
        )


def autocast(device: torch.device) -> torch.dtype | None:
    """What autocast turns the operands of products into on ``device``, in this thread; none where it is off."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def precision(name: str) -> Any:
    """A setting of :mod:`torch.backends`; none where this version has no such setting, or it was replaced by others."""
    value: Any = torch.backends
    try:
        for part in name.split("."):
            value = getattr(value, part)
    except (AttributeError, RuntimeError):  # RuntimeError: torch refuses to tell an old setting when a new one was used
        return None
    return value if isinstance(value, str | bool) else None


def legacy_precision() -> str | None:
    """That of ``torch.set_float32_matmul_precision``; none where newer settings have taken its place."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _told_before(library: str) -> str | bool:
    """A precision by the settings of torch before 2.9."""
    if library == "cuda.matmul":
        return bool(precision("cuda.matmul.allow_tf32"))
    return "bf16" if legacy_precision() == "medium" else "none"


class OncePerSetting(Generic[R]):
    """A check of a device that is made again whenever torch's :func:`settings` are others; one that fails, each time.

    Args:
        check: raises where the device fails, or answers how it does.
    """

    def __init__(self, check: Callable[[torch.device], R]) -> None:
        update_wrapper(self, check)
        self._passed = lru_cache(lambda device, _: check(device))
        self.cache_clear = self._passed.cache_clear

    def __call__(self, device: torch.device) -> R:
        return self._passed(device, settings(device))
