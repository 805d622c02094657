"""The block transform: an orthonormal DCT whose sums do not depend on their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.signal.partition import Partition
from pscx.signal.transforms import GRID, LARGEST, BlockDCT, dct_matrix, fine, whole


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(signal: Tensor, block: int, axes: Tensor) -> Tensor:
    """Coefficients of one signal, from the cosine sums alone: no code of pscx, blocks in a loop."""
    n = np.arange(block)
    rows = np.cos(np.pi * (n[None] + 0.5) * n[:, None] / block) * np.sqrt(2 / block)
    rows[0] /= np.sqrt(2)
    pixels, found = signal.numpy(), []
    for y in range(0, pixels.shape[1], block):
        for x in range(0, pixels.shape[2], block):
            piece = np.einsum("ac,cpq->apq", axes.numpy(), pixels[:, y : y + block, x : x + block])
            found.append(np.einsum("up,vq,apq->auv", rows, rows, piece).ravel())
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize(("block", "shape"), [(4, (3, 8, 12)), (16, (3, 32, 16)), (32, (1, 32, 64)), (8, (4, 8, 8))])
def test_coefficients_are_those_of_the_cosine_sums(block: int, shape: tuple[int, int, int]) -> None:
    signal, axes = random(2, *shape), dct_matrix(shape[0])
    transform = BlockDCT(Partition(*shape, block), axes)
    coefficients = transform.forward(signal)
    for one, found in zip(signal, coefficients, strict=True):
        torch.testing.assert_close(found, reference(one, block, axes), rtol=0, atol=2e-5)
    torch.testing.assert_close(transform.inverse(coefficients), signal, rtol=0, atol=4e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 32])
def test_the_matrix_is_orthonormal(size: int) -> None:
    matrix = dct_matrix(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-5)


def test_no_entry_is_near_a_tie_of_the_grid() -> None:
    """So the last digits of a machine's cosine cannot change the matrix."""
    for size in range(1, 33):
        n = torch.arange(size, dtype=torch.float64)
        rows = torch.cos(torch.pi * (n[None] + 0.5) * n[:, None] / size) * (2 / size) ** 0.5
        rows[0] = size**-0.5
        place = rows * 2**20
        from_tie = ((place - place.floor()) - 0.5).abs()
        assert float(from_tie.min()) > 1e-7


@pytest.mark.parametrize("size", [3, 16, 32])
def test_sums_are_the_same_in_any_order(size: int) -> None:
    """With values as large as they may be: backwards, in halves and in integers, the product is one."""
    matrix = dct_matrix(size)
    signs = random(size, 64).sign()
    values = (random(size, 64, seed=1).abs() * LARGEST).clamp_max(LARGEST) * signs
    values[:, :size] = LARGEST * matrix.T.sign()  # drives row i of column i to its largest sum
    values = whole(values)
    product, half = matrix @ values, size // 2
    assert torch.equal(product, matrix.flip(1) @ values.flip(0))
    assert torch.equal(product, matrix[:, half:] @ values[half:] + matrix[:, :half] @ values[:half])
    assert torch.equal(product * GRID, ((matrix * GRID).long() @ values.long()).double())


def test_the_largest_block_keeps_every_sum_exact() -> None:
    """A block of 4096 numbers, all at the limit: each pass equals the product in integers."""
    partition = Partition(4, 32, 32, 32)
    transform = BlockDCT(partition, dct_matrix(4))
    signal = random(1, 4, 32, 32).sign() * LARGEST
    x = whole(signal).long().numpy().astype(object)
    axes, basis = ((m * GRID).long().numpy().astype(object) for m in (transform.axes, transform.basis))

    def rounded(values: NDArray[np.object_]) -> NDArray[np.object_]:
        whole: NDArray[np.object_] = np.vectorize(lambda v: round(v / 2**20), otypes=[object])(values)
        return whole  # below 2^53: exact, ties to even

    x = rounded(np.tensordot(axes, x[0], (1, 0)))
    x = rounded(np.stack([basis.dot(plane) for plane in x]))
    x = rounded(np.stack([plane.dot(basis.T) for plane in x]))
    assert torch.equal(
        (transform.forward(signal) * GRID).long(), torch.from_numpy(x.astype(np.int64)).reshape(1, 1, -1)
    )


def test_the_grids_round_half_to_even_and_saturate() -> None:
    step = 2.0**-20
    values = torch.tensor([0.5 * step, 1.5 * step, -2.5 * step, 1e9, -1e9], dtype=torch.float64)
    assert whole(values).tolist() == [0.0, 2.0, -2.0, 127 * GRID, -127 * GRID]
    assert fine(torch.tensor([2.0**-32, 3 * 2.0**-32, 1e9], dtype=torch.float64)).tolist() == [0.0, 2.0**-30, 1023.0]


def test_blocks_that_are_too_large_or_none_are_refused() -> None:
    for partition in (Partition(3, 64, 64, 64), Partition(3, 64, 64, None)):
        with pytest.raises(ValueError, match="at most 4096 numbers, got 12288"):
            BlockDCT(partition)


def test_other_shapes_than_the_partitions_are_refused() -> None:
    transform = BlockDCT(Partition(3, 8, 8, 4))
    with pytest.raises(ValueError, match=r"signals must be \(n, 3, 8, 8\), got \(1, 3, 4, 8\)"):
        transform.forward(torch.ones(1, 3, 4, 8))
    with pytest.raises(ValueError, match=r"coefficients must be \(n, 4, 48\), got \(1, 2, 48\)"):
        transform.inverse(torch.ones(1, 2, 48))
