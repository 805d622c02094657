"""A device for tests on machines without an accelerator: ``standin:0``.

Its tensors are computed by the CPU, and refuse to meet tensors of the CPU that have a dimension, as those of a GPU do.
What is computed there and what crosses is counted. Needs torch 2.9, which lets Python alone register a device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, library
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "standin"
PLACE = torch.device("privateuseone", 0)  # its name before it is registered
OLDEST = (2, 9)
CPU = torch.device("cpu")
ALONE = "PSCX_TEST_ALONE"
ASKING = {"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero"}
"""Operations whose answer, or the shape of it, the host has to know: each waits for the device."""

computed: Counter[str] = Counter()
"""Operations on the device, by name."""
crossed: Counter[str] = Counter()
"""Transfers ``up`` to the device and ``down`` to the host, where questions count too."""


class There(Tensor):
    """A tensor on the device; ``here`` has its numbers."""

    here: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        layout: dict[str, Any] = {
            "strides": here.stride(),
            "storage_offset": here.storage_offset(),
            "dtype": here.dtype,
        }
        made: There = Tensor._make_wrapper_subclass(cls, here.shape, device=PLACE, **layout)
        made.here = here
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch types none of it
        return f"{self.here!r} on {PLACE}"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it as a class method, its stub has none
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return perform(func, args, kwargs or {})


def perform(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation of which a tensor, or the answer, is on the device."""
    name = func._schema.name
    if name == "aten::_to_copy":
        return converted(args[0], **kwargs)
    if name == "aten::copy_":
        return copied(*args[:2])
    computed[name] += 1
    crossed["down"] += name in ASKING
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    for leaf in leaves:
        if not isinstance(leaf, There) and leaf.dim() and leaf.device != torch.device("meta"):
            raise RuntimeError(
                f"{name}: all tensors must be on {PLACE}, but one {tuple(leaf.shape)} is on {leaf.device}"
            )
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": CPU}
    if name == "aten::sqrt":  # as IEEE 754 rounds it, which the CPU's need not do
        return There(torch.as_tensor(np.sqrt(args[0].here.numpy())))
    answer = func(*tree_map(here, args), **tree_map(here, kwargs))
    if func._schema.is_mutable and args and isinstance(args[0], There) and answer is args[0].here:
        return args[0]
    return tree_map(lambda value: There(value) if isinstance(value, Tensor) else value, answer)


def here(value: Any) -> Any:
    return value.here if isinstance(value, There) else value


def converted(tensor: Tensor, **wanted: Any) -> Tensor:
    """``aten::_to_copy``: another dtype or layout, another device, or all of it."""
    place = wanted.pop("device", None) or tensor.device
    wanted.pop("pin_memory", None), wanted.pop("non_blocking", None)
    note(tensor.device, place)
    copy = torch.ops.aten._to_copy(here(tensor), **wanted)
    return There(copy) if torch.device(place).type == NAME else copy


def copied(target: Tensor, source: Tensor) -> Tensor:
    note(source.device, target.device)
    here(target).copy_(here(source))
    return target


def note(source: torch.device | str, target: torch.device | str) -> None:
    source, target = torch.device(source).type, torch.device(target).type
    if source == target:
        computed["aten::copy_"] += 1
    else:
        crossed["up" if target == NAME else "down"] += 1


class Backend:
    """What torch asks of the module of a device. It is there while a test uses it."""

    present = False
    capacity = 1 << 34

    def is_available(self) -> bool:
        return self.present

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return int(self.present)

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None: ...

    def synchronize(self, device: Any = None) -> None: ...

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return self.capacity, self.capacity


backend = Backend()
_registered: list[Any] = []


def _register() -> None:
    """Once a process, for torch knows no way back."""
    if _registered:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=backend)
    kernels = library.Library("_", "IMPL")
    kernels.fallback(lambda func, *args, **kwargs: perform(func, args, kwargs), dispatch_key="PrivateUse1")
    _registered.append(kernels)


class _Tensor(TorchFunctionMode):
    """``torch.tensor``, which fails within itself for a device of Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        place = kwargs.get("device")
        if func is torch.tensor and place is not None and torch.device(place).type == NAME:
            return func(*args, **{**kwargs, "device": CPU}).to(place)
        return func(*args, **kwargs)


@contextmanager
def device() -> Iterator[torch.device]:
    """The device, there until the context ends; counts begin at nothing."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        pytest.skip(f"torch {torch.__version__} registers no device of Python alone")
    _register()
    computed.clear()
    crossed.clear()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # wrappers cannot take each other's place
    backend.present = True
    try:
        with _Tensor():
            yield PLACE
    finally:
        backend.present = False
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class OnTheCPU(TorchDispatchMode):
    """Counts the operations of networks that are computed on the CPU, not on the device, while it is entered."""

    LAYERS = ("convolution", "addmm", "native_group_norm", "native_layer_norm", "embedding")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch types no constructor of it
        self.layers: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in self.LAYERS and not any(isinstance(leaf, There) for leaf in tree_leaves(args)):
            self.layers[name] += 1
        return func(*args, **(kwargs or {}))


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test that takes gradients in a process of its own.

    torch makes its queues of gradients at the first one in a process, for the devices that are registered by then.
    """

    @wraps(test)
    def child(*args: Any, **options: Any) -> None:
        if ALONE in os.environ:
            test(*args, **options)
            return
        name = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run(command, env={**own, ALONE: "1"}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-4000:]
        assert "1 passed" in done.stdout

    return child
