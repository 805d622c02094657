"""Averages of 2x2 pixels in a fixed order."""

from __future__ import annotations

from torch import Tensor, nn


class ExactAveragePool(nn.Module):
    """``layer`` with three additions and a product by 1/4, in one order on every machine.

    Args:
        layer: the layer that this one stands for: of 2x2 pixels, two apart, without padding.

    Raises:
        ValueError: the layer is another one.
    """

    def __init__(self, layer: nn.AvgPool2d) -> None:
        super().__init__()
        geometry = [layer.kernel_size, layer.stride, layer.padding]
        pairs = [value if isinstance(value, tuple) else (value, value) for value in geometry]
        if pairs != [(2, 2), (2, 2), (0, 0)] or layer.ceil_mode or layer.divisor_override is not None:
            raise ValueError(f"exact must be false: {layer} has no exact form, an average of 2x2 pixels has")

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to half the height and width, rounded down."""
        height, width = (size - size % 2 for size in x.shape[-2:])
        top, bottom = x[..., 0:height:2, :width], x[..., 1:height:2, :width]
        total = (top[..., 0::2] + top[..., 1::2]).add_(bottom[..., 0::2] + bottom[..., 1::2])
        return total.mul_(0.25)
