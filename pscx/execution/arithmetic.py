"""What a codec computes with, where that decides whether a stream can be decoded elsewhere."""

from __future__ import annotations

from binascii import crc_hqx

import torch

from pscx.exact.settings import autocast, permitted_rounding
from pscx.priors.base import Prior

LONGEST = 200  # characters


def arithmetic_of(prior: Prior) -> str:
    """The arithmetic of a prior on this machine in a few words: ``torch 2.13.0, cpu AVX512, float32, 1 thread``.

    Where torch may round operands further, autocast is on or the prior has a ``speed``, these come behind it. Printable
    ASCII. The batch, which matters as well, is in a codec's spec, so both sides have the same.
    """
    tensor = next(iter(prior.state_dict().values()), prior.levels)
    dtype = str(tensor.dtype).removeprefix("torch.")
    threads = torch.get_num_threads()
    words = f"torch {torch.__version__}, {_place(prior.device)}, {dtype}, {threads} thread{'s' * (threads > 1)}"
    if rounding := permitted_rounding(prior.device):
        words += f", {rounding[1]} products"
    if (reduced := autocast(prior.device)) is not None:
        words += f", autocast {str(reduced).removeprefix('torch.')}"
    words = ", ".join([words, *(prior.speed.words if prior.speed else ())])
    return "".join(char if " " <= char <= "~" else "?" for char in words)[:LONGEST]


def short_arithmetic(words: str) -> str:
    """What identifies these words in a stream: ``#`` and their CRC-16 in four hexadecimal digits; empty for no words.

    >>> short_arithmetic("torch 2.13.0, cpu AVX512, float32, 1 thread")
    '#be8f'
    """
    return f"#{crc_hqx(words.encode(), 0xFFFF):04x}" if words else ""


def difference(encoded: str, here: str) -> str:
    """Why a segment may not decode: the encoder's arithmetic, empty where it was exact, against this machine's.

    The encoder's may be a digest of its words (:func:`short_arithmetic`).
    """
    if not encoded:
        return (
            "its arithmetic is the same on every machine, so the stream is damaged or pscx has a defect, here or where "
            "it was encoded"
        )
    if encoded.startswith("#") and encoded != short_arithmetic(here):
        return f"encoded with another arithmetic, of which the stream has a digest alone; this is {here}"
    if encoded in (here, short_arithmetic(here)):
        encoded = here
        return f"encoded with {encoded}, as here, so the stream is damaged or made on another kind of processor"
    return f"encoded with {encoded}; this is {here}"


def _place(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
