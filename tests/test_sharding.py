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
distributed.destroy_process_group()
"""


@pytest.mark.usefixtures("meeting_point")
def test_two_processes_have_all_samples_in_order_and_draw_each_once(tmp_path: Path) -> None:
    """Over gloo; a process may have none. No sample is drawn twice, and none is pickled."""
    command = [sys.executable, "-c", RANK]
    runs = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for run in runs:
        _, complaint = run.communicate(timeout=120)
        assert run.returncode == 0, complaint
