from __future__ import annotations

from hashlib import sha256
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from pscx.signal.noise import DOMAIN, Noise, quantiles


def draw(seed: int = 3, count: int = 1000, iteration: int = 1, sample: int = 2, step: int = 5) -> torch.Tensor:
    return Noise(seed).normal((count,), iteration=iteration, sample=sample, step=step)


def philox(key: list[int], counter: list[int]) -> list[int]:
    """Philox4x64-10 written out from Salmon et al. 2011, as an independent reference."""
    mask = (1 << 64) - 1
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (high >> 64) ^ c1 ^ k0, high & mask, (low >> 64) ^ c3 ^ k1, low & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_bytes_are_pinned() -> None:
    grid = (Noise(7).normal((3, 5, 7), iteration=1, sample=2, step=3) * 4096).to(torch.int16).numpy().astype("<i2")
    assert sha256(grid.tobytes()).hexdigest()[:16] == "ceb026981a089ae7"
    table = (quantiles() * 4096).astype("<i2")
    assert sha256(table.tobytes()).hexdigest()[:16] == "1ea009ce409dac97"


def test_values_are_where_the_docstring_says() -> None:
    values = draw(seed=11, count=8, iteration=9, sample=8, step=7)
    words = philox([11, DOMAIN], [1, 7, 8, 9])[:2]
    indices = [word >> shift & 65535 for word in words for shift in (0, 16, 32, 48)]
    assert values.tolist() == quantiles()[indices].tolist()


def test_table_is_the_normal_distribution() -> None:
    table = quantiles()
    assert np.array_equal(table, -table[::-1])
    assert np.array_equal(table * 4096, np.rint(table * 4096))
    for index in (0, 1, 1000, 32767, 40000, 65535):
        assert table[index] == pytest.approx(NormalDist().inv_cdf((index + 0.5) / 65536), abs=2**-13 + 1e-12)
    assert table.var() == pytest.approx(0.99998, abs=1e-5)


def test_moments() -> None:
    values = draw(count=400_000)
    error = 400_000**-0.5
    assert abs(values.mean()) < 4 * error
    assert abs(values.var() - 1) < 4 * error * 2**0.5
    assert abs((values**4).mean() - 3) < 4 * error * 96**0.5
    assert abs((values[1:] * values[:-1]).mean()) < 4 * error


def test_order_of_asking_changes_nothing() -> None:
    addresses = list(product((0, 1, 1 << 16), (0, 3), (0, 49)))
    one, other = Noise(5), Noise(5)

    def ask(noise: Noise, address: tuple[int, int, int]) -> torch.Tensor:
        return noise.normal((2, 3), iteration=address[0], sample=address[1], step=address[2])

    forwards = {address: ask(one, address) for address in addresses}
    backwards = {address: ask(other, address) for address in reversed(addresses)}
    assert all(torch.equal(forwards[address], backwards[address]) for address in addresses)


def test_every_coordinate_matters() -> None:
    addresses = list(product((0, 1, 2), repeat=4))
    draws = {tuple(draw(seed, 16, *rest).tolist()) for seed, *rest in addresses}
    assert len(draws) == len(addresses)
    base = draw(count=10_000)
    for change in ({"seed": 4}, {"iteration": 2}, {"sample": 3}, {"step": 6}):
        assert abs((base * draw(**{"count": 10_000, **change})).mean()) < 0.04


def test_larger_shape_starts_with_the_same_values() -> None:
    noise = Noise(1)
    where: dict[str, Any] = {"iteration": 0, "sample": 1, "step": 2}
    large = noise.normal((5, 7, 9), **where)
    assert large.shape == (5, 7, 9)
    assert large.dtype == torch.float64
    for shape in ((), (1,), (5,), (3, 7, 9), (2, 3)):
        small = noise.normal(shape, **where)
        assert small.shape == shape
        assert torch.equal(small.flatten(), large.flatten()[: small.numel()])
    assert noise.normal((0, 3), **where).shape == (0, 3)


def test_result_is_the_callers_own() -> None:
    first = draw()
    before = first.clone()
    first.zero_()
    assert torch.equal(draw(), before)


def test_global_random_state_is_left_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    draw()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must lie in \[0, 2\^64\), got {seed}"):
        Noise(seed)


@pytest.mark.parametrize("name", ["iteration", "sample", "step"])
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_coordinate_out_of_range(name: str, value: int) -> None:
    where: dict[str, Any] = {"iteration": 0, "sample": 0, "step": 0, name: value}
    with pytest.raises(ValueError, match=f"{name} must lie in .*, got {value}"):
        Noise(0).normal((1,), **where)


def test_the_ends_of_the_ranges_work() -> None:
    top = (1 << 64) - 1
    values = draw(seed=top, count=100, iteration=top, sample=top, step=top)
    assert torch.isfinite(values).all()
    assert len(values.unique()) > 50
