from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself
from torch import Tensor

from pscx.codecs import PSC
from pscx.coders import Posterior
from pscx.priors import Gaussian
from pscx.quantizers import Uniform
from pscx.restorations import Mean
from pscx.rows import DCT, PCA, Local, Proposal, Random, RowRule, Situation
from pscx.rows.block_transform import largest
from pscx.rows.dct import block_energy, leveled
from pscx.rows.filling import LARGEST_SEGMENT
from pscx.rows.local import klt
from pscx.rows.orthonormal import fix_signs, orthonormalize
from pscx.samplers import DDRM
from pscx.signal.measurements import Coordinates, DenseRows, Measurements
from pscx.signal.partition import Partition

PRIOR = Gaussian(correlation=0.8, color=0.5, deviation=0.5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigma_points(mean: Tensor, covariance: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Twice as many samples as numbers, whose mean and sample covariance are exactly these (Julier and Uhlmann)."""
    size = len(covariance)
    offsets = (size - 0.5) ** 0.5 * oracles.root(covariance)
    return (mean + torch.cat([offsets, -offsets])).reshape(2 * size, *shape)


def measured(partition: Partition, per_block: list[int], variance: float) -> DenseRows:
    """So many random orthonormal rows in each block, with random values and this noise variance."""
    bases = torch.linalg.qr(random(partition.count, partition.dim, partition.dim, seed=3)).Q
    block = torch.tensor([b for b, count in enumerate(per_block) for _ in range(count)], dtype=torch.int64)
    rank = torch.tensor([i for count in per_block for i in range(count)], dtype=torch.int64)
    measurements = DenseRows(partition)
    values = random(len(block), seed=4)
    measurements.append(block, bases[block, rank], values, torch.full_like(values, variance))
    return measurements


def situation(
    measurements: Measurements,
    samples: Tensor | None,
    iteration: int = 0,
    iterations: int = 1,
    resolution: float = 1e-6,
) -> Situation:
    return Situation(PRIOR, measurements, samples, iteration, iterations, resolution, PRIOR)


def is_fit(proposal: Proposal, measurements: DenseRows) -> None:
    """Shapes agree, rows lie in existing blocks, are orthonormal and orthogonal to what was measured before."""
    count = len(proposal.block)
    assert proposal.rows.shape == (count, measurements.partition.dim)
    assert proposal.variance.shape == (count,)
    assert (proposal.variance > 0).all()
    assert sum(proposal.groups) == count
    assert all(size > 0 for size in proposal.groups)
    assert ((proposal.block >= 0) & (proposal.block < measurements.partition.count)).all()
    for block in proposal.block.unique():
        rows = proposal.rows[proposal.block == block]
        both = torch.cat([measurements.rows[block, : measurements.counts[block]], rows])
        torch.testing.assert_close(both @ both.T, torch.eye(len(both), dtype=torch.float64), rtol=0, atol=1e-10)


def off(covariance: Tensor, rows: Tensor) -> Tensor:
    """The covariance of what these orthonormal rows do not see."""
    free = torch.eye(len(covariance), dtype=torch.float64) - rows.T @ rows
    return free @ covariance @ free


@pytest.mark.parametrize("variance", [0.0, 0.02])
def test_pca_of_the_exact_covariance_is_the_klt(variance: float) -> None:
    """Samples with exactly the posterior's covariance give its eigenvectors, up to sign, and its eigenvalues."""
    shape, covariance = (3, 4, 4), PRIOR.covariance(4, 4)
    measurements = measured(Partition(*shape, block=None), [5], variance)
    known = measurements.rows[0], measurements.values[0], measurements.variances[0]
    posterior = oracles.posterior(covariance, *known)
    samples = sigma_points(posterior.mean, posterior.covariance, shape)
    proposal = PCA(7).propose(situation(measurements, samples))
    spectrum, vectors = torch.linalg.eigh(off(posterior.covariance, known[0]))
    is_fit(proposal, measurements)
    torch.testing.assert_close(proposal.variance, spectrum.flip(0)[:7], rtol=1e-9, atol=0)
    likeness = (proposal.rows @ vectors.flip(1)[:, :7]).abs()
    torch.testing.assert_close(likeness, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-7)


def test_pca_of_few_samples_is_their_singular_vectors() -> None:
    samples = random(6, 3, 4, 4)
    proposal = PCA(3).propose(situation(DenseRows(Partition(3, 4, 4, None)), samples))
    centred = (samples - samples.mean(0)).flatten(1)
    values, vectors = torch.linalg.svd(centred, full_matrices=False)[1:]
    torch.testing.assert_close(proposal.variance, values[:3].square() / 5)
    torch.testing.assert_close((proposal.rows @ vectors[:3].T).abs(), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(("samples", "measured_rows", "count"), [(4, 0, 3), (60, 0, 12), (60, 40, 8), (60, 48, 0)])
def test_pca_proposes_no_more_than_the_samples_span(samples: int, measured_rows: int, count: int) -> None:
    measurements = measured(Partition(3, 4, 4, None), [measured_rows], 0.0)
    proposal = PCA(12).propose(situation(measurements, random(samples, 3, 4, 4)))
    is_fit(proposal, measurements)
    assert len(proposal.block) == count


@pytest.mark.parametrize("count", [1, 5])
def test_pca_of_samples_that_agree_is_empty(count: int) -> None:
    same = random(1, 3, 4, 4).expand(count, 3, 4, 4)
    proposal = PCA().propose(situation(DenseRows(Partition(3, 4, 4, None)), same))
    assert len(proposal.block) == 0
    assert proposal.groups == []


@pytest.mark.parametrize(("block", "candidates"), [(2, 100), (4, 10), (4, 48)])
def test_klt(block: int, candidates: int) -> None:
    """Orthonormal rows, largest variance first, that diagonalize the prior's covariance."""
    rows, spectrum = klt(PRIOR, block, candidates)
    count = min(candidates, 3 * block**2)
    assert rows.shape == (count, 3 * block**2)
    torch.testing.assert_close(rows @ rows.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows @ PRIOR.covariance(block, block) @ rows.T, torch.diag(spectrum))
    torch.testing.assert_close(spectrum, torch.linalg.eigvalsh(PRIOR.covariance(block, block)).flip(0)[:count])


PER_BLOCK = [0, 3, 1, 11, 12, 5]  # of 12 dimensions each


def conditional(measurements: DenseRows, block: int) -> Tensor:
    """Dense covariance of one block of the prior, given the rows of that block."""
    count = int(measurements.counts[block])
    rows, values, variances = (
        t[block, :count] for t in (measurements.rows, measurements.values, measurements.variances)
    )
    return oracles.posterior(PRIOR.covariance(2, 2), rows, values, variances).covariance


def spectra(covariances: list[Tensor], measurements: DenseRows) -> Tensor:
    """Variances along the best unmeasured directions of each block, ``(blocks, 12)``, largest first."""
    free = [off(c, measurements.rows[b]) for b, c in enumerate(covariances)]
    values: Tensor = torch.linalg.eigvalsh(torch.stack(free)).flip(1).clamp_min(0)
    return values


def follows(proposal: Proposal, covariances: list[Tensor], measurements: DenseRows) -> None:
    """Rows diagonalize the covariance of what is unmeasured in their block, with the variances that are stated."""
    for block in proposal.block.unique():
        mine = proposal.block == block
        free = off(covariances[block], measurements.rows[block])
        found = proposal.rows[mine] @ free @ proposal.rows[mine].T
        torch.testing.assert_close(found, torch.diag(proposal.variance[mine]), rtol=1e-6, atol=1e-10)


def all_rows(base: float = 0.5, floor: float = 0.0) -> Local:
    """A rule with small blocks that no limit holds back."""
    return Local(block=2, per_iteration=12, depth=12, base=base, floor=floor, growth=1.0)


@pytest.mark.parametrize("variance", [0.0, 1e-3, 0.05])
def test_local_conditions_the_prior_on_what_is_measured(variance: float) -> None:
    """Without samples: eigenvectors of each block's dense conditional covariance, largest of all blocks first taken."""
    measurements = measured(Partition(3, 4, 6, 2), PER_BLOCK, variance)
    covariances = [conditional(measurements, block) for block in range(6)]
    proposal = all_rows().propose(situation(measurements, None))
    is_fit(proposal, measurements)
    follows(proposal, covariances, measurements)
    wanted = spectra(covariances, measurements).flatten().sort(descending=True).values
    seen = proposal.variance.sort(descending=True).values
    real = int((wanted > 1e-9).sum())
    torch.testing.assert_close(seen[:real], wanted[:real], rtol=1e-6, atol=0)
    assert torch.bincount(proposal.block, minlength=6)[4] == 0


@pytest.mark.parametrize("base", [0.0, 0.3, 1.0])
def test_local_mixes_covariances_as_stated(base: float) -> None:
    """``(1 - base) S + base g B`` from sigma points of a Gaussian that is not the prior."""
    shape, partition = (3, 4, 6), Partition(3, 4, 6, 2)
    measurements = measured(partition, [0, 3, 1, 2, 0, 5], 0.01)
    half = random(72, 72, seed=8)
    truth = half @ half.T / 72
    samples = sigma_points(random(72), truth, shape)
    place = partition.split(torch.arange(72).reshape(1, *shape))[0]
    mixed = []
    for block in range(6):
        local = off(truth[place[block]][:, place[block]], measurements.rows[block])
        prior = conditional(measurements, block)
        mixed.append((1 - base) * local + base * local.trace() / prior.trace() * prior)
    proposal = all_rows(base).propose(situation(measurements, samples, iteration=1, iterations=2))
    is_fit(proposal, measurements)
    follows(proposal, mixed, measurements)
    assert len(proposal.block) == 72 - 11


@pytest.mark.parametrize("base", [0.2, 1.0])
def test_local_finds_the_leading_directions_of_larger_blocks(base: float) -> None:
    """Where a block has many more directions than are asked for: at least 98% of the best rows' variance."""
    partition = Partition(3, 4, 8, 4)
    measurements = measured(partition, [0, 12], 0.01)
    directions = torch.linalg.qr(random(96, 96, seed=8)).Q
    truth = directions @ torch.diag(0.8 ** torch.arange(96).double()) @ directions.T
    samples = sigma_points(random(96), truth, (3, 4, 8))
    proposal = Local(block=4, per_iteration=6, depth=6, base=base, floor=0.0, growth=1.0).propose(
        situation(measurements, samples, iteration=1, iterations=2)
    )
    is_fit(proposal, measurements)
    best = Local(block=4, per_iteration=48, depth=48, base=base, floor=0.0, growth=1.0).propose(
        situation(measurements, samples, iteration=1, iterations=2)
    )
    for block in range(2):
        found, wanted = (p.variance[p.block == block] for p in (proposal, best))
        assert len(found) == 6
        assert 0.98 * wanted[:6].sum() < found.sum() < wanted[:6].sum() * (1 + 1e-9)


def test_local_takes_the_largest_variances_of_all_blocks() -> None:
    """Reverse water-filling: no row that was left out has a larger variance than one that was taken."""
    measurements = measured(Partition(3, 4, 6, 2), PER_BLOCK, 0.01)
    wanted = spectra([conditional(measurements, block) for block in range(6)], measurements)
    proposal = Local(block=2, per_iteration=1.5, depth=12, floor=0.0, growth=1.0).propose(situation(measurements, None))
    assert len(proposal.block) == 9
    torch.testing.assert_close(
        proposal.variance.sort(descending=True).values, wanted.flatten().sort(descending=True).values[:9]
    )
    taken = torch.bincount(proposal.block, minlength=6)
    level = float(proposal.variance.min()) * (1 - 1e-9)
    assert torch.equal(taken, (wanted >= level).sum(1))


@pytest.mark.parametrize("depth", [1, 3])
def test_local_depth_bounds_every_block(depth: int) -> None:
    measurements = measured(Partition(3, 4, 6, 2), [0, 3, 1, 2, 0, 5], 0.01)
    rule = Local(block=2, per_iteration=12, depth=depth, floor=0.0, growth=1.0)
    proposal = rule.propose(situation(measurements, None))
    assert torch.bincount(proposal.block, minlength=6).tolist() == [depth] * 6


@pytest.mark.parametrize("resolution", [0.02, 0.1, 0.4])
def test_local_floor(resolution: float) -> None:
    """Exactly the rows whose predicted deviation is at least ``floor`` times the resolution."""
    measurements = measured(Partition(3, 4, 6, 2), PER_BLOCK, 0.001)
    proposal = all_rows(floor=0.7).propose(situation(measurements, None, resolution=resolution))
    wanted = spectra([conditional(measurements, block) for block in range(6)], measurements)
    limit = (0.7 * resolution) ** 2
    assert 0 < len(proposal.block) == int((wanted >= limit).sum())
    assert float(proposal.variance.min()) >= limit


@pytest.mark.parametrize("iteration", [0, 1, 2])
def test_local_quota_grows(iteration: int) -> None:
    """``per_iteration * growth^iteration`` rows a block, on average, rounded down; blocks all differ."""
    measurements = measured(Partition(3, 4, 6, 2), [1, 3, 2, 2, 4, 5], 0.01)
    rule = Local(block=2, per_iteration=1.2, depth=12, growth=1.5, floor=0.0)
    proposal = rule.propose(situation(measurements, None, iteration=iteration, iterations=3))
    assert len(proposal.block) == (7, 10, 16)[iteration]


def test_local_with_nothing_worth_measuring_is_empty() -> None:
    measurements = measured(Partition(3, 4, 6, 2), PER_BLOCK, 0.001)
    for proposal in (
        all_rows(floor=1.0).propose(situation(measurements, None, resolution=100.0)),
        all_rows().propose(situation(measured(Partition(3, 4, 6, 2), [12] * 6, 0.0), None)),
    ):
        is_fit(proposal, measurements)
        assert len(proposal.block) == 0
        assert proposal.groups == []


def test_local_needs_no_samples_at_first() -> None:
    assert [Local().needs_samples(i) for i in range(3)] == [False, True, True]
    assert [PCA().needs_samples(i) for i in range(2)] == [True, True]
    assert Local(block=8).start(PRIOR, (3, 16, 24)).partition == Partition(3, 16, 24, 8)
    assert PCA().start(PRIOR, (3, 16, 24)).partition == Partition(3, 16, 24, None)
    assert Local(block=8).stride == 8
    assert PCA().stride == 1


def coefficients(measurements: Coordinates, covariance: Tensor) -> Tensor:
    """Variances ``(blocks, dim)`` of the transform's coefficients of a signal with this covariance."""
    transform = measurements.transform
    count, dim = measurements.known.shape
    unit = torch.eye(count * dim, dtype=torch.float64).reshape(-1, count, dim)
    rows = transform.inverse(unit).flatten(1)
    return ((rows @ covariance) * rows).sum(1).reshape(count, dim)


def test_dct_begins_with_the_variances_of_the_prior() -> None:
    rule = DCT(block=4, per_iteration=5.0)
    measurements = rule.start(PRIOR, (3, 8, 8))
    proposal = rule.propose(situation(measurements, None))
    expected = coefficients(measurements, PRIOR.covariance(8, 8))[0]
    assert len(proposal.block) == 20
    for block in range(4):
        own = proposal.block == block
        torch.testing.assert_close(proposal.variance[own], expected.sort(descending=True).values[:5], rtol=2e-3, atol=0)
        assert set(proposal.rows[own].tolist()) == set(expected.topk(5).indices.tolist())


@pytest.mark.parametrize("neighbours", [0.0, 1.0])
def test_dct_follows_the_variances_of_the_samples(neighbours: float) -> None:
    """Samples with exactly a known covariance: what is proposed are the largest free coefficients of all blocks."""
    shape = (3, 8, 12)
    rule = DCT(block=4, per_iteration=4.0, base=0.0, neighbours=neighbours)
    measurements = rule.start(PRIOR, shape)
    for block, number in ((0, 0), (0, 7), (3, 16)):
        one = torch.tensor([1.0], dtype=torch.float64)
        measurements.append(torch.tensor([block]), torch.tensor([number]), one, one)
    weights = 0.2 + torch.rand(3 * 8 * 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = PRIOR.covariance(8, 12) * weights * weights[:, None]
    samples = sigma_points(torch.zeros(len(weights), dtype=torch.float64), covariance, shape)
    proposal = rule.propose(situation(measurements, samples, 1, 2))
    own, free = coefficients(measurements, covariance), ~measurements.known
    expected = torch.zeros_like(own)
    for block, number in free.nonzero().tolist():
        y, x = divmod(block, 3)
        total = weight = 0.0
        for other in range(6):
            dy, dx = abs(other // 3 - y), abs(other % 3 - x)
            if max(dy, dx) > 1 or not free[other, number]:
                continue
            share = 1.0 if other == block else neighbours * {1: 0.5, 2: 0.25}[dy + dx]
            total, weight = total + share * float(own[other, number]), weight + share
        expected[block, number] = total / weight
    found = torch.zeros_like(own)
    found[proposal.block, proposal.rows] = proposal.variance
    assert len(proposal.block) == int(4.0 * 1.6 * 6)
    torch.testing.assert_close(found[found > 0], expected[found > 0], rtol=1e-4, atol=1e-6)
    assert float(expected[found == 0].max()) <= float(found[found > 0].min()) * (1 + 1e-4)


@pytest.mark.parametrize("evenness", [0.0, 0.125, 0.375, 0.5, 0.75, 1.0])
def test_leveling_is_a_power_of_the_mean_energy_over_a_blocks_own(evenness: float) -> None:
    energy = torch.tensor([0.25, 1.0, 1.5, 4.0, 0.0, 5.25], dtype=torch.float64)
    expected = ((energy.mean() / energy) ** evenness).clamp(1 / 8, 8)
    torch.testing.assert_close(leveled(energy, evenness)[:4], expected[:4], rtol=1e-14, atol=0)
    assert float(leveled(energy, evenness)[4]) == (1 if evenness == 0 else pytest.approx(min(8.0, 8192.0**evenness)))


@pytest.mark.parametrize("digits", ["float32", "float64"])
@pytest.mark.parametrize("dim", [4, 768, 4096])
def test_the_largest_are_those_of_a_stable_sort(dim: int, digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all fit beside their places in one whole number or not; with many equal numbers, zeros among them."""
    numbers = random(50, dim, seed=dim).exp()
    numbers[random(50, dim, seed=1) < -0.5] = 0.0
    numbers[:, ::3] = (numbers[:, ::3] * 4).round() / 4
    numbers = numbers.float().double() if digits == "float32" else numbers
    before = numbers.clone()
    ordered, places = torch.sort(numbers, dim=1, descending=True, stable=True)
    if digits == "float32":
        monkeypatch.delattr(torch, "sort")  # it is slower
    for count in (1, 3, dim):
        found, at = largest(numbers, count)
        assert torch.equal(found, ordered[:, :count])
        assert torch.equal(at, places[:, :count])
    assert torch.equal(numbers, before)
    if digits == "float64":  # equal but for the bits that a place would take
        near = torch.tensor([[1.0, 1.0 + 2**-52, 1.0 + 2**-51]], dtype=torch.float64)
        assert largest(near, 3)[1].tolist() == [[2, 1, 0]]


def test_energies_are_sums_on_a_grid() -> None:
    variance = torch.rand(5, 768, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energy = block_energy(variance)
    torch.testing.assert_close(energy, variance.sum(1), rtol=0, atol=2.0**-13 + 1e-6)
    assert torch.equal(energy * 2**12, (energy * 2**12).round())


def test_dct_levels_what_the_samples_say() -> None:
    """Two blocks, one with four times the variance of the other: with evenness 1 they have nearly the same."""
    scale = torch.ones(1, 3, 8, 16, dtype=torch.float64)
    scale[..., 8:] = 2.0
    generator = torch.Generator().manual_seed(1)
    draws = torch.cat([PRIOR.draw(8, 16, generator) for _ in range(64)]) * scale
    found = []
    for evenness in (0.0, 0.5, 1.0):
        rule = DCT(block=8, per_iteration=30.0, base=0.0, neighbours=0.0, evenness=evenness, floor=0.0, depth=192)
        proposal = rule.propose(situation(rule.start(PRIOR, (3, 8, 16)), draws, 1, 8))
        largest = [float(proposal.variance[proposal.block == block].max()) for block in (0, 1)]
        found.append(largest[1] / largest[0])
    assert found[1] == pytest.approx(found[0] ** 0.5 * found[2] ** 0.5, rel=1e-3)
    assert found[0] > 3 > 1.4 > found[2]


@pytest.mark.parametrize("growth", [1.0, 1.6])
def test_a_quota_that_completes_takes_growing_shares_of_what_is_left(growth: float) -> None:
    rule = DCT(block=4, per_iteration=1.0, growth=growth, complete=0.5)
    at = [situation(rule.start(PRIOR, (3, 8, 8)), None, iteration, 6) for iteration in range(6)]
    assert [rule.quota.most(1000, 4, one) for one in at[:3]] == [int(4 * growth**k) for k in range(3)]
    left, taken = 1000, []
    for one in at[3:]:
        taken.append(rule.quota.most(left, 4, one))
        left -= taken[-1]
    assert left == 0
    assert taken[1] / taken[0] == pytest.approx(growth, rel=0.01)
    assert taken[2] / taken[1] == pytest.approx(growth, rel=0.01)
    assert rule.quota.most(1 << 40, 4, at[5]) == LARGEST_SEGMENT


def test_dct_leaves_nothing_that_matters_where_it_completes() -> None:
    image = PRIOR.draw(16, 16, torch.Generator().manual_seed(0))[0]
    counts, errors = [], []
    for complete in (0.0, 1.0, 0.3):
        rule = DCT(block=8, per_iteration=2.0, depth=4, floor=0.0, complete=complete)
        codec = PSC(PRIOR, DDRM(3), rule, Uniform(0.02), Posterior(), Mean(), samples=4, iterations=4)
        _, outcome = codec.encode(image)
        counts.append(outcome.account.segment_symbols)
        errors.append(float((codec.restore(outcome, (3, 16, 16)) - image).square().mean()))
    assert counts[0][:2] == counts[1][:2] == counts[2][:2]
    assert sum(counts[0]) < sum(counts[1]) < sum(counts[2])
    assert errors[0] > 4 * errors[1] > 4 * errors[2]


def test_dct_never_measures_a_coefficient_twice() -> None:
    rule = DCT(block=4, per_iteration=20.0, floor=0.0, depth=48)
    codec = PSC(PRIOR, DDRM(3), rule, Uniform(0.01), Posterior(), Mean(), samples=4, iterations=6)
    image = PRIOR.draw(8, 8, torch.Generator().manual_seed(0))[0]
    _, outcome = codec.encode(image)
    assert sum(outcome.account.segment_symbols) == len(outcome.measurements) == 3 * 64  # all of them in the end
    assert float((codec.restore(outcome, (3, 8, 8)) - image).square().mean()) < 2e-4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": 33}, "rows.block must lie in 2..32, got 33"),
        ({"growth": 0.0}, "rows.growth must be over 0, got 0.0"),
        ({"base": -0.1}, r"rows.base must lie in \[0, 1\], got -0.1"),
        ({"neighbours": 2.0}, r"rows.neighbours must lie in \[0, 1\], got 2.0"),
        ({"floor": -1.0}, "rows.floor must be at least 0, got -1.0"),
        ({"depth": 0}, "rows.depth must be at least 1, got 0"),
        ({"evenness": 0.3}, r"rows.evenness must lie in \[0, 1\] and be a multiple of 1/8, got 0.3"),
        ({"evenness": -0.125}, r"rows.evenness must lie in \[0, 1\] and be a multiple of 1/8, got -0.125"),
        ({"complete": 0.2}, "rows.complete must be 0 or at least rows.floor, 0.3, got 0.2"),
        ({"complete": -1.0}, "rows.complete must be at least 0, got -1.0"),
        ({"complete": float("inf")}, "rows.complete must be at least 0, got inf"),
    ],
)
def test_dct_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DCT(**options)


@pytest.mark.parametrize("block", [None, 4])
def test_random_rows_are_fit_and_know_their_variance(block: int | None) -> None:
    shape, rule = (3, 8, 8), Random(per_iteration=7, block=block)
    measurements = rule.start(PRIOR, shape)
    per_block = [3] * measurements.partition.count
    measurements = measured(measurements.partition, per_block, 0.1)
    covariance = PRIOR.covariance(8, 8)
    samples = sigma_points(torch.zeros(192, dtype=torch.float64), covariance, shape)
    proposal = rule.propose(situation(measurements, samples, 1, 2))
    is_fit(proposal, measurements)
    assert len(proposal.block) == 7 * measurements.partition.count
    spread = torch.zeros(len(proposal.block), measurements.partition.count, measurements.partition.dim).double()
    spread[torch.arange(len(spread)), proposal.block] = proposal.rows
    rows = measurements.partition.join(spread).flatten(1)
    torch.testing.assert_close(proposal.variance, ((rows @ covariance) * rows).sum(1))
    again = rule.propose(situation(measurements, samples, 2, 2))
    assert float((again.rows - proposal.rows).abs().max()) > 0.1
    other = Random(7, block, seed=1).propose(situation(measurements, samples, 1, 2))
    assert float((other.rows - proposal.rows).abs().max()) > 0.1


def test_random_stops_where_nothing_is_left() -> None:
    measurements = measured(Partition(3, 2, 2, None), [10], 0.0)
    proposal = Random(5).propose(situation(measurements, random(4, 3, 2, 2), 1, 2))
    is_fit(proposal, measurements)
    assert len(proposal.block) == 2


@pytest.mark.parametrize(("options", "sentence"), [({"per_iteration": 0}, "got 0"), ({"block": 1}, "got 1")])
def test_random_refuses(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Random(**options)


RULES = [PCA(5), PCA(20), Local(block=4, per_iteration=6), Local(block=4, per_iteration=30, floor=0.0, candidates=20)]


@pytest.mark.parametrize("rule", RULES, ids=["pca", "pca-all", "local", "local-all"])
def test_rows_stay_orthonormal_over_a_whole_run(rule: RowRule) -> None:
    """Eight iterations of the real loop, some until nothing is left to measure: ``H H^T = I`` to 1e-10."""
    codec = PSC(PRIOR, DDRM(3), rule, Uniform(0.01), Posterior(), Mean(), samples=24, iterations=8, batch=24)
    image = PRIOR.draw(4, 8, torch.Generator().manual_seed(0))[0]
    _, outcome = codec.encode(image)
    known = outcome.measurements
    assert isinstance(known, DenseRows)
    for block, count in enumerate(known.counts.tolist()):
        rows = known.rows[block, :count]
        torch.testing.assert_close(rows @ rows.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-10)
    assert len(known) > 30
    assert sum(outcome.account.segment_symbols) == len(known)


def test_orthonormalize_keeps_directions_in_order() -> None:
    vectors = random(2, 4, 9)
    rows = orthonormalize(vectors)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(4, dtype=torch.float64).expand(2, 4, 4), rtol=0, atol=1e-13)
    coordinates = vectors @ rows.mT
    torch.testing.assert_close(coordinates @ rows, vectors)
    torch.testing.assert_close(coordinates, coordinates.tril(), rtol=0, atol=1e-12)


def test_fix_signs() -> None:
    rows = torch.tensor([[1.0, -3.0, 2.0], [-1.0, 2.0, 4.0], [0.0, 0.0, -1.0]])
    assert fix_signs(rows).tolist() == [[-1.0, 3.0, -2.0], [-1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]
    assert torch.equal(fix_signs(-random(5, 7)), fix_signs(random(5, 7)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": 1}, "rows.block must lie in 2..32, got 1"),
        ({"per_iteration": 0.0}, "rows.per_iteration must be over 0, got 0.0"),
        ({"base": 1.1}, r"rows.base must lie in \[0, 1\], got 1.1"),
        ({"growth": 0.0}, "rows.growth must be over 0"),
        ({"floor": -0.1}, "rows.floor must be at least 0, got -0.1"),
        ({"depth": 0}, "rows.depth must be at least 1, got 0"),
        ({"candidates": 0}, "rows.candidates must be at least 1"),
    ],
)
def test_local_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Local(**options)


def test_pca_refuses() -> None:
    with pytest.raises(ValueError, match=r"rows\.per_iteration must be at least 1, got 0"):
        PCA(0)
