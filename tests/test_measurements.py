from __future__ import annotations

from itertools import chain

import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

from pscx.signal.measurements import Coordinates, DenseRows, Gain, Measurements, rank_within
from pscx.signal.partition import Partition
from pscx.signal.transforms import BlockDCT

PARTITIONS = [Partition(3, 4, 6, None), Partition(3, 4, 6, 2), Partition(1, 4, 4, 4), Partition(4, 8, 4, 4)]
partitions = pytest.mark.parametrize("partition", PARTITIONS, ids=str)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(partition: Partition, batches: list[list[int]]) -> tuple[DenseRows, Tensor, Tensor]:
    """Measurements with orthonormal rows appended batch by batch; each batch lists the blocks of its rows.

    Also the same rows over the whole signal, one after the other, ``(r, n)``, and their values ``(r,)``.
    """
    bases = torch.linalg.qr(random(partition.count, partition.dim, partition.dim)).Q
    measurements, used = DenseRows(partition), [0] * partition.count
    whole, values = [], random(sum(map(len, batches)), seed=1)
    for batch in batches:
        rows = []
        for block in batch:
            rows.append(bases[block, used[block]])
            used[block] += 1
            spread = torch.zeros(1, partition.count, partition.dim, dtype=torch.float64)
            spread[0, block] = rows[-1]
            whole.append(partition.join(spread).flatten())
        first = len(whole) - len(batch)
        blocks = torch.tensor(batch, dtype=torch.int64)
        new = torch.stack(rows) if rows else torch.zeros(0, partition.dim, dtype=torch.float64)
        value = values[first : len(whole)]
        measurements.append(blocks, new, value, value.square())
    return measurements, torch.stack(whole), values


def several(partition: Partition) -> list[list[int]]:
    """Batches that fill blocks unevenly, out of order, one of them with nothing."""
    last = partition.count - 1
    return [[last, 0, last], [], [0], [last // 2, last, 0, last]]


def test_partition_orders_blocks_as_text_and_entries_by_channel_row_column() -> None:
    signal = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    blocks = Partition(2, 4, 6, 2).split(signal)
    assert blocks.shape == (1, 6, 8)
    assert blocks[0, 0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31]
    assert blocks[0, 1].tolist() == [2, 3, 8, 9, 26, 27, 32, 33]
    assert blocks[0, 3].tolist() == [12, 13, 18, 19, 36, 37, 42, 43]
    assert torch.equal(Partition(2, 4, 6, None).split(signal)[0, 0], signal.flatten())


@partitions
def test_join_is_the_inverse_of_split(partition: Partition) -> None:
    signal = random(5, partition.channels, partition.height, partition.width)
    blocks = partition.split(signal)
    assert blocks.shape == (5, partition.count, partition.dim)
    assert torch.equal(partition.join(blocks), signal)


def test_partition_refuses_blocks_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="block 4 must divide the signal's sides, got 8x6"):
        Partition(3, 8, 6, 4)


@partitions
def test_forward_is_a_product_with_the_rows(partition: Partition) -> None:
    """Block by block the places hold the rows of that block in the order they came; unused places give zero."""
    batches = several(partition)
    measurements, rows, values = filled(partition, batches)
    signal = random(2, partition.channels, partition.height, partition.width, seed=2)
    answer = measurements.forward(signal)
    wanted = torch.zeros_like(answer)
    held = torch.zeros_like(measurements.values)
    used = [0] * partition.count
    for i, block in enumerate(list(chain(*batches))):
        wanted[:, block, used[block]] = signal.flatten(1) @ rows[i]
        held[block, used[block]] = values[i]
        used[block] += 1
    torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-12)
    assert torch.equal(measurements.values, held)
    assert torch.equal(measurements.variances, held.square())
    assert measurements.counts.tolist() == used
    assert len(measurements) == len(rows)
    assert measurements.rows.shape == (partition.count, max(used), partition.dim)


