"""Evaluation of a codec: the LightningModule, its kept results, logs and BD-rates."""

from pscx.evaluation.evaluate import Evaluate
from pscx.evaluation.measuring import DEFAULT_METRICS

__all__ = ["DEFAULT_METRICS", "Evaluate"]
