"""What the passes of :class:`pscx.training.FitLatent` keep of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pscx.rows.statistics import Moments
from pscx.signal.distributions import Array
from pscx.training.fitting import Edges
from pscx.training.over_images import arrays_file, read_arrays


def moments_file(found: Moments, key: str) -> bytes:
    """The content of a file of moments."""
    arrays = {"mean": found.mean.numpy(), "products": found.products.numpy()}
    return arrays_file(key, blocks=np.array(found.blocks), **arrays)


def read_moments(file: Path, key: str | None = None) -> Moments | None:
    """What :func:`moments_file` holds; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("blocks", "mean", "products"))
    if arrays is None:
        return None
    blocks, mean, products = arrays
    return Moments(int(blocks), torch.from_numpy(mean), torch.from_numpy(products))


def edges_file(found: list[Edges], key: str) -> bytes:
    """The content of a file with the edges of the symbols' cells, by segment."""
    low, high = (np.concatenate([np.zeros(0), *(edges[side] for edges in found)]) for side in (0, 1))
    return arrays_file(key, sizes=np.array([len(edges[0]) for edges in found], np.int64), low=low, high=high)


def read_edges(file: Path, key: str | None = None) -> list[Edges] | None:
    """What :func:`edges_file` holds; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("sizes", "low", "high"))
    if arrays is None:
        return None
    sizes, low, high = arrays
    ends = np.cumsum(sizes)[:-1]
    return [*zip(np.split(low, ends), np.split(high, ends), strict=True)]


def joined(images: list[list[Edges]]) -> list[Edges]:
    """Edges of all images, by segment."""
    count = max(len(image) for image in images)
    parts = [[image[segment] for image in images if segment < len(image)] for segment in range(count)]
    low, high = ([np.concatenate([edges[side] for edges in segment]) for segment in parts] for side in (0, 1))
    return [*zip(low, high, strict=True)]


def costs_file(bits: Array, errors: Array, key: str) -> bytes:
    """The content of a file with bits and mean squared errors, ``(codecs, steps)`` each."""
    return arrays_file(key, costs=np.stack([bits, errors], 2))


def read_costs(file: Path, key: str | None = None) -> Array | None:
    """Bits and errors, ``(codecs, steps, 2)``; none where there is no such file, it is damaged or has another key."""
    arrays = read_arrays(file, key, ("costs",))
    return None if arrays is None else arrays[0]
