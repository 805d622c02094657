"""Attention, Vaswani et al. 2017, Eq. 1, on integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pscx.exact.exponential import exponential
from pscx.exact.group_norm import EXACT, ExactGroupNorm
from pscx.exact.integers import whole_numbers
from pscx.exact.linear import ExactLinear
from pscx.exact.rounding import rounded

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

BITS = 16
"""Of a query, a key or a value, with its sign."""
ABSENT = ("spatial_norm", "norm_cross", "norm_q", "norm_k", "added_kv_proj_dim", "to_add_out")
OFF = ("only_cross_attention", "fused_projections", "pre_only", "is_causal")
SCORES = 1 << 17
"""Scores that are held at a time, which fit a cache; as all rows are apart, it does not change them."""


class ExactAttention(nn.Module):
    """A diffusers attention layer on integers: one result on every machine.

    Its projections and its norm are exact layers. Queries, keys and values are integers of 16 bits, with one unit for
    each head of a sample. Scores are sums of their products, below 2^53 and so exact in float64. The largest of a row
    is subtracted, ``e^x`` rounded to an integer of at most 22 bits, and these weights are summed, and summed with the
    values, in float64 below 2^53 again. What is left are single IEEE operations on each element.

    float64 is chosen over float32 in groups: a head of 64 numbers would leave 9 bits to a query. These products are
    few beside those of the convolutions.

    Args:
        layer: the layer that this one stands for, self-attention or cross-attention.
        linear: makes the exact form of a projection.

    Raises:
        ValueError: the layer has a part that has no exact form.
    """

    def __init__(self, layer: Attention, linear: Callable[[nn.Linear], nn.Module] = ExactLinear) -> None:
        super().__init__()
        check_attention(layer)
        self.heads, self.residual = layer.heads, layer.residual_connection
        self.scaled, self.factor = layer.scale_qk, 1 / float(layer.rescale_output_factor)
        self.group_norm = None if layer.group_norm is None else ExactGroupNorm(layer.group_norm)
        self.to_q, self.to_k, self.to_v, self.to_out = (
            linear(part) for part in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0])
        )

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """``(batch, channels, height, width)`` or ``(batch, tokens, channels)`` float32, and another's tokens.

        ``temb`` is what the layer takes for a norm that it does not have. Raises ``ValueError`` for a mask.
        """
        if attention_mask is not None:
            raise ValueError("exact must be false: attention with a mask has no exact form")
        x: Tensor = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if self.group_norm is not None:
            x = self.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            apart(projection(tokens), self.heads)
            for projection, tokens in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        scale = 1 / math.sqrt(query.shape[-1]) if self.scaled else 1.0
        x = self.to_out(attend(query, key, value, scale).transpose(1, 2).flatten(2))
        if hidden_states.ndim == 4:
            x = x.transpose(1, 2).reshape(hidden_states.shape)
        return (x + hidden_states if self.residual else x) * self.factor


def apart(tokens: Tensor, heads: int) -> Tensor:
    """``(batch, tokens, heads * dim)`` as ``(batch, heads, tokens, dim)``."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool = False) -> Tensor:
    """``softmax(scale Q K^T) V`` of ``(batch, heads, tokens, dim)`` float32, one result on every machine.

    With ``causal``, a query sees the keys up to its own place, and the others have the weight 0.
    """
    top = (1 << (BITS - 1)) - 1
    (query, query_unit), (key, key_unit), (value, value_unit) = (
        (whole.double(), unit.double())
        for whole, unit in (whole_numbers(tensor, (2, 3), top) for tensor in (query, key, value))
    )
    unit, one = query_unit * key_unit * scale, float(1 << weight_bits(key.shape[2]))
    rows = max(1, SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    found = []
    for first in range(0, query.shape[2], rows):
        scores = query[:, :, first : first + rows] @ key.transpose(2, 3)
        if causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu_(first + 1)
            scores.masked_fill_(later, -math.inf)
        below = (scores - scores.amax(3, keepdim=True)).mul_(unit).float()
        weights = rounded(exponential(below).mul_(one)).double()
        found.append((weights @ value) / weights.sum(3, keepdim=True))
    return (torch.cat(found, 2) * value_unit).float()


def weight_bits(tokens: int) -> int:
    """Bits ``b``, at most 22, for which ``tokens`` products of ``2^b`` and a value have a sum below 2^53."""
    return min(22, EXACT - (BITS - 1) - tokens.bit_length())


def check_attention(layer: Attention) -> None:
    """Raise ``ValueError`` for a layer that computes anything that :class:`ExactAttention` does not."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    for name in (*ABSENT, *OFF):
        if getattr(layer, name, None):
            raise ValueError(f"exact must be false: attention with {name} has no exact form")
    if type(layer.processor) not in (AttnProcessor, AttnProcessor2_0):
        raise ValueError(f"exact must be false: attention by {type(layer.processor).__name__} has no exact form")
    for part in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]):
        if type(part) is not nn.Linear:
            raise ValueError(f"exact must be false: a projection by {type(part).__name__} has no exact form")
    if layer.inner_kv_dim != layer.inner_dim:
        raise ValueError("exact must be false: attention whose heads share keys has no exact form")
    check_factor("rescale_output_factor", layer.rescale_output_factor)


def check_factor(name: str, factor: float) -> None:
    """Raise ``ValueError`` unless to divide by ``factor`` and to multiply by its reciprocal are the same."""
    if not factor > 0 or math.frexp(factor)[0] != 0.5:
        raise ValueError(f"exact must be false: {name} must be a power of two, got {factor}")
