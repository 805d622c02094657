"""Metrics of a set against float64 transcriptions of their papers, with seeded features of bundled photographs."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load
from numpy.typing import NDArray
from pairs import coarse, jpeg
from seeded_features import SeededFeatures
from torch import Tensor, nn

from pscx.config import Checker, Layer, built
from pscx.errors import PscxError
from pscx.metrics import FID, KID, METRICS, SetMetric, SetState
from pscx.metrics.patches import patches

Pixels = NDArray[np.uint8]
NAMES = ("astronaut", "chelsea", "coffee", "hubble", "rocket")
HAS_FIDELITY = importlib.util.find_spec("torch_fidelity") is not None


def pictures() -> Iterator[tuple[str, Pixels, Pixels]]:
    for name in NAMES:
        yield name, load(name), jpeg(load(name), 20)


def features(index: int, side: int = 32) -> NDArray[np.float64]:
    """Of all patches of the originals (0) or of the others (1), cut by hand."""
    network, cut = SeededFeatures(), []
    for _, *both in pictures():
        picture = both[index]
        for shift in (0, side // 2):
            for y in range(shift, picture.shape[0] - side + 1, side):
                for x in range(shift, picture.shape[1] - side + 1, side):
                    cut.append(picture[y : y + side, x : x + side])
    found: NDArray[np.float64] = network(torch.from_numpy(np.stack(cut)).movedim(-1, 1)).double().numpy()
    return found


def fid(side: int = 32) -> FID:
    return FID(side=side, network=SeededFeatures())


def kid(**options: int) -> KID:
    sizes: dict[str, Any] = {"side": 32, "subset_size": 40, "subsets": 7, **options}
    return KID(**sizes, network=SeededFeatures())


def of(*metrics: SetMetric) -> dict[str, float]:
    state = SetState(metrics)
    for name, original, other in pictures():
        state.update(name, original, other)
    return state.compute()


def test_fid_written_out() -> None:
    """Heusel et al. 2017, Eq. 6."""
    a, b = features(0), features(1)
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = vectors * np.sqrt(values) @ vectors.T
    geometric = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root)).sum()  # the trace of (C_a C_b)^(1/2)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * geometric
    assert expected > 1e-3
    assert of(fid())["fid"] == pytest.approx(expected, rel=1e-5)


def unbiased(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Binkowski et al. 2018, Eq. 4, with the cubic kernel of section 3.1, one pair at a time."""
    n = len(a)

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = sum(kernel(x[i], x[j]) for x in (a, b) for i in range(n) for j in range(n) if i != j)
    return within / (n * (n - 1)) - 2 * sum(kernel(x, y) for x in a for y in b) / n**2


def test_kid_written_out_over_all_patches() -> None:
    """A subset of all patches is the set itself, whatever the draw."""
    a, b = features(0), features(1)
    metric = kid(subset_size=len(a), subsets=2)
    assert of(metric)["kid"] == pytest.approx(unbiased(a, b), rel=1e-4)


def test_kid_written_out_over_its_subsets() -> None:
    a, b = features(0), features(1)
    generator = torch.Generator().manual_seed(5)
    values = []
    for _ in range(3):
        first, second = (torch.randperm(len(a), generator=generator)[:20].numpy() for _ in range(2))
        values.append(unbiased(a[first], b[second]))
    assert of(kid(subset_size=20, subsets=3, seed=5))["kid"] == pytest.approx(np.mean(values), rel=1e-4)


def test_subsets_are_drawn_from_a_source_of_their_own() -> None:
    before = torch.random.get_rng_state()
    first = of(kid())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert of(kid()) == first
    assert of(kid(seed=1)) != first
    torch.random.set_rng_state(before)


