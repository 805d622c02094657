"""Hostile streams: an image of the right size or one sentence, in bounded time and memory, and nothing on the side."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutants import Fuzzer, peak_memory
from oracles import one_thread  # noqa: F401  # a fixture that applies by itself

from pscx.config.recipes import folders

COUNT = 2000
SECONDS = 5.0  # of the processor, for one mutant
MEMORY = 300 << 20  # more than was held before
FORBIDDEN = (
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.remove",
    "os.rename",
    "socket.connect",
)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "_named", {})
        yield Fuzzer(tmp_path_factory.mktemp("prior"))


def test_every_mutant_is_an_image_or_a_sentence(fuzzer: Fuzzer) -> None:
    before = peak_memory()
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(COUNT):
        started = time.process_time()
        outcomes[fuzzer.outcome(number)] += 1
        assert time.process_time() - started < SECONDS, number
    assert peak_memory() - before < MEMORY
    by_outcome = Counter(dict.fromkeys(("refused", "decoded", "decoded in part"), 0))
    for (_, outcome), count in outcomes.items():
        by_outcome[outcome] += count
    assert min(by_outcome.values()) > 20, by_outcome  # else the mutants show little
    assert len({kind for kind, _ in outcomes}) == 14


class Watch:
    """Notes what a process does to the world outside while it is told to; an audit hook cannot be taken away."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and (event.startswith(FORBIDDEN) or (event == "open" and writes(*args[1:3]))):
            self.seen.append(f"{event} {args}")


def writes(mode: str | None, flags: int) -> bool:
    return any(letter in mode for letter in "wax+") if mode else bool(flags & 3)


def test_no_mutant_writes_unpickles_or_starts_anything(fuzzer: Fuzzer, tmp_path: Path) -> None:
    watch = Watch()
    fuzzer.outcome(0)  # what is imported late is imported
    watch.on = True
    for number in range(300):
        fuzzer.outcome(number)
    watch.on = False
    assert watch.seen == []
    watch.on = True
    (tmp_path / "x").write_text("seen")
    watch.on = False
    assert len(watch.seen) == 1
