"""A residual block whose second convolution knows that it follows a ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from pscx.exact.convolution import ACTIVATION_BITS, WEIGHT_BITS, ExactConvolution
from pscx.networks.residual_unet import ResidualBlock


class ExactResidualBlock(nn.Module):
    """``x + W2 relu(W1 x)`` of a :class:`pscx.networks.residual_unet.ResidualBlock` from exact convolutions.

    Args:
        block: whose layers are made exact.
        weight_bits: of a weight, with its sign; 2 to 16.
        activation_bits: of an activation, with its sign; 2 to 16.

    Raises:
        ValueError: as :class:`ExactConvolution`.
    """

    def __init__(
        self, block: ResidualBlock, weight_bits: int = WEIGHT_BITS, activation_bits: int = ACTIVATION_BITS
    ) -> None:
        super().__init__()
        self.first = ExactConvolution(block.first, weight_bits, activation_bits)
        self.second = ExactConvolution(block.second, weight_bits, activation_bits, rectified=True)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.second(self.first(x, rectify=True), shortcut=x)
        return changed
