"""Ablations: a grid of configurations, each evaluated as ``pscx test`` does, and their rate-distortion curves."""

from pscx.ablation.launch import Launcher, Outcome, is_done, placed, run_cell, run_here
from pscx.ablation.on_ray import RayLauncher
from pscx.ablation.plan import Axis, Cell, Plan, read_plan
from pscx.ablation.results import Results, read_results
from pscx.ablation.saved import load_plan, save_plan

__all__ = [
    "Axis",
    "Cell",
    "Launcher",
    "Outcome",
    "Plan",
    "RayLauncher",
    "Results",
    "is_done",
    "load_plan",
    "placed",
    "read_plan",
    "read_results",
    "run_cell",
    "run_here",
    "save_plan",
]
