"""Silences messages of other libraries that do not help a user of pscx."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = {
    "lightning.pytorch": logging.WARNING,  # tips, banners of accelerators that are absent, "stopped: max_steps reached"
    "lightning.fabric": logging.WARNING,  # "Seed set to 0"
    "diffusers": logging.CRITICAL,  # advises to install accelerate; tells an error that it raises as well
    "transformers": logging.ERROR,  # advises to install torchvision; lists unused weights of a checkpoint
    "huggingface_hub": logging.ERROR,  # counts its attempts to reach the hub; we say once that it cannot be reached
}
WARNINGS = [
    "GPU available but not used",  # we say so ourselves, in a sentence that names our option
    "The '.*_dataloader' does not have many workers",  # reading an image takes a thousandth of coding it
    "Checkpoint directory .* exists and is not empty",  # intended for a resumed training
    "Experiment logs directory .* exists and is not empty",  # a continued evaluation logs all of its images again
    "The dirpath has changed from",  # a resumed training writes into a new version's folder
    "Using `DistributedSampler` with the dataloaders",  # an image that two ranks had counts once, see Evaluate
    "Your `IterableDataset` has `__len__` defined",  # the workers of ours share it out, see CropStream
    "You defined a `validation_step` but have no `val_dataloader`",  # Lightning's own message is enough
    "`LightningModule.configure_optimizers` returned `None`",  # a calibration has no optimizer
    "Found \\d+ module\\(s\\) in eval mode at the start of training",  # a calibration trains none
    "The number of training batches .* is smaller than the logging interval",  # short trials
    "The `local_dir_use_symlinks` argument is deprecated",  # diffusers passes it on to the hub's client
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # inside Lightning, not ours to change
]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence them inside this context, and restore what was there before."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message)
        # Lightning uses deprecated names of jsonargparse, which a user cannot change.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"jsonargparse\.|lightning\.pytorch\.cli")
        try:
            for name, level in LOGGERS.items():
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def importing() -> Iterator[None]:
    """Keep the log levels set by :func:`quiet` during a first import, because libraries set their own levels then."""
    before = {name: level for name in LOGGERS if (level := logging.getLogger(name).level) != logging.NOTSET}
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars of transformers, which count weights that are already on this machine."""
    with importing():
        from transformers.utils import logging as bars

    before = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            bars.enable_progress_bar()
