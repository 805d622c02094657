"""Identity of a run: its configuration and data, without options that do not change results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from pscx.config import class_of, with_defaults
from pscx.evaluation import Evaluate
from pscx.runtime.run_folder import Identity
from pscx.training.over_images import OverImages

TRAINER = (
    *("accelerator", "precision", "fast_dev_run", "overfit_batches"),
    *("limit_train_batches", "limit_test_batches", "limit_predict_batches"),
)
"""Options of the trainer that results for single images depend on."""
READING = ("num_workers", "cache")
"""Options of data modules that no result depends on."""


def identity_of(tree: Mapping[str, Any], model: LightningModule) -> Identity:
    """The identity of a run with this checked configuration, whose ``model`` was made from it.

    Paths of data are resolved; their content may change, since a data set may grow. A training is identified by its
    model, data and seed only, so it may be continued with other options of the trainer.
    """
    options = {**with_defaults(tree["model"])["init_args"]}
    data = {**with_defaults(tree["data"])["init_args"]}
    facts: list[Any] = [class_of(tree["model"]).__qualname__]
    for name in READING:
        data.pop(name, None)
    if isinstance(model, Evaluate | OverImages):
        codec = {**options["codec"]["init_args"]}
        options["codec"] = {**options["codec"], "init_args": codec}
        for name in model.without_effect:
            options.pop(name, None)
            codec.pop(name, None)
        data.pop("batch_size", None)
        trainer = tree["trainer"]
        facts += [{name: trainer[name] for name in TRAINER if name in trainer}, tree.get("ckpt_path")]
        facts += [model.codec.signal_codec.fingerprint().hex()]
    else:
        facts += [tree.get("seed_everything")]
    where = [class_of(tree["data"]).__qualname__, {key: _resolved(value) for key, value in data.items()}]
    return Identity(_digest([*facts, options]), _digest(where))


def data_paths(tree: Mapping[str, Any]) -> list[Path]:
    """The folders and files that the data section names, resolved."""
    values = (tree["data"].get("init_args") or {}).values()
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return [Path(text).resolve() for text in texts if _is_path(text)]


def _resolved(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_resolved(item) for item in value]
    return str(Path(value).resolve()) if _is_path(value) else value


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value) and Path(value).exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def _digest(facts: Any) -> str:
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
