"""Scalar quantizers: from a measurement to a symbol and back."""

from pscx.quantizers.base import QUANTIZERS, Quantizer
from pscx.quantizers.float8 import Float8
from pscx.quantizers.uniform import Uniform

__all__ = ["QUANTIZERS", "Float8", "Quantizer", "Uniform"]
