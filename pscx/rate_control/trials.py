"""Encodings of one image at different settings, of which the last is kept whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pscx.codecs.base import Account, Outcome, Progress, SignalCodec, Watch
from pscx.codecs.pixels import shown
from pscx.execution.batching import clock
from pscx.format.container import Header, pack
from pscx.restorations.base import Restoration
from pscx.runtime.returned import refuse

Pixels = NDArray[np.uint8]
OnTrial = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Setting:
    """The choice of an encoder for one image.

    Args:
        parameter: parameter of the quantizer.
        keep: number of measurements that are coded, the others being taken as predicted; none codes all.
    """

    parameter: float | None
    keep: int | None = None


@dataclass
class Run:
    """One encoding. ``account`` is that of the loop; ``outcome.account`` also counts the restorations."""

    codec: SignalCodec
    setting: Setting
    data: bytes
    outcome: Outcome
    account: Account
    shape: tuple[int, ...]
    size: tuple[int, int]
    restore_seconds: float = 0.0
    _images: list[Pixels] = field(default_factory=list)

    def restored_by(self, restoration: Restoration) -> Run:
        """This encoding with another restoration. Raises :class:`pscx.errors.PscxError` if the codec takes none."""
        return replace(self, codec=self.codec.restored_by(restoration), restore_seconds=0.0, _images=[])

    def images(self, count: int) -> list[Pixels]:
        """The first ``count`` restorations, ``(height, width, 3)``, as a decoder makes them."""
        started = clock()
        for index in range(len(self._images), count):
            signal = self.codec.restore(self.outcome, self.shape, index)
            self._images.append(shown(self.codec, signal, *self.size))
        self.restore_seconds += clock() - started
        return self._images[:count]


class Trials:
    """Encodes one image at a setting after the other.

    Args:
        codec: the codec, conditioned on the image's caption.
        header: header of the stream; each setting replaces its parameter.
        pixels: the image, ``(height, width, 3)`` uint8.
        signal: the signal to encode, ``(channels, height, width)``.
        progress: called with the iterations done and all of them, in each encoding.
        on_trial: called before each encoding with its number, from 1, and the quantizer's parameter.
        watch: shown each segment of each encoding.
    """

    def __init__(
        self,
        codec: SignalCodec,
        header: Header,
        pixels: Pixels,
        signal: Tensor,
        progress: Progress | None = None,
        on_trial: OnTrial | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.pixels = pixels
        self.codec, self._header, self._signal = codec, header, signal
        self._progress, self._on_trial, self._watch = progress, on_trial, watch
        self._accounts: list[Account] = []
        self._last: Run | None = None

    @property
    def area(self) -> int:
        """Pixels of the image."""
        height, width = self.pixels.shape[:2]
        return int(height * width)

    @property
    def overhead(self) -> int:
        """Bytes of a stream that are not its payload."""
        return len(pack(self._header, b""))

    def run(self, setting: Setting) -> Run:
        """The encoding at a setting; the last one is reused."""
        codec = self.codec.with_parameter(setting.parameter)
        setting = replace(setting, parameter=codec.parameter)  # which may be rounded
        if self._last is None or self._last.setting != setting:
            self._last = None  # its measurements take memory
            self._last = self._encoded(codec, setting)
        return self._last

    def account(self) -> Account:
        """What all encodings have cost so far, with the segments of the last."""
        assert self._last is not None
        return replace(
            self._last.account,
            evaluations=sum(account.evaluations for account in self._accounts),
            network_seconds=sum(account.network_seconds for account in self._accounts),
            seconds=sum(account.seconds for account in self._accounts),
            encodings=len(self._accounts),
        )

    def _encoded(self, codec: SignalCodec, setting: Setting) -> Run:
        if self._on_trial is not None:
            self._on_trial(len(self._accounts) + 1, setting.parameter)
        found: object = codec.encode(self._signal, self._progress, setting.keep, watch=self._watch)
        match found:
            case (bytes() as payload, Outcome() as outcome):
                pass
            case _:
                refuse(codec, "encode", "bytes and an Outcome", f"'{type(found).__name__}'")
        self._accounts.append(outcome.account)
        data = pack(replace(self._header, parameter=setting.parameter), payload)
        height, width = self.pixels.shape[:2]
        account = replace(outcome.account)  # restoring adds to the other
        return Run(codec, setting, data, outcome, account, tuple(self._signal.shape), (height, width))
