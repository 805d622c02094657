"""``pscx fit``, ``validate``, ``test`` and ``predict``: LightningCLI behind the configuration of :mod:`pscx.config.checker`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from pscx.config.checker import SECTIONS, Checker, ConfigError, Layer, sentence, split_options
from pscx.data import DATA
from pscx.evaluation import Evaluate
from pscx.registry import choices
from pscx.runs.modules import MODULES
from pscx.runs.accelerators import tell_of_idle_accelerator
from pscx.runtime.quiet import quiet
from pscx.training import Calibrate, FitRows
from pscx.training.over_images import OverImages

DEFAULTS = {"model": {"name": "evaluate"}, "data": {"name": "folder"}}
FIT_DEFAULTS = {"model": {"name": "calibrate"}, "data": {"name": "folder"}}  # what fit does with a codec
# Under inference mode enable_grad would not bring back the gradients that some samplers take.
TRAINER = {"inference_mode": False}
# An evaluation draws its own progress bar, which moves inside an image.
# A codec runs on the CPU unless told otherwise: not all of its parts take an accelerator.
EVALUATION = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
# So does what learns from a folder, which it goes over once.
LEARNING = {**EVALUATION, "logger": False, "enable_checkpointing": False, "max_epochs": 1}
COMMANDS = ("fit", "validate", "test", "predict")
PARSER_OPTIONS = ("help", "print_config", "config", "recipe", "plugins")


def run_lightning(command: str, args: list[str]) -> int:
    """Check the configuration, then hand it over to Lightning. Returns the exit code."""
    layers, rest = split_options(args)
    if {"-h", "--help"} & set(rest):
        return _launch([command, *rest])
    _check_rest(command, rest)
    tree = configuration(command, layers)
    if tree["trainer"].get("accelerator") == "cpu":
        tell_of_idle_accelerator(layers)
    return run_configuration(command, tree, rest)


def run_configuration(command: str, tree: Mapping[str, Any], rest: Sequence[str] = ()) -> int:
    """Hand a ``tree`` that :func:`configuration` made over to Lightning. Returns the exit code."""
    return _launch([command, "--config", yaml.safe_dump(tree, sort_keys=False), *rest])


def _launch(args: list[str]) -> int:
    with quiet():
        try:
            _CLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=_SaveConfig,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                auto_configure_optimizers=False,  # a module brings its own optimizer
                parser_kwargs={"exit_on_error": False, **{name: {"exit_on_error": False} for name in COMMANDS}},
                args=args,
            )
        except (ArgumentError, MisconfigurationException) as error:
            raise ConfigError(sentence(str(error))) from error
        except FileNotFoundError as error:
            if not str(error).startswith("Checkpoint file not found"):
                raise
            raise ConfigError(f"ckpt_path: {error}") from error
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit code 1
                raise KeyboardInterrupt from None
            return int(stop.code or 0)
    return 0


def configuration(command: str, layers: list[Layer]) -> dict[str, Any]:
    """The whole configuration in jsonargparse's form. Raises :class:`ConfigError` for anything that is not right."""
    checker = Checker(layers)
    tree = checker.tree(FIT_DEFAULTS if command == "fit" else DEFAULTS)
    checker.sections(tree, _own_options(command))
    tree["model"] = checker.component(MODULES, tree["model"], "model")
    tree["data"] = checker.component(DATA, tree["data"], "data")
    trainer = tree.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        checker.fail("trainer", "must hold options of the trainer, such as max_steps")
    defaults = {**TRAINER, "default_root_dir": f"runs/{_run_name(command, layers)}"}
    for module, own in ((Evaluate, EVALUATION), (Calibrate, LEARNING), (FitRows, LEARNING)):
        if tree["model"]["class_path"].endswith(f".{module.__name__}"):
            defaults |= own
    tree["trainer"] = checker.options(Trainer, {**defaults, **trainer}, "trainer", "the trainer")
    return tree


class _CLI(LightningCLI):
    """LightningCLI whose constructor errors are sentences."""

    def parse_arguments(self, parser: ArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, OSError) as error:  # what constructors raise on options out of range and missing files
            raise ConfigError(sentence(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self._get(self.config, "trainer.logger") in (None, True):
            root = self._get(self.config, "trainer.default_root_dir") or "."
            kwargs["logger"] = default_loggers(str(self.subcommand), root)
        return super().instantiate_trainer(**kwargs)


class _SaveConfig(SaveConfigCallback):
    """Writes the configuration among the results; that of a training among its logs."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, (Evaluate, OverImages)):
            super().setup(trainer, pl_module, stage)
        elif trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(path), skip_unset=False, overwrite=True)


def default_loggers(command: str, root: str) -> list[Logger]:
    """TensorBoard's and one that writes a CSV file, under the folder of a run; none for a command that logs nothing.

    Each training has logs of its own, an evaluation those of its last start.
    """
    if command == "predict":
        return []
    if command == "fit":
        return [TensorBoardLogger(root), CSVLogger(root, name="csv_logs")]
    board = TensorBoardLogger(root, name="logs", version="tensorboard", default_hp_metric=False, purge_step=0)
    return [board, CSVLogger(root, name="logs", version="csv")]


def _own_options(command: str) -> list[str]:
    """Top-level options of a command: those of the trainer's method of that name."""
    method = inspect.signature(getattr(Trainer, command)).parameters
    return ["seed_everything", *(name for name in method if name not in _given())]


def _given() -> tuple[str, ...]:
    return ("self", "model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule")


def _check_rest(command: str, rest: list[str]) -> None:
    known = [f"--{name}" for name in (*_own_options(command), *PARSER_OPTIONS, *SECTIONS)]
    for arg in rest:
        name = arg.partition("=")[0].rstrip("+").partition(".")[0]
        if arg.startswith("--") and name not in known:
            raise ConfigError(f"{command} has no option '{name}'{choices(name, known)}")


def _run_name(command: str, layers: list[Layer]) -> str:
    files = [Path(layer.source).stem for layer in layers if not layer.source.startswith("--")]
    recipes = [str(layer.values["recipe"]) for layer in layers if "recipe" in layer.values]
    return (files or recipes or [command])[-1]
