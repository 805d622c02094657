"""Feed a decoder streams that no encoder wrote, many more than the tests do.

    python benchmarks/fuzz_streams.py --count 100000 [--start N] [-o runs/fuzz]

Mutant number ``N`` is always the same (``tests/mutants.py``), so a run goes on with ``--start`` where another one
stopped, and a finding is a number. Prints how often each kind of mutant was decoded or refused, the slowest mutant and
the most memory that was held. A mutant that does anything else is written to the folder with its traceback; then the
exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where the mutants of the tests are
from mutants import Fuzzer, peak_memory


def run(fuzzer: Fuzzer, numbers: range, output: Path) -> int:
    """Feed the mutants in turn, print the counts, and return how many findings there were."""
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest, started = (0.0, -1), time.perf_counter()
    for number in track(numbers, "mutants"):
        before = time.process_time()
        try:
            outcomes[fuzzer.outcome(number)] += 1
        except Exception:  # a finding is anything that a user would see as a traceback
            outcomes[fuzzer.decoder_and_mutant(number)[1].kind, "FAILED"] += 1
            output.mkdir(parents=True, exist_ok=True)
            (output / f"{number}.pscx").write_bytes(fuzzer.decoder_and_mutant(number)[1].data)
            (output / f"{number}.txt").write_text(traceback.format_exc())
        slowest = max(slowest, (time.process_time() - before, number))
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:28} {outcome:16} {count:7}")
    failed = sum(count for (_, outcome), count in outcomes.items() if outcome == "FAILED")
    print(f"mutants {numbers.start} to {numbers.stop - 1} in {time.perf_counter() - started:.0f} s: {failed} findings")
    print(f"slowest {slowest[0]:.2f} s (mutant {slowest[1]}), most memory {peak_memory() / 1e6:.0f} MB")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="how many mutants")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/fuzz"), help="folder for findings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with TemporaryDirectory() as folder:
        return min(run(Fuzzer(Path(folder)), range(options.start, options.start + options.count), options.output), 1)


if __name__ == "__main__":
    sys.exit(main())
