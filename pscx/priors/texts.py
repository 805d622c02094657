"""Text encoders of latent diffusion models: a prompt, as what a denoiser takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pscx.errors import PscxError

Text: TypeAlias = dict[str, Tensor]
"""What a denoiser takes of a prompt, by the name of its argument; each of a batch of one."""

CPU = torch.device("cpu")


class Texts(nn.Module, ABC):
    """All text encoders of one model."""

    @abstractmethod
    def forward(self, prompt: str) -> Text:
        """What the denoiser takes of a prompt. Raises :class:`PscxError` where that is too long."""

    def empty(self) -> Text:
        """What stands for no prompt, in guidance and where there is no caption."""
        found: Text = self("")
        return found

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return next((tensor.device for tensor in self.parameters()), CPU)

    @contextmanager
    def at(self, device: torch.device) -> Iterator[None]:
        """On another device inside this context, and back where they were behind it."""
        before = self.device
        self.to(device)
        try:
            yield
        finally:
            self.to(before)


def tokens_of(tokenizer: Any, prompt: str, longest: int, *, cut: bool = False) -> Any:
    """Tokens of a prompt, padded to ``longest``: ``input_ids`` and ``attention_mask``, lists of numbers.

    Raises :class:`PscxError` where it has more and may not be ``cut``.
    """
    found = tokenizer(prompt, padding="max_length", max_length=longest, truncation=cut, verbose=False)
    if len(found.input_ids) > longest:
        ends = len(tokenizer("").input_ids)
        raise PscxError(
            f"the caption has {len(found.input_ids) - ends} tokens and the prior's text encoder takes "
            f"{longest - ends}: shorten it"
        )
    return found


def clip_ids(tokenizer: Any, encoder: Any, prompt: str, *, cut: bool = False) -> Tensor:
    """Tokens of a prompt for a text encoder of CLIP (Radford et al. 2021), ``(1, tokens)`` where the encoder is."""
    longest = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    return torch.tensor([tokens_of(tokenizer, prompt, longest, cut=cut).input_ids], device=encoder.device)


def check_vocabulary(tokenizer: Any, encoder: Any, part: str = "text encoder") -> None:
    """Raise ``ValueError`` where a tokenizer has more tokens than its encoder knows."""
    words = encoder.config.vocab_size
    if len(tokenizer) > words:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, and the {part} only {words}")
