"""Accelerators of this machine, and what is said where a run leaves one idle."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from pscx.config import Layer


def accelerator() -> str | None:
    """What torch calls the accelerator of this machine, ``cuda`` or ``mps`` for instance; none where there is none."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    current = getattr(torch, "accelerator", None)  # from torch 2.6 on
    if current is None or not current.is_available():
        return None
    return str(current.current_accelerator().type)


@rank_zero_only
def tell_of_idle_accelerator(layers: Iterable[Layer]) -> None:
    """Say on stderr, once for all processes, that a run is on the CPU by default though there is an accelerator.

    Where one of ``layers`` names the accelerator, nothing is said.
    """
    trainers = [layer.values.get("trainer") for layer in layers]
    if any(isinstance(trainer, Mapping) and "accelerator" in trainer for trainer in trainers):
        return
    if (found := accelerator()) is not None:
        print(
            f"pscx: this runs on the CPU although there is an accelerator ({found}): not all codecs run on one yet, "
            "--trainer.accelerator auto tries it",
            file=sys.stderr,
        )
