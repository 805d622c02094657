"""Rate control: targets of quality, rate or distortion, for which the quantizer's parameter is searched."""

from pscx.rate_control.base import TARGETS, Target, TargetError
from pscx.rate_control.bpp import BPP
from pscx.rate_control.max_bytes import MaxBytes
from pscx.rate_control.psnr import PSNR
from pscx.rate_control.quality import Quality
from pscx.rate_control.step import Step

__all__ = ["BPP", "PSNR", "TARGETS", "MaxBytes", "Quality", "Step", "Target", "TargetError"]
