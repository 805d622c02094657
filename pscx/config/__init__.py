"""Configuration: layers of YAML and options, their checker, plugins and recipes."""

from pscx.config.build import build, built, class_of, with_defaults
from pscx.config.checker import Checker
from pscx.config.layers import ConfigError, Layer, merge, option_layer, read_yaml, split_options
from pscx.config.sources import RUN_OPTIONS, SECTIONS
from pscx.config.untrusted import STREAM_FAMILY, STREAM_LIMIT, Stream, WrittenRun
from pscx.config.words import describe, sentence

__all__ = [
    "RUN_OPTIONS",
    "SECTIONS",
    "STREAM_FAMILY",
    "STREAM_LIMIT",
    "Checker",
    "ConfigError",
    "Layer",
    "Stream",
    "WrittenRun",
    "build",
    "built",
    "class_of",
    "describe",
    "merge",
    "option_layer",
    "read_yaml",
    "sentence",
    "split_options",
    "with_defaults",
]