@partitions
def test_adjoint(partition: Partition) -> None:
    """``<H x, v> = <x, H^T v>``, and ``H H^T = I`` at the places in use."""
    measurements, _, _ = filled(partition, several(partition))
    signal = random(1, partition.channels, partition.height, partition.width, seed=2)
    values = random(1, *measurements.values.shape, seed=3)
    left = (measurements.forward(signal) * values).sum()
    right = (signal * measurements.adjoint(values)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    used = torch.arange(measurements.values.shape[1]) < measurements.counts[:, None]
    back = measurements.forward(measurements.adjoint(values))
    torch.testing.assert_close(back, values * used, rtol=0, atol=1e-12)


@partitions
def test_batches_are_as_good_as_one(partition: Partition) -> None:
    batches = several(partition)
    split, _, _ = filled(partition, batches)
    once, _, _ = filled(partition, [list(chain(*batches))])
    for name in ("rows", "values", "variances", "counts"):
        assert torch.equal(getattr(split, name), getattr(once, name))


@partitions
def test_complement(partition: Partition) -> None:
    """What is left is orthogonal to the rows of its block, what was removed is spanned by them."""
    measurements, _, _ = filled(partition, several(partition))
    block = torch.tensor([0, partition.count - 1, partition.count - 1])
    vectors = random(3, partition.dim, seed=4)
    left = measurements.complement(block, vectors)
    rows = measurements.rows[block]
    assert torch.einsum("rkd,rd->rk", rows, left).abs().max() < 1e-14
    removed = vectors - left
    spanned = torch.einsum("rkd,rk->rd", rows, torch.einsum("rkd,rd->rk", rows, removed))
    torch.testing.assert_close(spanned, removed, rtol=0, atol=1e-12)


def test_complement_of_a_vector_nearly_inside_the_rows() -> None:
    """One projection would leave a relative error of 1e-7 here; two leave none."""
    measurements, rows, _ = filled(Partition(3, 4, 6, None), [[0] * 20])
    inside = random(1, 20, seed=5) @ rows * 1e3
    vectors = inside + 1e-6 * random(1, 72, seed=6)
    left = measurements.complement(torch.zeros(1, dtype=torch.int64), vectors)
    assert (rows @ left[0]).abs().max() / left.norm() < 1e-12


def test_nothing_measured_yet() -> None:
    measurements = DenseRows(Partition(3, 4, 4, 2))
    signal = random(2, 3, 4, 4)
    assert len(measurements) == 0
    assert measurements.forward(signal).shape == (2, 4, 0)
    assert torch.equal(measurements.adjoint(measurements.forward(signal)), torch.zeros_like(signal))
    vectors = random(2, 12)
    assert torch.equal(measurements.complement(torch.tensor([0, 3]), vectors), vectors)


def test_rank_within() -> None:
    assert rank_within(torch.tensor([4, 7, 4, 4])).tolist() == [0, 0, 1, 2]
    assert rank_within(torch.tensor([], dtype=torch.int64)).tolist() == []
    blocks = torch.randint(0, 5, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    assert rank_within(torch.tensor(blocks)).tolist() == [blocks[:i].count(b) for i, b in enumerate(blocks)]


def test_coordinates_are_rows_of_their_transform() -> None:
    """Some coefficients of a transform, and the same rows in full, are the same measurements."""
    transform = BlockDCT(Partition(3, 8, 4, 4))
    some, rows = Coordinates(transform), DenseRows(transform.partition)
    block, number = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 5, 47, 30])
    values, variances = random(4, seed=1), random(4, seed=2).square()
    unit = torch.zeros(4, 2, 48, dtype=torch.float64)
    unit[torch.arange(4), block, number] = 1.0
    full = transform.partition.split(transform.inverse(unit))[torch.arange(4), block]
    for first, last in ((0, 1), (1, 4)):
        part = slice(first, last)
        some.append(block[part], number[part], values[part], variances[part])
        rows.append(block[part], full[part], values[part], variances[part])
    signal = random(2, 3, 8, 4, seed=3)
    assert len(some) == len(rows) == 4
    measured, dense = some.forward(signal), rows.forward(signal)
    assert int((measured != 0).sum()) == 8
    torch.testing.assert_close(some.adjoint(some.values[None]), rows.adjoint(rows.values[None]), rtol=0, atol=1e-4)
    torch.testing.assert_close(some.adjoint(measured), rows.adjoint(dense), rtol=0, atol=1e-4)
    found = some.along(some.split(signal)[0], block, number)
    torch.testing.assert_close(found, rows.along(rows.split(signal)[0], block, full), rtol=0, atol=1e-4)
    assert torch.equal(some.variances[block, number], variances)


def corrected(known: Measurements, signal: Tensor, gain: Gain) -> Tensor:
    moved = torch.full_like(signal, torch.nan)
    known.corrected(signal, gain, moved)
    return moved


@pytest.mark.parametrize("gain", [1.0, 1 / 3, "each"])
def test_a_correction_of_coordinates_is_what_it_says_to_the_last_bit(gain: float | str) -> None:
    transform = BlockDCT(Partition(3, 8, 4, 4))
    some = Coordinates(transform)
    some.append(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 5, 47, 30]), random(4, seed=1), random(4, seed=2).square())

    def gain_of(variances: Tensor) -> Tensor | float:
        return 1 / (1 + variances) if isinstance(gain, str) else gain

    signal = random(2, 3, 8, 4, seed=3)
    before = signal.clone(), some.values.clone()
    correction = some.adjoint((some.values - some.forward(signal)) * gain_of(some.variances))
    assert float(correction.abs().max()) > 0.1
    assert torch.equal(corrected(some, signal, gain_of), signal + correction)
    assert torch.equal(signal, before[0])
    assert torch.equal(some.values, before[1])


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_a_correction_takes_away_its_share_of_what_is_missing(gain: float) -> None:
    rows, _, _ = filled(Partition(3, 8, 8, 4), several(Partition(3, 8, 8, 4)))
    signal = random(2, 3, 8, 8, seed=3)
    missing = rows.values - rows.forward(signal)
    left = rows.values - rows.forward(corrected(rows, signal, lambda _: gain))
    torch.testing.assert_close(left, (1 - gain) * missing, rtol=0, atol=1e-12)
