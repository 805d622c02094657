"""Linear algebra shared by row rules."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormalize(vectors: Tensor) -> Tensor:
    """Rows ``(..., r, dim)`` turned orthonormal in order (QR), each keeping its own direction as far as it can."""
    basis: Tensor = torch.linalg.qr(vectors.mT).Q
    return basis.mT


def fix_signs(rows: Tensor) -> Tensor:
    """Rows ``(..., r, dim)`` with the entry of largest magnitude made positive, so that both sides choose one sign."""
    largest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
    return rows * torch.where(largest < 0, -1.0, 1.0)


def eigen_work(size: int) -> float:
    """Multiply-adds, about, that take as long as the eigenvectors of a symmetric ``(size, size)`` matrix."""
    return 20.0 * size**3
