"""Networks of metrics, each loaded once and gone with the last metric that holds it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakValueDictionary

from torch import nn

M = TypeVar("M", bound=nn.Module)
_HELD: WeakValueDictionary[Hashable, nn.Module] = WeakValueDictionary()


def held(key: Hashable, make: Callable[[], M]) -> M:
    """What ``make`` made for ``key``, made anew where nobody holds it any longer: the caller is to keep it."""
    network = _HELD.get(key)
    if network is None:
        network = _HELD[key] = make()
    return network  # type: ignore[return-value]  # a key has the type of its maker
