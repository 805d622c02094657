"""Files that are encoded on one set-up of a machine and decoded on all others, exact and in floating point.

    python benchmarks/exactness.py [--python INTERPRETER ...] [--scale 0.5] [--iterations 3]

Three crops of bundled photographs go through the default recipe under each set-up: number of threads, instruction sets
of torch, oneDNN and MKL, the path of exact convolutions (bytes or float32), samples a network call, images a network
call, memory layout, and all of these once more with
each interpreter (of another torch, say) given by ``--python``. Each is a process of its own. ``--scale`` shrinks the
sides of the crops and ``--iterations`` the codec's loop, for a quicker run. It says for each whether it encodes to the
same bytes as the first and whether it decodes the first one's files to the same pixels. Then the same with
``exact: false``, where a file may be refused with a sentence, or decode to pixels that differ by what rounding
explains, and never to garbage. Exit code 1 where an exact file differs or a floating-point one is garbage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

CROPS = {"astronaut": (64, 64), "chelsea": (50, 83), "rocket": (112, 96)}
ROUNDING = 4  # grey levels that a picture may differ by, if a float stream decodes on another set-up
ONE = {"OMP_NUM_THREADS": "1"}
SETTINGS: dict[str, dict[str, str]] = {
    "1 thread": ONE,
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "1 sample a call": {**ONE, "PSCX_BATCH": "1"},
    "5 images a call": {**ONE, "PSCX_IMAGES": "5"},
    "weights channels first": {**ONE, "PSCX_LAYOUT": "first"},
    "torch without vectors": {**ONE, "ATEN_CPU_CAPABILITY": "default"},
    "torch AVX2": {**ONE, "ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN SSE4.1": {**ONE, "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN AVX2": {**ONE, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN AVX-512": {**ONE, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN VNNI": {**ONE, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "float32 convolutions": {**ONE, "PSCX_PATH": "float32"},
    "MKL compatible": {**ONE, "MKL_CBWR": "COMPATIBLE"},
}

WORKER = """
import hashlib, json, os, sys
from pathlib import Path
import numpy as np, torch
import pscx
from pscx.data.folder import BUNDLED
from pscx.exact import convolving, exact_on_bytes
from pscx.format.container import unpack

folder, exact, crops = Path(sys.argv[1]), sys.argv[2] == "exact", json.loads(sys.argv[3])
options = json.loads(sys.argv[4])
options |= {"batch": int(os.environ["PSCX_BATCH"])} if "PSCX_BATCH" in os.environ else {}
codec = pscx.load_codec(prior={"name": "ddpm", "exact": exact}, **options)
if os.environ.get("PSCX_LAYOUT") == "first":
    codec.signal_codec.prior.denoiser.network.to(memory_format=torch.contiguous_format)
images = int(os.environ.get("PSCX_IMAGES", "1"))
path = os.environ.get("PSCX_PATH") or ("integer" if exact_on_bytes(torch.device("cpu")) else "float32")
convolving(path).__enter__()
for name, (height, width) in crops.items():
    file = folder / f"{name}.pscx"
    photograph = pscx.read_image(BUNDLED / f"{name}.png")
    beside = [photograph[i : height + i, :width] for i in range(images)]
    done = codec.simulate_many(beside, batch=images)[0]
    if not isinstance(done, pscx.Simulation):
        raise done
    if not file.exists():
        file.write_bytes(done.data)
        np.save(folder / f"{name}.npy", done.pixels)
    payload = unpack(done.data)[1] == unpack(file.read_bytes())[1]
    try:
        shown = codec.decompress_many([file.read_bytes()] * images, batch=images)[0]
        if isinstance(shown, pscx.PscxError):
            raise shown
        shown = shown.astype(int)
        apart, refusal = int(abs(shown - np.load(folder / f"{name}.npy")).max()), ""
    except pscx.PscxError as error:
        apart, refusal = -1, str(error)
    told = {"torch": torch.__version__, "path": path, "payload": payload, "apart": apart, "refusal": refusal}
    print(json.dumps(told))
"""


@dataclass(frozen=True)
class Work:
    """What every set-up does: crops ``(height, width)`` by photograph, and options of the codec."""

    crops: dict[str, tuple[int, int]]
    options: dict[str, int]


def outcomes(
    python: str, environment: dict[str, str], folder: Path, mode: str, work: Work
) -> Iterator[dict[str, object]]:
    """What a set-up makes of each photograph: a line of the worker each."""
    command = [python, "-c", WORKER, str(folder), mode, json.dumps(work.crops), json.dumps(work.options)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        says = done.stderr.strip() or f"ended with exit code {done.returncode}"  # as by an instruction it lacks
        raise SystemExit(f"{python}: {says.splitlines()[-1]}")
    return map(json.loads, done.stdout.splitlines())


def compare(settings: dict[str, tuple[str, dict[str, str]]], mode: str, work: Work) -> bool:
    """Print a table of all set-ups in one mode; whether nothing in it is wrong."""
    print(f"\n{mode}:\n\n| set-up | torch | path | same payloads | same pixels | refused | largest difference |")
    print("|---|---|---|---|---|---|---|")
    fine = True
    with TemporaryDirectory() as folder:
        for name, (python, environment) in settings.items():
            rows = list(outcomes(python, environment, Path(folder), mode, work))
            apart = [int(str(row["apart"])) for row in rows]
            counts = (sum(bool(row["payload"]) for row in rows), apart.count(0), apart.count(-1))
            same, equal, refused = (f"{count} of {len(rows)}" for count in counts)
            path = rows[0]["path"] if mode == "exact" else "-"
            print(f"| {name} | {rows[0]['torch']} | {path} | {same} | {equal} | {refused} | {max(apart)} |", flush=True)
            wrong = counts[:2] != (len(rows), len(rows)) if mode == "exact" else max(apart) > ROUNDING
            fine = fine and not wrong
            for refusal in {str(row["refusal"]) for row in rows} - {""}:
                print(f"|  | | | | | {refusal} | |")
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="another interpreter that has pscx")
    parser.add_argument("--scale", type=float, default=1.0, help="sides of the crops, of those of a full run")
    parser.add_argument("--iterations", type=int, help="of the codec (default: the recipe's)")
    options = parser.parse_args()
    if not 0.1 <= options.scale <= 4 or (options.iterations is not None and options.iterations < 1):
        parser.error("--scale must lie in 0.1..4 and --iterations be at least 1")
    scale = options.scale
    crops = {name: (round(height * scale), round(width * scale)) for name, (height, width) in CROPS.items()}
    work = Work(crops, {} if options.iterations is None else {"iterations": options.iterations})
    settings = {name: (sys.executable, environment) for name, environment in SETTINGS.items()}
    for number, python in enumerate(options.python, 2):
        settings |= {f"{name}, interpreter {number}": (python, environment) for name, environment in SETTINGS.items()}
    sides = ", ".join(f"{name} {height}x{width}" for name, (height, width) in crops.items())
    print(f"{sides}; {options.iterations or 'all'} iterations", flush=True)
    results = [compare(settings, mode, work) for mode in ("exact", "float")]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
