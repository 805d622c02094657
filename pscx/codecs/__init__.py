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
from pscx.codecs.psc import PSC
from pscx.codecs.with_prior import PriorCodec

__all__ = [
    "CODECS",
    "PSC",
    "Account",
    "Outcome",
    "Patterns",
    "PriorCodec",
    "Progress",
    "Recorder",
    "Segment",
    "SignalCodec",
    "Watch",
]
