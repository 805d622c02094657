"""Exact forms of the layers of CLIP's text encoders (Radford et al. 2021) in transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import activations
from transformers.models.clip import modeling_clip

from pscx.exact.attention import apart, attend
from pscx.exact.forms import FORMS, FRAMES, Precision, nothing
from pscx.exact.gated import ExactQuickGELU
from pscx.exact.gelu import ExactGELU

ATTENTION = ("CLIPAttention", "CLIPSdpaAttention")
TEXT = (
    *("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPTextTransformer"),
    *("CLIPTextEmbeddings", "CLIPEncoder", "CLIPEncoderLayer", "CLIPMLP"),
)
"""Modules of a text encoder: between their layers they do sums of two and choose tokens. Not all versions have all."""


class ExactCausalAttention(nn.Module):
    """Self-attention of a CLIP text encoder on integers, as :class:`pscx.exact.ExactAttention`.

    A token sees itself and those before it.

    Args:
        layer: the layer that this one stands for.
        linear: makes the exact form of a projection.
    """

    def __init__(self, layer: Any, linear: Callable[[nn.Linear], nn.Module]) -> None:
        super().__init__()
        self.heads = int(layer.num_heads)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            linear(part) for part in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)
        )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        causal_attention_mask: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """``(batch, tokens, channels)`` float32, and no weights.

        Raises ``ValueError`` for a mask that hides anything but later tokens. What else the layer is told makes it
        faster, or return its weights.
        """
        for mask in (attention_mask, causal_attention_mask):
            check_mask(mask, hidden_states.shape[1])
        query, key, value = (
            apart(projection(hidden_states), self.heads) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = attend(query, key, value, 1 / sqrt(query.shape[-1]), causal=True)
        return self.out_proj(found.transpose(1, 2).flatten(2)), None


def check_mask(mask: Tensor | None, tokens: int) -> None:
    """Raise ``ValueError`` unless ``mask`` is none or that of a causal layer, true or 0 where a token is seen."""
    if mask is not None:
        seen = mask if mask.dtype == torch.bool else mask == 0
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril_()
        if seen.shape[-2:] != causal.shape or not bool((seen == causal).all()):
            raise ValueError("exact must be false: attention that hides some tokens has no exact form")


def attention(layer: Any, bits: Precision) -> nn.Module:
    """The exact form of an attention layer."""
    return ExactCausalAttention(layer, bits.linear)


def gelu(layer: nn.Module, _: Precision) -> nn.Module:
    """The exact form of transformers' GELU. Raises ``ValueError`` for one that is written out."""
    if getattr(layer, "act", None) is not nn.functional.gelu:
        raise ValueError("exact must be false: a GELU that is written out has no exact form")
    return ExactGELU(nn.GELU())


def known(source: ModuleType, names: Iterable[str]) -> list[type[nn.Module]]:
    """Those of the classes that this version has."""
    return [getattr(source, name) for name in names if hasattr(source, name)]


def register() -> None:
    """Add them to the forms that :mod:`pscx.exact.forms` knows; what stands there already stays."""
    for kind in known(modeling_clip, ATTENTION):
        FORMS.setdefault(kind, attention)
    FORMS.setdefault(activations.GELUActivation, gelu)
    FORMS.setdefault(activations.QuickGELUActivation, lambda _, __: ExactQuickGELU())
    for kind in known(modeling_clip, TEXT):
        FRAMES.setdefault(kind, nothing)
