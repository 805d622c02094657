"""Quantizers: from a measurement to a symbol and back."""

from pscx.quantizers.base import QUANTIZERS, CellsAtOnce, Quantizer
from pscx.quantizers.deadzone import Deadzone
from pscx.quantizers.float8 import Float8
from pscx.quantizers.rdo import RDO
from pscx.quantizers.trellis import Trellis
from pscx.quantizers.turns import CellsInTurn
from pscx.quantizers.uniform import Uniform

__all__ = ["QUANTIZERS", "RDO", "CellsAtOnce", "CellsInTurn", "Deadzone", "Float8", "Quantizer", "Trellis", "Uniform"]
