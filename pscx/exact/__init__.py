"""Exact arithmetic: networks and sums that give the same bits on every machine."""

from pscx.exact.convolution import ExactConvolution
from pscx.exact.network import check_convolutions, make_exact
from pscx.exact.roots import square_root
from pscx.exact.sums import ordered_mean

__all__ = ["ExactConvolution", "check_convolutions", "make_exact", "ordered_mean", "square_root"]
