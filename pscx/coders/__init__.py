"""Entropy coders: from symbols and predictions to bytes and back."""

from pscx.coders.adaptive import Adaptive
from pscx.coders.base import CODERS, Coder, Decoder, Encoder
from pscx.coders.posterior import Posterior
from pscx.coders.raw import Raw
from pscx.coders.static import Static

__all__ = ["CODERS", "Adaptive", "Coder", "Decoder", "Encoder", "Posterior", "Raw", "Static"]
