"""Posterior samples of one image, spread over the processes of a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from pscx.priors.base import Prior
from pscx.runtime.returned import returned
from pscx.samplers.base import Problem, Sampler

T = TypeVar("T")
LARGE = 3 << 18  # numbers of all samples of a micro-batch under an exact prior, unless one sample has more


@dataclass(frozen=True)
class Spread:
    """Processes that work on one image together: each draws some of the micro-batches, and every one gets them all.

    A process alone is a group of one.

    Args:
        rank: of this process in its group, from 0.
        size: number of processes in the group.
        group: their process group, of a backend for the CPU; or none for a process alone.
        tensors: the process group that tensors go through, if it is another one: NCCL's where GPUs are used.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    tensors: Any = None

    def draw(self, sampler: Sampler, problem: Problem, indices: range, batch: int) -> Tensor:
        """Draws ``indices`` of the posterior, ``(len(indices), *shape)``: micro-batch ``i`` by rank ``i % size``.

        A micro-batch has at most ``batch`` draws. Under an exact prior, whose answers do not depend on the batch, it is
        shrunk so that every rank gets one, and so that large samples take less memory.
        """
        done, draws = 0, torch.empty(0)
        for part in self.draws(sampler, problem, indices, batch):
            if len(part) == len(indices):
                return part
            if not done:
                draws = torch.empty(len(indices), *problem.shape, dtype=torch.float64, device=problem.device)
            draws[done : done + len(part)] = part
            done += len(part)
            del part  # before the next is drawn
        return draws

    def draws(self, sampler: Sampler, problem: Problem, indices: range, batch: int) -> Iterator[Tensor]:
        """The micro-batches of :meth:`draw` in their order; a process alone draws each when it is asked for."""
        if problem.prior.exact:
            batch = min(micro_batch(problem.prior, problem.shape, batch), -(-len(indices) // self.size))
        starts = range(indices.start, indices.stop, batch)
        spans = {start: range(start, min(start + batch, indices.stop)) for start in starts}
        if self.size == 1:
            for span in spans.values():
                yield drawn(sampler, problem, span)
            return
        own = [drawn(sampler, problem, spans[start]) for start in starts[self.rank :: self.size]]
        mine = torch.cat([torch.empty(0, *problem.shape, dtype=torch.float64, device=problem.device), *own])
        del own
        shares = [iter(torch.split(share, batch)) for share in gathered_tensors(mine, self.tensors or self.group)]
        yield from (next(shares[number % self.size]) for number in range(len(spans)))

    def total(self, count: int) -> int:
        """The sum of a count over the group."""
        if self.size == 1:
            return count
        total = torch.tensor(count)
        distributed.all_reduce(total, group=self.group)
        return int(total)

    def first(self, own: T) -> T:
        """What the first process of the group has: the others take that, whatever they have themselves."""
        if self.size == 1:
            return own
        box = [own if self.rank == 0 else None]
        distributed.broadcast_object_list(box, src=distributed.get_global_rank(self.group, 0), group=self.group)
        return cast("T", box[0])


ALONE = Spread()


def drawn(sampler: Sampler, problem: Problem, indices: range) -> Tensor:
    """Draws ``indices`` of a sampler. Raises :class:`pscx.errors.PscxError` if they are not what its contract says."""
    return returned(sampler, "sample", sampler.sample(problem, indices), (len(indices), *problem.shape), problem.device)


def gathered_tensors(own: Tensor, group: Any = None) -> list[Tensor]:
    """The tensors ``(n, ...)`` of all processes of a group, by rank, on the device of ``own``.

    They may differ in ``n`` alone. Their numbers are exchanged first, then the tensors, padded to the longest. NCCL is
    given them on the GPU, those of the CPU too; other backends are given them on the CPU.
    """
    on_gpus = distributed.get_backend(group) == "nccl"
    gpu = own.device if own.is_cuda or not on_gpus else torch.device("cuda", torch.cuda.current_device())
    place = gpu if on_gpus else torch.device("cpu")
    count = torch.tensor([len(own)], device=place)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(counts, count, group=group)
    sizes = [int(size) for size in torch.cat(counts).tolist()]
    padded = torch.zeros(max(sizes), *own.shape[1:], dtype=own.dtype, device=place)
    padded[: len(own)] = own.to(place)
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded, group=group)
    return [part[:size].to(own.device) for part, size in zip(parts, sizes, strict=True)]


def gathered_states(own: Sequence[Mapping[str, Tensor]], group: Any = None) -> list[list[dict[str, Tensor]]]:
    """The tensors by name that all processes of a group keep, by rank; each has equally many mappings.

    Names, shapes and dtypes are text, and sent as objects. All bytes of a process are one tensor.
    """
    told = [[(name, part.dtype, part.shape) for name, part in state.items()] for state in own]
    layouts: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(layouts, told, group=group)
    parts = [part.contiguous().flatten().view(torch.uint8) for state in own for part in state.values()]
    flat = torch.cat([torch.zeros(0, dtype=torch.uint8), *parts])
    found = []
    for layout, numbers in zip(layouts, gathered_tensors(flat, group), strict=True):
        sizes = [dtype.itemsize * shape.numel() for state in layout for _, dtype, shape in state]
        whole = iter(torch.split(numbers, sizes))
        found.append(
            [{name: next(whole).clone().view(dtype).view(shape) for name, dtype, shape in state} for state in layout]
        )
    return found


def micro_batch(prior: Prior, shape: tuple[int, ...], batch: int) -> int:
    """How many draws of this shape are made at once where ``batch`` were asked for."""
    return min(batch, max(1, LARGE // prod(shape))) if prior.exact else batch


def spread_over(world: int, rank: int, ranks_per_image: int) -> Spread:
    """The group of process ``rank`` of ``world``, where ``ranks_per_image`` neighbours share an image.

    All processes must call this together. ``world`` must be a multiple of ``ranks_per_image``.
    """
    if ranks_per_image == 1:
        return ALONE
    members = [list(range(first, first + ranks_per_image)) for first in range(0, world, ranks_per_image)]
    own = rank // ranks_per_image
    groups = [distributed.new_group(ranks, backend="gloo") for ranks in members]  # every process makes every group
    on_gpus = distributed.get_backend() == "nccl"
    tensors = [distributed.new_group(ranks, backend="nccl") for ranks in members] if on_gpus else []
    return Spread(rank % ranks_per_image, ranks_per_image, groups[own], tensors[own] if tensors else None)
