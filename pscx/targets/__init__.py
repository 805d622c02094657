"""Targets: what a stream is to be, in quality, rate or distortion; the parameter of the quantizer is found for it."""

from pscx.targets.base import TARGETS, Target, TargetError
from pscx.targets.bpp import BPP
from pscx.targets.max_bytes import MaxBytes
from pscx.targets.psnr import PSNR
from pscx.targets.quality import Quality
from pscx.targets.step import Step

__all__ = ["BPP", "PSNR", "TARGETS", "MaxBytes", "Quality", "Step", "Target", "TargetError"]
