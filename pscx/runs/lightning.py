"""``pscx fit``, ``validate``, ``test`` and ``predict``: LightningCLI behind the configuration of :mod:`pscx.config`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only
from torch.distributed import DistError

from pscx.config import SECTIONS, Checker, ConfigError, Layer, class_of, sentence, split_options
from pscx.config.words import shortened
from pscx.data import DATA
from pscx.evaluation import DEFAULT_METRICS, Evaluate
from pscx.registry import choices
from pscx.runs.accelerators import device_layers, on_best_device
from pscx.runs.modules import MODULES
from pscx.runs.run_identity import data_paths, identity_of
from pscx.runtime.arguments import take_option
from pscx.runtime.printing import complain
from pscx.runtime.quiet import quiet
from pscx.runtime.run_folder import RunFolder, check_name, take
from pscx.runtime.termination import keep_terminable
from pscx.training.over_images import OverImages

DEFAULTS = {"model": {"name": "evaluate", "metrics": [*DEFAULT_METRICS]}, "data": {"name": "folder"}}
FIT_DEFAULTS = {"model": {"name": "calibrate"}, "data": {"name": "folder"}}  # what fit does with a codec
# Under inference mode enable_grad would not bring back the gradients that some samplers take.
TRAINER = {"inference_mode": False}
# An evaluation draws its own progress bar, which moves inside an image.
# A codec is on the CPU where no other device gives the same bits: see pscx.runs.accelerators.
EVALUATION = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
# So does what learns from a folder, which it goes over once, or once for each thing that it learns.
LEARNING = {**EVALUATION, "logger": False, "enable_checkpointing": False}
COMMANDS = ("fit", "validate", "test", "predict")
GIVEN = ("self", "model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule")  # by LightningCLI
PARSER_OPTIONS = ("help", "print_config", "config", "recipe", "plugins")
LARGEST_SEED = (1 << 32) - 1  # of numpy
RANKS = ("NODE_RANK", "GROUP_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # rank_zero_only knows a node's ranks alone


def run_lightning(command: str, args: list[str]) -> int:
    """Check the configuration, then hand it over to Lightning. Returns the exit code."""
    if any(arg.partition("=")[0].endswith(".help") for arg in args):  # jsonargparse's, as --trainer.logger.help
        if any(arg in ("--model.help", "--data.help") for arg in args):
            raise ConfigError("--model.help and --data.help show nothing: see pscx components NAME")
        return _launch([command, *("--help" if arg == "--trainer.help" else arg for arg in args)])
    devices, args = take_option("--device", args)
    layers, rest = split_options(args)
    layers += device_layers(devices[-1] if devices else None)
    _check_rest(command, rest)
    tree = on_best_device(configuration(command, layers), layers)
    return run_configuration(command, tree, rest)


def run_configuration(command: str, tree: Mapping[str, Any], rest: Sequence[str] = (), versions: bool = True) -> int:
    """Hand a ``tree`` that :func:`configuration` made over to Lightning. Returns the exit code.

    Without ``versions`` the run uses its folder even if that holds other results.
    """
    with closing(_Folder(tree, versions)) as folder:
        return _launch([command, *rest], folder)


def _launch(args: list[str], folder: _Folder | None = None) -> int:
    with quiet(), _sentences():
        try:
            _CLI(
                LightningModule,
                LightningDataModule,
                folder=folder,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=_SaveConfig,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                auto_configure_optimizers=False,  # a module brings its own optimizer
                parser_kwargs={"exit_on_error": False, **{name: {"exit_on_error": False} for name in COMMANDS}},
                args=args,
            )
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit code 1
                raise type(stop.__context__) from None
            return int(stop.code or 0)
    return 0


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn errors of Lightning and torch.distributed that a user can cause into one sentence."""
    try:
        yield
    except (ArgumentError, MisconfigurationException) as error:
        raise ConfigError(sentence(str(error))) from error
    except DistError as error:
        reason = sentence(str(error).partition("\nException raised from")[0])
        raise ConfigError(f"the processes of the run cannot reach each other: {reason}") from error
    except FileNotFoundError as error:
        if not str(error).startswith("Checkpoint file not found"):
            raise
        raise ConfigError(f"ckpt_path: {error}") from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        raise ConfigError("ckpt_path: the checkpoint is of another network, or of another command") from error


def check_checkpoint(path: object) -> None:
    """Raise :class:`ConfigError` where ``ckpt_path`` is there and is no checkpoint of ``pscx fit``."""
    if not isinstance(path, str) or not os.path.exists(path):
        return  # such as last; one that is missing is told later
    try:
        content = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    except Exception:  # whatever it is: torch has no error of its own for this
        content = None
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise ConfigError(f"ckpt_path: '{path}' is no checkpoint that pscx fit has written")


def configuration(command: str, layers: list[Layer]) -> dict[str, Any]:
    """The whole checked configuration in jsonargparse's form. Raises :class:`ConfigError` for any mistake."""
    checker = Checker(layers)
    tree = checker.tree(FIT_DEFAULTS if command == "fit" else DEFAULTS)
    checker.sections(tree, _own_options(command))
    tree["model"] = checker.component(MODULES, tree["model"], "model")
    tree["data"] = checker.component(DATA, tree["data"], "data")
    trainer = tree.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        checker.fail("trainer", "must hold options of the trainer, such as max_steps")
    module = class_of(tree["model"])
    defaults = {**TRAINER, "default_root_dir": f"runs/{_run_name(command, layers)}"}
    if issubclass(module, Evaluate):
        defaults |= EVALUATION
    elif issubclass(module, OverImages):
        defaults |= {**LEARNING, "max_epochs": module.passes}
    if command == "test" and issubclass(module, Evaluate):
        tree.setdefault("verbose", False)  # it prints a table of its own
    if trainer.get("default_root_dir", "") is None:
        trainer = {key: value for key, value in trainer.items() if key != "default_root_dir"}
    tree["trainer"] = checker.options(Trainer, {**defaults, **trainer}, "trainer", "the trainer")
    if tree["trainer"]["default_root_dir"] == "":
        checker.fail("trainer.default_root_dir", "must not be empty")
    return tree


