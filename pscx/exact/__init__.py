"""Exact arithmetic: networks and sums that give the same bits on every machine."""

from pscx.exact.attention import ExactAttention
from pscx.exact.average_pool import ExactAveragePool
from pscx.exact.backends import plain_convolutions
from pscx.exact.convolution import ExactConvolution
from pscx.exact.exponential import exponential
from pscx.exact.forms import FORMS, FRAMES, Precision
from pscx.exact.gated import ExactGEGLU, ExactProjectedGELU, ExactQuickGELU
from pscx.exact.gelu import ExactGELU
from pscx.exact.group_norm import ExactGroupNorm
from pscx.exact.guard import exactly
from pscx.exact.integer import convolving, exact_on_bytes
from pscx.exact.integers import divide, number
from pscx.exact.layer_norm import ExactLayerNorm
from pscx.exact.linear import ExactLinear
from pscx.exact.logarithm import logarithm
from pscx.exact.network import ROUNDING, check_convolutions, make_exact
from pscx.exact.products import check_products
from pscx.exact.residual_block import ExactResidualBlock
from pscx.exact.roots import check_roots, square_root
from pscx.exact.silu import ExactSiLU
from pscx.exact.sums import ordered_mean
from pscx.exact.timesteps import ExactSizes, ExactTimesteps
from pscx.exact.wide import ExactWideConvolution, ExactWideLinear

__all__ = [
    "FORMS",
    "FRAMES",
    "ROUNDING",
    "ExactAttention",
    "ExactAveragePool",
    "ExactConvolution",
    "ExactGEGLU",
    "ExactGELU",
    "ExactGroupNorm",
    "ExactLayerNorm",
    "ExactLinear",
    "ExactProjectedGELU",
    "ExactQuickGELU",
    "ExactResidualBlock",
    "ExactSiLU",
    "ExactSizes",
    "ExactTimesteps",
    "ExactWideConvolution",
    "ExactWideLinear",
    "Precision",
    "check_convolutions",
    "check_products",
    "check_roots",
    "convolving",
    "divide",
    "exact_on_bytes",
    "exactly",
    "exponential",
    "logarithm",
    "make_exact",
    "number",
    "ordered_mean",
    "plain_convolutions",
    "square_root",
]
