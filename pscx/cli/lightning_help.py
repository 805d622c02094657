"""Help of ``pscx fit``, ``validate``, ``test`` and ``predict``, without loading Lightning.

:mod:`pscx.runs.lightning` parses the options; this module only describes them.
"""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup

MODULES = {
    "test": "evaluate",
    "predict": "evaluate",
    "fit": "calibrate (default), fit_curve, fit_latent, fit_rows, quantize_weights or train_ddpm",
    "validate": "train_ddpm",
}
"""Allowed values of ``model.name``, by command."""
RUN_OPTIONS = {
    "seed_everything": ("SEED", "seed of the data's order and of training (default: 0)"),
    "ckpt_path": ("FILE", "checkpoint to continue from"),
    "verbose": ("BOOL", "print Lightning's table of results (default: true; false for evaluate, which prints its own)"),
    "weights_only": ("BOOL", "load only tensors and plain values from the checkpoint"),
    "return_predictions": ("BOOL", "keep all predictions in memory"),
}
OF_COMMAND = {
    "test": ("seed_everything", "ckpt_path", "verbose", "weights_only"),
    "predict": ("seed_everything", "return_predictions", "ckpt_path", "weights_only"),
    "fit": ("seed_everything", "ckpt_path", "weights_only"),
    "validate": ("seed_everything", "ckpt_path", "verbose", "weights_only"),
}
"""Names of :data:`RUN_OPTIONS` that a command takes: those of the trainer's method of that name."""
EPILOG = (
    "Options on the command line win over those of --config, and these over the recipe. All options of the trainer: "
    "pscx {command} --trainer.help. Components, their options and their defaults: pscx components."
)


def describe(parser: ArgumentParser, command: str) -> None:
    """Give the parser of ``pscx COMMAND`` its help, before what its epilog says already."""
    parser.usage = f"pscx {command} [--config YAML] [--recipe NAME] [--SECTION.KEY VALUE ...] [options]"
    parser.epilog = f"{EPILOG.format(command=command)} {parser.epilog}"
    config = parser.add_argument_group("configuration")
    config.add_argument("--config", metavar="YAML", help="a config file; of several, later ones win")
    config.add_argument("--recipe", metavar="NAME", help="a recipe, such as default")
    _add_key(config, "model", "codec.sampler.steps 5", f"the module and its codec; model.name: {MODULES[command]}")
    _add_key(config, "data", "root photos/", "where images come from")
    _add_key(config, "trainer", "default_root_dir runs/mine", "the trainer: devices, folder of results, loggers")
    config.add_argument("--print_config", action="store_true", help="print the whole configuration and stop")
    run = parser.add_argument_group("run")
    for name in OF_COMMAND[command]:
        metavar, text = RUN_OPTIONS[name]
        run.add_argument(f"--{name}", metavar=metavar, help=text)


def _add_key(group: _ArgumentGroup, section: str, example: str, text: str) -> None:
    group.add_argument(f"--{section}.KEY", metavar="VALUE", help=f"{text}; such as --{section}.{example}")