class _Folder:
    """The folder of a run. Rank 0 takes it, and the other ranks are told."""

    def __init__(self, tree: Mapping[str, Any], versions: bool) -> None:
        self.tree, self.versions = tree, versions
        self.taken: RunFolder | None = None

    def close(self) -> None:
        """Leave it to other runs."""
        if self.taken is not None:
            self.taken.release()

    def take(self, model: LightningModule) -> Path:
        """The folder, which is that of the configuration on other ranks. Says so if it is another folder.

        Raises :class:`pscx.errors.PscxError` as :func:`own_root` and :func:`pscx.runtime.run_folder.take` do.
        """
        if not _is_first():
            return Path(self.tree["trainer"]["default_root_dir"])
        root = own_root(self.tree)
        self.taken = take(root, identity_of(self.tree, model), self.versions)
        if self.taken.before is not None:
            complain(f"{self.taken.before}: this run is in '{self.taken.path}'")
        return self.taken.path


def own_root(tree: Mapping[str, Any]) -> Path:
    """The folder for results in a checked configuration.

    Raises ``ConfigError`` if it is the folder of the data, and :class:`pscx.errors.PscxError` if it can be no folder.
    """
    root = Path(tree["trainer"]["default_root_dir"])
    check_name(root)
    if root.resolve() in data_paths(tree):
        raise ConfigError(f"trainer.default_root_dir must not be the folder of the data, got '{root}'")
    return root


def _is_first() -> bool:
    """Whether this process is rank 0, known before the processes are connected."""
    return getattr(rank_zero_only, "rank", 0) == 0 and all(os.environ.get(name, "0") == "0" for name in RANKS)


class _CLI(LightningCLI):
    """LightningCLI with one-sentence constructor errors and a folder of its own for each run."""

    def __init__(self, *args: Any, folder: _Folder | None, **kwargs: Any) -> None:
        self.folder = folder
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            self._end_processes()
            raise

    def _end_processes(self) -> None:
        """End the processes that this one has started, which would wait for it. They write only whole files."""
        launcher = self.trainer.strategy.launcher if hasattr(self, "trainer") else None
        for process in getattr(launcher, "procs", ()):
            process.kill()
            process.wait()

    def parse_arguments(self, parser: ArgumentParser, args: Any) -> None:
        checked = Namespace()  # type: ignore[no-untyped-call]
        if self.folder is not None:
            checked[args[0]] = Namespace(**self.folder.tree)  # type: ignore[no-untyped-call]
        self.config = parser.parse_args(args, namespace=checked)
        options = self.config[str(self.config.subcommand)]
        check_checkpoint(options.get("ckpt_path"))
        seed = options.get("seed_everything")
        if seed is not None and not 0 <= seed <= LARGEST_SEED:
            raise ConfigError(f"seed_everything must lie in 0..{LARGEST_SEED}, got {shortened(seed)}")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, OSError) as error:  # raised by constructors for options out of range and missing files
            raise ConfigError(sentence(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        own = self.config[str(self.subcommand)].trainer
        if self.folder is not None:
            own.default_root_dir = kwargs["default_root_dir"] = str(self.folder.take(self.model))
        if own.logger in (None, True):
            kwargs["logger"] = default_loggers(str(self.subcommand), own.default_root_dir or ".")
        try:
            return super().instantiate_trainer(**kwargs)
        except KeyError as error:
            raise ConfigError(f"the trainer cannot be created: the environment variable {error} is missing") from error
        except (RuntimeError, ImportError, TypeError, ValueError) as error:
            # of variables of a cluster, devices, missing libraries and options out of range
            raise ConfigError(f"the trainer cannot be created: {sentence(str(error))}") from error


class _SaveConfig(SaveConfigCallback):
    """Tells all ranks the run's folder and saves the configuration there; for a training it is saved with the logs."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, (Evaluate, OverImages)):
            super().setup(trainer, pl_module, stage)
            return
        pl_module.folder = Path(trainer.strategy.broadcast(str(trainer.default_root_dir)))
        if trainer.is_global_zero:
            path = pl_module.folder / self.config_filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, str(path), skip_unset=False, overwrite=True)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        keep_terminable()  # Lightning's own handler would only take note

    on_validation_start = on_test_start = on_predict_start = on_fit_start


def default_loggers(command: str, root: str) -> list[Logger]:
    """TensorBoard and CSV loggers under the folder of a run; none for a command that logs nothing.

    Each training has logs of its own, an evaluation those of its last start.
    """
    if command == "predict":
        return []
    if command == "fit":
        return [TensorBoardLogger(root), CSVLogger(root, name="csv_logs")]
    board = TensorBoardLogger(root, name="logs", version="tensorboard", default_hp_metric=False, purge_step=0)
    return [board, CSVLogger(root, name="logs", version="csv")]


def _own_options(command: str) -> list[str]:
    """Top-level options of a command, which are those of the trainer's method of that name."""
    method = inspect.signature(getattr(Trainer, command)).parameters
    return ["seed_everything", *(name for name in method if name not in GIVEN)]


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
