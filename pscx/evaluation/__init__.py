"""Measuring a codec: the LightningModule, what it keeps, its logs and BD-rates."""

from pscx.evaluation.evaluate import Evaluate

__all__ = ["Evaluate"]
