"""The code of the paper: no entropy coding, a fixed number of bits a symbol."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pscx.coders.base import CODERS, Coder, Decoder, Encoder, check_symbols
from pscx.errors import StreamError
from pscx.quantizers.base import Quantizer


@CODERS.register("raw")
class Raw(Coder):
    """``ceil(log2(alphabet))`` bits a symbol (Elata, Michaeli and Elad, TMLR 2025); predictions have no part in it.

    The symbols' bits, highest first, form one string over all groups; the last byte is filled with zeros.
    """

    references = ("elata2025psc",)

    exact = True

    def encoder(self) -> RawEncoder:
        return RawEncoder()

    def decoder(self, data: bytes) -> RawDecoder:
        return RawDecoder(data)


class RawEncoder(Encoder):
    """See :class:`Raw`."""

    def __init__(self) -> None:
        self._bits: list[NDArray[np.uint8]] = []

    def put(self, symbols: Tensor, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``ValueError`` where a symbol is outside the alphabet."""
        check_symbols(symbols, quantizer)
        count = (quantizer.alphabet - 1).bit_length()
        places = np.arange(count - 1, -1, -1)
        self._bits.append((symbols.numpy()[:, None] >> places & 1).astype(np.uint8).ravel())
        return torch.full((len(symbols),), count, dtype=torch.float64)

    def put_bits(self, value: int, count: int) -> None:
        self._bits.append(np.array([value >> place & 1 for place in range(count - 1, -1, -1)], np.uint8))

    def finish(self) -> bytes:
        return np.packbits(np.concatenate([np.zeros(0, np.uint8), *self._bits])).tobytes()


class RawDecoder(Decoder):
    """See :class:`Raw`; past the end it reads zeros."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._taken = 0

    def get(self, quantizer: Quantizer, mean: Tensor, scale: Tensor) -> Tensor:
        """Raises ``StreamError`` where the bits are not a symbol."""
        count = (quantizer.alphabet - 1).bit_length()
        symbols = self._take(len(mean), count)
        if (symbols >= quantizer.alphabet).any():
            raise StreamError(f"symbol {symbols.max()} is not below {quantizer.alphabet}: the stream is damaged")
        return torch.from_numpy(symbols)

    def get_bits(self, count: int) -> int:
        return int(self._take(1, count)[0])

    @property
    def exhausted(self) -> bool:
        return self._taken > len(self._bits)

    def _take(self, rows: int, count: int) -> NDArray[np.int64]:
        wanted = self._bits[self._taken : self._taken + rows * count]
        self._taken += rows * count
        bits = np.zeros(rows * count, np.int64)
        bits[: len(wanted)] = wanted
        return bits.reshape(rows, count) @ (1 << np.arange(count - 1, -1, -1, dtype=np.int64))
