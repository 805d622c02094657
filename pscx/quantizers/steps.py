"""Options that the quantizers with one step have in common."""

from __future__ import annotations

import torch


def rounded_step(step: float) -> float:
    """``step`` as the bfloat16 number that a stream carries. Raises ``ValueError`` unless that lies in (0, 1000)."""
    rounded = torch.tensor(step, dtype=torch.float64).to(torch.bfloat16).item()
    if not 0 < rounded < 1000:
        raise ValueError(f"quantizer.step must lie in (0, 1000) as a bfloat16 number, got {step}")
    return float(rounded)


def given(parameter: float | None, quantizer: str) -> float:
    """The parameter of the quantizer of this name, which needs one. Raises ``ValueError`` where there is none."""
    if parameter is None:
        raise ValueError(f"quantizer {quantizer} needs a parameter, its step, got none")
    return parameter


def half_alphabet(bits: int) -> int:
    """Symbols on either side of the mean, of ``2^bits - 1`` in all. Raises ``ValueError`` unless bits is in 2..24."""
    if not 2 <= bits <= 24:
        raise ValueError(f"quantizer.bits must lie in 2..24, got {bits}")
    return (1 << (bits - 1)) - 1