def test_equal_sets_and_worse_ones() -> None:
    def value(change: Callable[[Pixels], Pixels]) -> dict[str, float]:
        state = SetState([fid(), kid(subset_size=80)])
        for name, original, _ in pictures():
            state.update(name, original, change(original))
        return state.compute()

    same = value(lambda picture: picture)
    assert same["fid"] == pytest.approx(0, abs=1e-8)
    assert same["kid"] < 0  # unbiased for two draws of one distribution, not for a set and itself
    found = [same, *(value(partial(jpeg, quality=quality)) for quality in (40, 10, 3))]
    for name in ("fid", "kid"):
        values = [scores[name] for scores in found]
        assert values == sorted(values)
        assert len(set(values)) == 4


def test_neither_order_nor_process_matters() -> None:
    """Bit for bit: what two processes kept, a picture seen by both, another order."""
    metrics = [fid(), kid()]
    whole = of(*metrics)
    halves = [SetState(metrics), SetState(metrics)]
    for index, (name, original, other) in enumerate(reversed(list(pictures()))):
        halves[index % 2].update(name, original, other)
    halves[0].update("rocket", load("rocket"), jpeg(load("rocket"), 20))  # what a sampler repeats to fill a batch
    halves[1].update("rocket", load("rocket"), jpeg(load("rocket"), 20))
    gathered = SetState(metrics)
    for half in halves:
        gathered.merge(half.state())
    assert gathered.compute() == whole


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    metrics = [fid(), kid()]
    first, second = SetState(metrics), SetState(metrics)
    everything = list(pictures())
    for name, original, other in everything[:2]:
        first.update(name, original, other)
    torch.save(first.state(), tmp_path / "state.pt")
    second.merge(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, original, other in everything:
        second.update(name, original, other)
    assert second.compute() == of(*metrics)


def test_torchmetrics_gathers_nothing_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was gathered is of all processes: to add the others' again would count it twice, or wait for ever."""
    expected = of(fid(), kid())
    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert of(fid(), kid()) == expected


class Counted(SeededFeatures):
    """Counts its calls; the count is of all of its kind."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return super().forward(x)


def test_features_are_made_once_for_both() -> None:
    Counted.calls = 0
    both = FID(32, network=Counted()), KID(32, network=Counted(), subset_size=40, subsets=2)
    assert both[0].shared == both[1].shared != FID(64, network=Counted()).shared
    assert both[0].shared != FID(32, network=Counted(seed=1)).shared
    state = SetState(both)
    state.update("rocket", load("rocket"), jpeg(load("rocket"), 20))
    assert Counted.calls == 2  # 18 patches of either picture, in batches of 32
    state.update("rocket", load("rocket"), jpeg(load("rocket"), 20))
    assert Counted.calls == 2  # a picture that is there is not looked at again
    assert len(state.state()) == 1


def test_states_of_other_metrics() -> None:
    with pytest.raises(ValueError, match="a state of the same metrics has 1 parts, got 2"):
        SetState([fid()]).merge([{}, {}])


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(255, 900, 0), (256, 256, 1), (383, 511, 1), (384, 384, 2), (384, 383, 1), (512, 768, 8), (900, 300, 3)],
)
def test_patches_of_hific(height: int, width: int, count: int) -> None:
    """By counting: 512x768 has a grid of 2x3, and one shifted by 128 of 1x2."""
    assert patches(np.zeros((height, width, 3), np.uint8), 256).shape == (count, 3, 256, 256)


def test_where_patches_lie(astronaut: Pixels) -> None:
    cut = patches(astronaut, 64)
    places = [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)]
    for patch, (y, x) in zip(cut, places, strict=True):
        assert np.array_equal(patch.movedim(0, -1).numpy(), astronaut[y : y + 64, x : x + 64])


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (fid(128), "fid needs at least 2 patches of 128x128 pixels, got 1: give it more or larger pictures"),
        (kid(side=64, subset_size=1000), "kid needs at least 1000 patches of 64x64 pixels, got 8"),
        (fid(256), "fid needs at least 2 patches of 256x256 pixels, got 0"),
    ],
)
def test_too_few_patches(metric: FID | KID, says: str) -> None:
    state = SetState([metric])
    for name in ("astronaut", "rocket"):
        state.update(name, load(name), load(name))
    with pytest.raises(PscxError, match=re.escape(says)):
        state.compute()


def test_smaller_pictures_count_for_nothing() -> None:
    state = SetState([fid(96)])
    for name, original, other in pictures():
        state.update(name, original, other)
    whole = state.compute()
    state.update("small", load("rocket")[:95], load("rocket")[:95])
    assert state.compute() == whole
    assert whole["fid"] > 0


class Scripted(nn.Module):
    """As StyleGAN's Inception: classes, or features where they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(SeededFeatures().weight)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        y = nn.functional.conv2d(x.float() / 255, self.weight, stride=8)
        if return_features:
            return torch.cat([y.mean((2, 3)), y.std((2, 3))], 1)
        return y[:, :1].mean((2, 3))


class ScriptedPlain(nn.Module):
    """A TorchScript that knows no such option."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3))


def scripted(module: nn.Module, file: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(file))
    return str(file)


def test_a_torchscript(tmp_path: Path) -> None:
    weights = scripted(Scripted(), tmp_path / "inception-2015-12-05.pt")
    metrics = FID(32, weights), KID(32, weights, subset_size=40, subsets=7)
    for metric in metrics:
        metric.prepare()
        assert list(metric.digests()) == [f"{tmp_path.name}/inception-2015-12-05.pt"]
    assert metrics[0].shared == metrics[1].shared
    assert of(*metrics) == pytest.approx(of(fid(), kid()), rel=1e-5)


def test_a_torchscript_of_features_alone(tmp_path: Path, rocket: Pixels) -> None:
    kept = FID(32, scripted(ScriptedPlain(), tmp_path / "plain.pt")).keep(rocket, coarse(rocket))
    assert kept.shape == (2, 12 + 6, 3)


@pytest.mark.skipif(HAS_FIDELITY, reason="torch-fidelity is installed")
def test_no_network_is_one_sentence(tmp_path: Path, rocket: Pixels) -> None:
    says = "fid needs a network for its features: install torch-fidelity, or name with the option weights a TorchScript"
    torch.save({}, tmp_path / "state.pth")
    for metric in (FID(), FID(weights=str(tmp_path / "state.pth"))):
        with pytest.raises(PscxError, match=says):
            metric.prepare()
    with pytest.raises(PscxError, match=r"kid: no such file of weights: 'nowhere\.pt'"):
        KID(32, "nowhere.pt").keep(rocket, rocket)


def test_a_network_of_another_shape(rocket: Pixels) -> None:
    with pytest.raises(PscxError, match=r"fid: the network must make features \(n, numbers\), got \(36, 3, 32, 32\)"):
        FID(32, network=nn.Identity()).keep(rocket, rocket)


def test_digest_of_a_network() -> None:
    (name,), (digest,) = fid().digests().keys(), fid().digests().values()
    assert name == "seeded_features.SeededFeatures"
    assert digest == fid().digests()[name] != FID(network=SeededFeatures(seed=1)).digests()[name]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"side": 8}, "side must be at least 16 pixels, got 8"),
        ({"weights": "x", "network": SeededFeatures()}, "give weights or a network, not both"),
        ({"subset_size": 1}, "subset_size must be at least 2 and subsets at least 1, got subset_size 1 and subsets 1"),
        ({"subsets": 0}, "got subset_size 1000 and subsets 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        KID(**options)


def test_from_yaml() -> None:
    checker = Checker([Layer("x.yaml", {})])
    network = {"name": "seeded_features.SeededFeatures", "features": 3}
    metric = built(checker.component(METRICS, {"name": "fid", "side": 32, "network": network}, "model.metrics"))
    assert metric.keep(load("rocket"), load("rocket")).shape == (2, 18, 6)
    made: Any = METRICS.get("kid")
    assert isinstance(made(side=64, subset_size=50), SetMetric)
