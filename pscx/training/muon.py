"""Muon for convolutions, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

OF_BIASES, OF_OTHERS = 1 / 8, 1 / 2
"""Step sizes of AdamW for biases and for other weights, over that of Muon."""


class MuonAdamW(Optimizer):
    """``torch.optim.Muon`` (Jordan et al. 2024) on weights of two or more dimensions, AdamW on the others.

    A weight is taken as the matrix of its first dimension and all others flattened; Muon's step
    is scaled to the root mean square of AdamW's (Liu et al. 2025, Eq. 4), so one step size serves both. On a
    ``ResidualUNet`` it was worth 0.8 to 1.4 dB of denoising after five minutes
    (``benchmarks/results/2026-11-embedded-prior.md``).

    Muon's step is as long where the gradient is mostly noise as where it is not, and AdamW's is shorter there. Weights
    whose gradient is mostly noise are therefore better left to AdamW: with Muon such layers learnt to be silent.

    Args:
        params: parameters, each in memory of its own and dense in some order of its dimensions.
        learning_rate: step size, over 0.
        weight_decay: decoupled weight decay of Muon's weights, at least 0.
        noisy: those of ``params`` whose gradient is mostly noise.

    Raises:
        ValueError: a weight does not lie in memory with its first dimension outermost, or this torch has no Muon.
    """

    def __init__(
        self, params: Iterable[Tensor], learning_rate: float, weight_decay: float = 1e-2, noisy: Iterable[Tensor] = ()
    ) -> None:
        check_muon()
        params, apart = list(params), {id(p) for p in noisy}
        self.weights = [p for p in params if p.ndim > 1 and id(p) not in apart]
        biases = [p for p in params if p.ndim <= 1]
        others = [p for p in params if p.ndim > 1 and id(p) in apart]
        super().__init__([{"params": self.weights}, {"params": biases + others}], {"lr": learning_rate})
        self.matrices = [nn.Parameter(as_matrix(p.data, p.data)) for p in self.weights]
        if any(matrix.data_ptr() != p.data_ptr() for matrix, p in zip(self.matrices, self.weights, strict=True)):
            raise ValueError("every weight must be dense in memory, its first dimension outermost")
        self.muon = torch.optim.Muon(
            self.matrices, learning_rate, weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        groups = [{"params": biases, "share": OF_BIASES}, {"params": others, "share": OF_OTHERS}]
        self.adamw = torch.optim.AdamW(groups, learning_rate, betas=(0.95, 0.999), weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        for inner, group in zip((self.muon, self.adamw), self.param_groups, strict=True):
            for own in inner.param_groups:
                own["lr"] = group["lr"] * own.get("share", 1.0)
            inner.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"outer": super().state_dict(), "muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["outer"])
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def check_muon() -> None:
    """Raise ``ValueError`` where this torch has no Muon, which came with 2.9."""
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer muon needs torch 2.9 or later, this is {torch.__version__}; use adamw")


def as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """``(out, in, ...)`` as ``(out, rest)``, columns in the order in which ``like`` lies in memory.

    Of ``like`` itself it is a view over the same memory, whatever the memory format; an orthogonalisation does not
    care for the order of columns.
    """
    strides = like.stride()
    order = sorted(range(1, like.ndim), key=lambda axis: strides[axis], reverse=True)
    return tensor.permute(0, *order).flatten(1)
