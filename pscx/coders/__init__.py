"""Entropy coders: from symbols and predictions to bytes and back."""

from pscx.coders.base import CODERS, Coder, Decoder, Encoder
from pscx.coders.posterior import Posterior
from pscx.coders.raw import Raw

__all__ = ["CODERS", "Coder", "Decoder", "Encoder", "Posterior", "Raw"]
