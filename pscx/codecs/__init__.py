"""Families of zero-shot codecs of signals."""

from pscx.codecs.base import (
    CODECS,
    Account,
    Outcome,
    Patterns,
    Progress,
    Recorder,
    Segment,
    SignalCodec,
    Watch,
)
from pscx.codecs.of_pixels import PixelCodec, SizedSegment
from pscx.codecs.psc import PSC
from pscx.codecs.with_prior import PriorCodec

__all__ = [
    "CODECS",
    "PSC",
    "Account",
    "Outcome",
    "Patterns",
    "PixelCodec",
    "PriorCodec",
    "Progress",
    "Recorder",
    "Segment",
    "SignalCodec",
    "SizedSegment",
    "Watch",
]
