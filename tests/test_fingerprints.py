"""Fingerprints are hashed once, and never stale: whatever changes weights, and however, is seen."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import EXACT, psc_of, save_prior, write_codec
from tiny_latent import save_stable_diffusion
from torch import Tensor, nn

import pscx.priors.fingerprints
from pscx import load_codec, stream_info
from pscx.priors import DDPM, StableDiffusion
from pscx.priors.base import digest
from pscx.priors.fingerprints import Fingerprint

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_prior(tmp_path_factory.mktemp("prior"), 1)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each hash of weights that is made from now on, the number of tensors."""
    made: list[int] = []

    def counted(*tensors: Tensor) -> bytes:
        if sum(tensor.numel() for tensor in tensors) > 100:
            made.append(len(tensors))
        return digest(*tensors)

    monkeypatch.setattr(pscx.priors.fingerprints, "digest", counted)
    return made


def doubled(weight: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(2)


def doubled_in_inference_mode(weight: Tensor) -> None:
    with torch.inference_mode():
        weight.mul_(2)


def swapped(weight: Tensor) -> None:
    """The same sum of all bits, in another order."""
    weight.copy_(weight.flip(0))


def of_numpy(weight: Tensor) -> None:
    weight.numpy()[:] += 1


CHANGES: dict[str, Callable[[Tensor], object]] = {
    "in place": doubled,
    "in inference mode": doubled_in_inference_mode,
    "in another order": swapped,
    "through .data": lambda weight: weight.data.mul_(2),
    "through .detach()": lambda weight: weight.detach().mul_(2),
    "through numpy": of_numpy,
    "other memory": lambda weight: setattr(weight, "data", weight.data * 2),
    "another dtype": lambda weight: setattr(weight, "data", weight.data.double()),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("parameter", [True, False])
def test_every_change_of_a_weight_is_seen(name: str, parameter: bool) -> None:
    weight: Tensor = torch.arange(64.0).reshape(8, 8)
    weight = nn.Parameter(weight, requires_grad=False) if parameter else weight
    fingerprint, others = Fingerprint(), [torch.tensor(1.0)]
    first = fingerprint.of([weight], others)
    assert first == fingerprint.of([weight], others) == digest(weight, *others)
    CHANGES[name](weight)
    assert fingerprint.of([weight], others) == digest(weight, *others) != first
    assert fingerprint.of([weight], [torch.tensor(2.0)]) == digest(weight, torch.tensor(2.0))


def test_weights_that_went_through_half_precision_are_others() -> None:
    """They often come back to the memory they had, of the same shape and dtype, as new tensors without a change."""
    layer = nn.Linear(64, 64).requires_grad_(False)
    layer.register_buffer("more", torch.rand(64, 64))
    fingerprint = Fingerprint()
    for _ in range(20):
        layer.weight.data = torch.rand(64, 64)
        layer.more = torch.rand(64, 64)
        tensors = list(layer.state_dict().values())
        first = fingerprint.of(tensors)
        del tensors
        layer.half().float()
        tensors = list(layer.state_dict().values())
        assert fingerprint.of(tensors) == digest(*tensors) != first


def test_memory_that_is_given_out_again_is_not_taken_for_what_it_was() -> None:
    """Two tensors with the same sum of bits and no change, one after the other in the same place."""
    fingerprint, places = Fingerprint(), set()
    ascending, descending = np.arange(4096, dtype=np.float32), np.arange(4096, dtype=np.float32)[::-1].copy()
    for _ in range(10):
        for values in (ascending, descending):
            tensor = torch.empty(4096)
            tensor.numpy()[:] = values
            places.add(tensor.data_ptr())
            assert fingerprint.of([tensor]) == digest(tensor)
            del tensor
    assert len(places) < 20  # memory was indeed given out again


def test_no_memory_is_held() -> None:
    from torch.multiprocessing.reductions import StorageWeakRef

    tensor, fingerprint = torch.rand(1000), Fingerprint()
    fingerprint.of([tensor])
    memory = StorageWeakRef(tensor.untyped_storage())
    del tensor
    gc.collect()
    assert memory.expired()


@pytest.mark.parametrize("make", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_a_fingerprint_of_its_own(make: Callable[[DDPM], DDPM], folder: str) -> None:
    prior = DDPM(folder)
    first = prior.fingerprint()
    other = make(prior)
    assert other.fingerprint() == first
    doubled(next(other.denoiser.network.parameters()))
    assert other.fingerprint() != first == prior.fingerprint()


def test_inference_tensors_are_hashed_each_time(hashes: list[int]) -> None:
    with torch.inference_mode():
        weight = torch.rand(200)
    fingerprint = Fingerprint()
    assert fingerprint.of([weight]) == fingerprint.of([weight]) == digest(weight)
    assert len(hashes) == 2


@pytest.mark.parametrize("exact", [True, False])
def test_a_codec_hashes_the_weights_once(
    exact: bool, folder: str, astronaut: Pixels, tmp_path: Path, hashes: list[int]
) -> None:
    text = EXACT.format(path=folder).replace("exact: true", f"exact: {str(exact).lower()}")
    codec = load_codec(write_codec(tmp_path, text))
    for size in (16, 24, 32):
        codec.decompress(codec.compress(astronaut[:size, :size]))
    assert len(hashes) == 1


def test_a_captioned_prior_shares_the_hash(tmp_path: Path, hashes: list[int]) -> None:
    prior = StableDiffusion(save_stable_diffusion(tmp_path / "prior"))
    first = prior.fingerprint()
    assert prior.conditioned("cat").fingerprint() == first
    assert len(hashes) == 1
    prior.vae.double()
    assert prior.fingerprint() != first
    assert len(hashes) == 2


def test_a_stream_names_the_weights_that_made_it(folder: str, astronaut: Pixels, tmp_path: Path) -> None:
    """Also where they were changed or converted when the codec was there already; and it finds its prior again."""
    text = EXACT.format(path=folder).replace("exact: true", "exact: false")
    codec = load_codec(write_codec(tmp_path, text))
    prior = psc_of(codec).prior
    assert isinstance(prior, DDPM)
    prints = set()
    for change in (lambda: None, lambda: doubled(prior.denoiser.network.tail.weight), lambda: prior.bfloat16()):
        change()
        data = codec.compress(astronaut[:16, :16])
        assert stream_info(data)["fingerprint"] == prior.fingerprint().hex()
        assert codec.decompress(data).shape == (16, 16, 3)
        prints.add(prior.fingerprint())
    assert len(prints) == 3
