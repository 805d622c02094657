"""What components return, checked where a codec takes it: a mistake of a plugin is told by the plugin's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.registry import class_path, origin, registry_of

CPU = torch.device("cpu")


def returned(
    component: object,
    method: str,
    value: Any,
    shape: Sequence[int],
    device: torch.device = CPU,
    dtype: torch.dtype | None = torch.float64,
) -> Tensor:
    """``value``, which ``method`` of ``component`` has returned, if it is a tensor of this shape, dtype and device.

    A ``dtype`` of None is any of floating point. Raises :class:`PscxError` with the component's name, what it must
    return and what it has returned.
    """
    if not isinstance(value, Tensor):
        refuse(component, method, _described(shape, dtype, device), f"'{type(value).__name__}'")
    place = value.device.type == device.type and value.layout == torch.strided
    kind = value.dtype == dtype or (dtype is None and value.is_floating_point())
    if not (place and kind and value.shape == torch.Size(shape)):
        got = _described(value.shape, value.dtype, value.device)
        layout = "" if value.layout == torch.strided else f" with the layout {value.layout}"
        refuse(component, method, _described(shape, dtype, device), got + layout)
    return value


def number(component: object, method: str, value: Any) -> float:
    """``value``, which ``method`` of ``component`` has returned, as a float. Raises :class:`PscxError` if it is none.

    A tensor or an array of one number is one.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        refuse(component, method, "a number", f"'{type(value).__name__}'")


def refuse(component: object, method: str, wanted: str, got: str) -> NoReturn:
    """Raise :class:`PscxError`: what ``method`` of ``component`` must return, and what it has returned."""
    raise PscxError(f"{called(component)} must return {wanted} from {method}, got {got}")


def called(component: object) -> str:
    """A component in words, such as ``sampler 'mine' ('plugins/mine.py')``."""
    cls = type(component)
    registry = registry_of(cls)
    known = registry is not None and cls in registry.classes.values()
    name = f"{registry.kind} '{registry.name_of(cls)}'" if registry is not None and known else class_path(cls)
    file = origin(cls)
    return f"{name} ('{file}')" if file else name


def _described(shape: Sequence[int], dtype: torch.dtype | None, device: torch.device) -> str:
    """Such as ``a tensor (2, 3, 16, 16), float64, on cpu``."""
    kind = "of floating point" if dtype is None else str(dtype).removeprefix("torch.")
    return f"a tensor {tuple(shape)}, {kind}, on {device.type}"
