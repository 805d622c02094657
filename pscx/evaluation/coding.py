"""Evaluation of one image: compress it, restore it and record the cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pscx.api import Codec, Pixels
from pscx.codecs import Account, Watch
from pscx.codecs.specs import codec_spec
from pscx.codecs.user_recipes import user_digest
from pscx.evaluation.tables import Record
from pscx.execution.batching import clock
from pscx.execution.sharding import Spread
from pscx.format.container import VERSION
from pscx.metrics import bits_per_pixel
from pscx.rate_control import TARGETS
from pscx.restorations import RESTORATIONS, Restoration
from pscx.runtime.progress import Bar


@dataclass(frozen=True)
class Coded:
    """A stream, its restorations, the cost of encoding, and the seconds of encoder and decoder."""

    data: bytes
    images: list[Pixels]
    account: Account
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Coding:
    """How each image is coded: the number of ``restorations``, and whether they are decoded or simulated.

    ``restoration`` takes the place of the codec's own.
    """

    codec: Codec
    restorations: int
    simulate: bool
    restoration: Restoration | None = None

    def key(self, original: Pixels, caption: str) -> str:
        """A digest of all that an image's stream and restorations depend on. If it changes, they are made again."""
        codec = self.codec.signal_codec
        spec = codec_spec(codec)
        options = [spec, codec.parameter, codec.seed, codec.fingerprint().hex()]
        options += filter(None, [user_digest(spec).hex()])  # a stream that names a recipe is shorter
        options += [self.restorations, self.simulate, caption]
        options += [] if self.restoration is None else [RESTORATIONS.spec(self.restoration)]
        options += [None if self.codec.target is None else TARGETS.spec(self.codec.target)]
        told = json.dumps([VERSION, *options, original.shape], sort_keys=True).encode()
        return sha256(told + original.tobytes()).hexdigest()

    def coded(self, original: Pixels, caption: str, bar: Bar | None, watch: Watch | None) -> Coded:
        """Compress an image and restore it."""
        progress = None if bar is None else bar.advance
        on_trial = None if bar is None or self.codec.target is None else bar.trial
        how: dict[str, Any] = {"caption": caption, "progress": progress, "on_trial": on_trial, "watch": watch}
        if self.simulate:
            done = self.codec.simulate(original, samples=self.restorations, restoration=self.restoration, **how)
            return Coded(done.data, done.images, done.account, done.encode_seconds, done.decode_seconds)
        encoded = self.codec.encode(original, **how)
        started = clock()
        chosen = {"restoration": self.restoration, "progress": progress}
        images = self.codec.decompress_samples(encoded.data, self.restorations, **chosen)
        return Coded(encoded.data, images, encoded.account, encoded.account.seconds, clock() - started)


def record_of(name: str, coded: Coded, spread: Spread) -> Record:
    """The record of an image without metrics; processes that share an image must call this together."""
    height, width = coded.images[0].shape[:2]
    account, size = coded.account, len(coded.data)
    return {
        "name": name,
        "height": height,
        "width": width,
        "bytes": size,
        "bpp": bits_per_pixel(size, height, width),
        "measurements": sum(account.segment_symbols),
        "encodings": account.encodings,
        "evaluations": spread.total(account.evaluations),
        "network_share": account.network_seconds / coded.encode_seconds if coded.encode_seconds else 0.0,
        "encode_seconds": coded.encode_seconds,
        "decode_seconds": coded.decode_seconds,
    }
