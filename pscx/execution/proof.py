"""Whether a device gives the bits of the CPU, where an exact codec has to rely on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pscx.errors import PscxError
from pscx.exact import check_roots, exactly, exponential, logarithm, number, ordered_mean
from pscx.exact.settings import OncePerSetting
from pscx.runtime.homes import home_of
from pscx.signal.cell_lengths import cell_lengths
from pscx.signal.noise import Noise
from pscx.signal.partition import Partition
from pscx.signal.transforms import BlockDCT, dct_matrix

COUNT = 1 << 14


def prove(device: torch.device) -> None:
    """Check a device for exact codecs: once for each combination of torch's settings.

    Raises :class:`pscx.errors.PscxError` where products, convolutions or single operations are not the CPU's.
    """
    if device.type != "cpu":
        with exactly(device):
            check_arithmetic(device)


@OncePerSetting
def check_arithmetic(device: torch.device) -> None:
    """Compare single operations, and what is made of them, with the CPU's. Raises :class:`PscxError`."""
    home = home_of(device)  # where a codec's signals live: all but the network
    if home.type == "cpu":
        return
    check_roots(home)
    values = Noise(0).normal((COUNT,), iteration=0, sample=0, step=0)
    values = torch.ldexp(values + 2.0**-20, torch.arange(COUNT) % 40 - 20)  # of many sizes, none of them zero
    for name, function in PARTS.items():
        here, there = function(values), function(values.to(home))
        if not torch.equal(here, there.cpu()):
            raise PscxError(f"{name} on {device} are not the CPU's to the last bit, which an exact codec relies on")


def _quotients(x: Tensor) -> Tensor:
    return torch.cat([x / x.flip(0), x / number(3, x), 0.3 / x.abs().add(1), x.float() / x.float().flip(0)])


def _sums(x: Tensor) -> Tensor:
    """Products and sums one after the other, which a fused operation would round but once."""
    y = x.float()
    return torch.cat([x * x.flip(0) + x.roll(1), (y * y.flip(0)).add_(y.roll(1)).mul_(y).double(), x.round()])


def _functions(x: Tensor) -> Tensor:
    y = x.float()
    return torch.cat([exponential(y.clamp(-80, 80)), logarithm(y.abs())])


def _lengths(x: Tensor) -> Tensor:
    return torch.cat([cell_lengths(x, x + x.flip(0).abs()), cell_lengths(-x.abs(), x.abs())])


def _transforms(x: Tensor) -> Tensor:
    partition = Partition(channels=1, height=128, width=128, block=16)
    dct = BlockDCT(partition, dct_matrix(1).to(x.device))
    coefficients = dct.forward(x.clamp(-100, 100).view(1, 1, 128, 128))
    return torch.cat([coefficients.flatten(), dct.inverse(coefficients).flatten()])


def _means(x: Tensor) -> Tensor:
    return ordered_mean([x[: len(x) // 3 * 3].view(3, -1)])


def _orders(x: Tensor) -> Tensor:
    places = torch.sort(x.float().double().abs().view(128, -1), dim=1, descending=True, stable=True).indices
    return torch.cat([places.flatten(), (x > 0).cumsum(0), x.kthvalue(77).values[None].view(torch.int64)])


def _noise(x: Tensor) -> Tensor:
    return Noise(3).normal((1001,), iteration=1, sample=2, step=(1 << 64) - 1, device=x.device)


PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "quotients": _quotients,
    "products and sums": _sums,
    "exponentials and logarithms": _functions,
    "code lengths": _lengths,
    "transforms": _transforms,
    "means": _means,
    "orders": _orders,
    "random numbers": _noise,
}
