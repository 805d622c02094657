"""The ranks of an evaluation: which of them share an image, and results gathered over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from pscx.config import ConfigError
from pscx.execution.sharding import Spread, gathered_states

T = TypeVar("T")


def check_ranks(wanted: int | str) -> None:
    """Raise ``ValueError`` for an invalid ``ranks_per_image``."""
    if wanted != "auto" and (isinstance(wanted, str) or wanted < 1):
        raise ValueError(f"ranks_per_image must be auto or at least 1, got {wanted}")


def ranks_per_image(wanted: int | str, world: int, images: int | None) -> int:
    """The number of ranks per image, of ``world`` ranks and ``images`` images (none for a stream of images).

    Raises ``ConfigError`` if they do not fit.
    """
    if wanted == "auto":
        fitting = [size for size in range(1, world + 1) if world % size == 0 and world // size <= (images or world)]
        return fitting[0] if fitting else world
    size = int(wanted)
    if world % size:
        raise ConfigError(f"ranks_per_image must divide the world size, {world}, got {size}")
    if images is not None and world // size > images:
        raise ConfigError(f"ranks_per_image must be larger, or auto: {images} images are too few for {world} processes")
    return size


def check_alike(names: Sequence[str] | None, world: int) -> None:
    """Raise ``ConfigError`` if ranks see different images: they would wait for ever, or repeat images."""
    if world == 1 or names is None:
        return
    seen: list[Sequence[str]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(seen, names)
    if any(other != seen[0] for other in seen):
        counts = ", ".join(str(len(other)) for other in seen)
        raise ConfigError(f"all processes must see the same images, but they see {counts} images that differ")


def gathered(own: Sequence[T], spread: Spread, world: int) -> list[T]:
    """The lists of the first rank of each image, concatenated, on all ranks.

    They are rows of tables and error sentences, so text, and sent as objects; tensors go through :func:`states_of`.
    """
    own = list(own) if spread.rank == 0 else []
    if world == 1:
        return own
    parts: list[list[T]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def states_of(own: Sequence[Mapping[str, Tensor]], world: int) -> list[list[dict[str, Tensor]]]:
    """What the metrics of a set have kept, of all ranks, exchanged as tensors."""
    return [[dict(part) for part in own]] if world == 1 else gathered_states(own)
