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
from pscx.codecs.ddcm import DDCM
from pscx.codecs.diffc import DiffC
from pscx.codecs.of_pixels import PixelCodec, SizedSegment
from pscx.codecs.paths import PathCodec
from pscx.codecs.psc import PSC
from pscx.codecs.turbo_ddcm import TurboDDCM
from pscx.codecs.turned import NumberCodec
from pscx.codecs.with_prior import PriorCodec

__all__ = [
    "CODECS",
    "DDCM",
    "PSC",
    "Account",
    "DiffC",
    "NumberCodec",
    "Outcome",
    "PathCodec",
    "Patterns",
    "PixelCodec",
    "PriorCodec",
    "Progress",
    "Recorder",
    "Segment",
    "SignalCodec",
    "SizedSegment",
    "TurboDDCM",
    "Watch",
]
