"""Start-up time of pscx, as CPU time of whole processes.

    python benchmarks/startup.py [CHECKOUT]

Runs ``import torch``, ``pscx.load_codec()`` and ``pscx info`` each in processes of their own, and with the folder of
another checkout of pscx ``pscx.load_codec()`` of that too, in turns. Prints the least user and system time of each and
how it compares. CPU time and not time by the clock: what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
STREAM = HERE / "tests" / "golden" / "uniform_posterior.pscx"
LOAD = "import pscx; pscx.load_codec()"


def seconds(code: str, checkout: Path) -> float:
    """User and system time of a process that runs ``code`` with the pscx of a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, env=environment, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", nargs="?", type=Path, help="another checkout to compare with")
    parser.add_argument("--runs", type=int, default=7, help="processes of each kind (default: 7)")
    options = parser.parse_args()
    info = f"from pscx.cli.main import main; main(['info', {str(STREAM)!r}])"
    kinds = {"import torch": ("import torch", HERE), "pscx info": (info, HERE), "load_codec": (LOAD, HERE)}
    if options.checkout is not None:
        kinds["load_codec there"] = (LOAD, options.checkout.resolve())
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.runs):
        for kind, (code, checkout) in kinds.items():
            times[kind].append(seconds(code, checkout))
    least = {kind: min(found) for kind, found in times.items()}
    print("| what | CPU time, s | import torch = 1 |\n|---|---|---|")
    for kind, time in least.items():
        print(f"| {kind} | {time:.2f} | {time / least['import torch']:.2f} |")
    if options.checkout is not None:
        print(f"\nload_codec here / there: {least['load_codec'] / least['load_codec there']:.3f}")


if __name__ == "__main__":
    main()
