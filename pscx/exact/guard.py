"""What torch must be set to while an exact network computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from pscx.errors import PscxError
from pscx.exact.backends import plain_convolutions
from pscx.exact.integer import convolving, path_on
from pscx.exact.network import check_convolutions
from pscx.exact.products import check_products


@contextmanager
def exactly(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """A place for an exact network on ``device``: no autocast, no library that rounds, a machine that was checked.

    The checks are made again when torch's settings have changed. Raises :class:`pscx.errors.PscxError` where products
    or convolutions of integers are not exact as torch is set now, and for a network in another ``dtype`` than float32.
    """
    if dtype != torch.float32:
        raise PscxError(
            f"an exact prior computes in float32, and its network was turned into {dtype}: leave trainer.precision at "
            "32-true"
        )
    known = torch.amp.is_autocast_available(device.type)
    with torch.autocast(device.type, enabled=False) if known else nullcontext(), plain_convolutions():
        check_convolutions(device)
        check_products(device)
        with convolving(path_on(device)):  # so that layers need not ask again
            yield
