"""Running cells on a Ray cluster."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pscx.ablation.launch import Outcome, run_cell
from pscx.ablation.plan import Cell
from pscx.ablation.results import read_results
from pscx.config.plugins import load, plugin_folders
from pscx.config.recipes.folders import load_recipes, named_folders
from pscx.errors import PscxError
from pscx.runtime.extras import required
from pscx.runtime.termination import terminable

VARIABLES = ("PSCX_",)
"""How the environment variables begin that cells see as this process does."""


@dataclass(frozen=True)
class RayLauncher:
    """A launcher that sends all cells to a Ray cluster that runs already, and yields outcomes as they come.

    The machines of the cluster have pscx installed and share the folders of images and results, under the same path,
    with this one. A cell that ends without a result, even because its process or machine died, is a failed one, and
    is run again by the next ablation. Needs ``pip install 'pscx[ray]'``.

    Args:
        address: address of the cluster, as for ``ray.init``; ``auto`` is that of RAY_ADDRESS or of this machine.
        cpus: CPUs that a cell takes, above 0.
        gpus: GPUs that a cell takes, which are all that it sees; a fraction shares one.

    Raises:
        PscxError: where an option is out of range, the library is missing, or there is no such cluster or no machine
            in it with so much.
    """

    address: str = "auto"
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise PscxError(f"option --cpus-per-cell must be above 0, got {self.cpus:g}")
        if not self.gpus >= 0 or (self.gpus > 1 and self.gpus % 1):
            raise PscxError(f"option --gpus-per-cell must be a whole number or a fraction of 1, got {self.gpus:g}")
        required("ray", "ray", "--launcher ray")

    def __call__(self, cells: Iterable[Cell]) -> Iterator[Outcome]:
        ray: Any = required("ray", "ray", "--launcher ray")
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        try:
            self._check_size(ray.nodes())
            with terminable():
                yield from self._outcomes(ray, cells)
        finally:
            if ours:
                ray.shutdown()

    def _outcomes(self, ray: Any, cells: Iterable[Cell]) -> Iterator[Outcome]:
        send = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(_run_there).remote
        variables = {key: value for key, value in os.environ.items() if key.startswith(VARIABLES)}
        started, place = time.perf_counter(), (os.getcwd(), variables, plugin_folders(), named_folders())
        pending = {send(cell, *place): cell for cell in cells}
        try:
            while pending:
                (done,), _ = ray.wait(list(pending))
                cell = pending.pop(done)
                try:
                    outcome = ray.get(done)
                except ray.exceptions.RayError as failure:  # the process or its machine is gone
                    outcome = Outcome(cell, _lost(failure), time.perf_counter() - started)
                yield _seen(outcome)
        finally:
            for left in pending:
                ray.cancel(left, force=True)

    def _connect(self, ray: Any) -> None:
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise PscxError(f"--ray-address '{self.address}': no Ray cluster answers there: {text}") from error

    def _check_size(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Ray would wait for ever for a machine that is large enough."""
        sizes = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
        if not any(self.cpus <= cpus and self.gpus <= gpus for cpus, gpus in sizes):
            have = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(sizes)))
            need = f"--cpus-per-cell {self.cpus:g} and --gpus-per-cell {self.gpus:g}"
            raise PscxError(f"{need} must fit on one machine of the cluster; they have {have}")


def _run_there(
    cell: Cell, folder: str, variables: Mapping[str, str], plugins: Sequence[str], recipes: Sequence[str]
) -> Outcome:
    """In a process of the cluster: a cell run as in ``folder``, with these variables, plugins and recipes."""
    try:
        os.chdir(folder)
        os.environ.update(variables)
        load(plugins)
        load_recipes(*recipes)
        return run_cell(cell)
    except (OSError, PscxError) as error:
        return Outcome(cell, f"cannot be run on the machine '{platform.node()}': {error}", 0.0)


def _seen(outcome: Outcome) -> Outcome:
    """A success whose results are not here is a failure."""
    if outcome.error is not None or read_results(outcome.cell.folder, left_out=True) is not None:
        return outcome
    error = f"its results are not in '{outcome.cell.folder}' on this machine: the cluster must share that folder"
    return Outcome(outcome.cell, error, outcome.seconds)


def _lost(failure: Exception) -> str:
    return f"lost by the cluster ({type(failure).__name__}): {' '.join(str(failure).split())}"
