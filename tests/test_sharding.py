"""Tensors of several processes, gathered as tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import sys
import torch
from torch import distributed
from pscx.execution import sharding
from pscx.samplers.base import Problem, Sampler

rank, meeting = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
spread = sharding.spread_over(2, rank, 2)

def pickled(*args, **options):
    raise AssertionError("samples are pickled")

distributed.all_gather_object = pickled


class Counted(Sampler):
    def sample(self, problem, indices):
        drawn.extend(indices)
        return torch.stack([torch.full(problem.shape, index + 0.125, dtype=torch.float64) for index in indices])


class Floating:
    exact = False


class Nothing:
    device = torch.device("cpu")


for count, batch in ((5, 2), (1, 4), (8, 3), (2, 1)):
    drawn = []
    problem = Problem(Floating(), Nothing(), None, 0, (2, 3))
    found = spread.draw(Counted(), problem, range(10, 10 + count), batch)
    assert found.shape == (count, 2, 3), found.shape
    assert found[:, 1, 2].tolist() == [index + 0.125 for index in range(10, 10 + count)], found
    starts = range(10, 10 + count, batch)[rank::2]
    assert drawn == [i for start in starts for i in range(start, min(start + batch, 10 + count))], drawn
own = torch.arange(3 * rank, dtype=torch.int64).reshape(-1, 3)
assert [part.tolist() for part in sharding.gathered_tensors(own)] == [[], [[0, 1, 2]]]
assert spread.total(3 + rank) == 7
distributed.destroy_process_group()
"""
STATES = """
import sys
import torch
from torch import distributed
from pscx.evaluation.ranks import states_of

rank, meeting = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
plain = distributed.all_gather_object

def without_tensors(parts, own, group=None):
    leaves = torch.utils._pytree.tree_leaves(own)
    assert not any(isinstance(leaf, torch.Tensor) for leaf in leaves), "tensors are pickled"
    plain(parts, own, group=group)

distributed.all_gather_object = without_tensors


def kept(rank):
    generator = torch.Generator().manual_seed(rank)
    features = {f"{rank}-{i}": torch.randn(2, i, 5, generator=generator) for i in range(3 * rank)}
    features["turned"] = torch.randn(4, 3, generator=generator).T
    counts = {"odd": torch.tensor([True, False, True]), "sum": torch.tensor(7.5 + rank, dtype=torch.float64)}
    return [features, {}, {**counts, "few": torch.tensor([rank, 300], dtype=torch.int16)}]


for found, expected in zip(states_of(kept(rank), 2), map(kept, (0, 1)), strict=True):
    for state, own in zip(found, expected, strict=True):
        assert list(state) == list(own)
        for name, tensor in own.items():
            assert state[name].dtype == tensor.dtype, name
            assert torch.equal(state[name], tensor), name
assert states_of([{}], 2) == [[{}], [{}]]
distributed.destroy_process_group()
"""


@pytest.mark.usefixtures("meeting_point")
@pytest.mark.parametrize("program", [RANK, STATES], ids=["samples", "metrics"])
def test_two_processes_exchange_tensors(program: str, tmp_path: Path) -> None:
    """Over gloo; a process may have none, and none is pickled.

    All samples come in order, and each is drawn once. What metrics keep comes back under its name, in any shape.
    """
    command = [sys.executable, "-c", program]
    runs = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for run in runs:
        _, complaint = run.communicate(timeout=120)
        assert run.returncode == 0, complaint
