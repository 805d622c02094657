"""A second decoder of the path families, written from docs/format.md alone: numpy and plain Python.

It takes ``ddcm``, ``turbo_ddcm`` and ``diffc`` with all their options. The prior is ``ddpm``, exact. Container, noise,
network and range coder are those of the other second decoder. What a step sends is in reference_atoms.py.
Two tables are read from the files that the page names. What makes no stream, as ``DiffC.ideal``, is not here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from math import sqrt
from pathlib import Path

import numpy as np
from reference_atoms import Atoms, Chunks, Sender, Step, Words
from reference_decoder import Array, Noise, Prior, read, table

Measure = Callable[[float, float, float, float], float]
QUARTERS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)


def equal(low: float, e0: float, high: float, e1: float) -> float:
    return (high - low) * (e0 + e1)


def least(low: float, e0: float, high: float, e1: float) -> float:
    return sqrt(max(e0 - e1, 0) * (high - low))


class Curve:
    def __init__(self, errors: list[float]) -> None:
        assert len(errors) == 27
        self.points = [(2.0 ** (14 - 26 + i), error) for i, error in enumerate(errors)]
        for _ in range(3):
            finer = [self.points[0]]
            for (p0, e0), (p1, e1) in pairwise(self.points):
                finer += [(sqrt(p0 * p1), sqrt(e0 * e1)), (p1, e1)]
            self.points = finer

    def error(self, p: float) -> float:
        if p < self.points[0][0]:
            return self.points[0][1]
        for (p0, e0), (p1, e1) in pairwise(self.points):
            if p0 <= p < p1:
                return e0 + (e1 - e0) * ((p - p0) / (p1 - p0))
        return self.points[-1][1]

    def divided(self, a: float, b: float, n: int, measure: Measure) -> list[float]:
        precisions = [a, *(p for p, _ in self.points if a < p < b), b]
        sums = [0.0]
        for p0, p1 in pairwise(precisions):
            sums.append(sums[-1] + measure(p0, self.error(p0), p1, self.error(p1)))
        ends = []
        for i in range(1, n):
            w = sums[-1] * i / n
            k = next((k for k, total in enumerate(sums) if total > w), len(sums) - 1)
            p0, p1, d = precisions[k - 1], precisions[k], sums[k] - sums[k - 1]
            ends.append(p0 + (p1 - p0) * ((w - sums[k - 1]) / d if d else 1))
        return [*ends, b]


class PathDecoder:
    def __init__(self, data: bytes, folder: Path) -> None:
        self.stream, self.prior = read(data), Prior(folder)
        assert self.prior.fingerprint() == self.stream.fingerprint
        spec = self.stream.spec
        self.flow, self.steps = spec["flow"], spec["steps"]
        height, width = (
            -(-n // self.prior.stride) * self.prior.stride for n in (self.stream.height, self.stream.width)
        )
        self.shape, self.n = (3, height, width), 3 * height * width
        noise, self.words = Noise(self.stream.seed), Words(self.stream.payload)
        family = {"ddcm": Atoms, "turbo_ddcm": Atoms, "diffc": Chunks}[spec["name"]]
        self.sender: Sender = family(self.words, noise, spec, self.n)
        self.curve = Curve(spec.get("curve") or table("codecs/paths/curve", "ERRORS"))
        self.end = 1 / (self.stream.step * self.stream.step)
        self.p, self.ends = self.placed(spec["schedule"])
        self.segments = self.curve.divided(self.p, self.end, min(self.steps, 12), equal)
        self.state = noise(self.shape, 1 << 41, 0, 0) * (1 / sqrt(self.p))
        self.q: int | None = None
        self.step, self.sent, self.paid, self.stopped = 0, 0, 0.0, False

    def placed(self, schedule: str) -> tuple[float, list[float]]:
        """Where the path begins, and the end of each step."""
        if schedule == "even":
            count = len(self.prior.levels)
            places = [max((self.steps - i) * count // self.steps - 1, 0) for i in range(self.steps)]
            levels = [float(self.prior.levels[place]) for place in places]
            precisions = [1 / (s * s) for s in levels]
            return precisions[0], [*precisions[1:], self.end]
        first = self.curve.points[0][0]
        return first, self.curve.divided(first, self.end, self.steps, {"kl": equal, "least": least}[schedule])

    def image(self) -> Array:
        for number, end in enumerate(self.segments, 1):
            while self.p < end * (1 - 2.0**-20) and self.goes_on():
                self.walk()
            bits = 8 if number == len(self.segments) else 3
            check = zlib.crc32(self.state.astype("<f8").tobytes()) >> 32 - bits
            assert self.words.integer(bits) == check, f"seal of segment {number}"
        x, level = self.state, 1 / sqrt(self.p)
        for _ in range(self.flow - 1):
            e = self.prior.denoise(x, level)
            x, level = e + (x - e) / 2, level / 2
        pixels = np.rint((np.clip(self.prior.denoise(x, level), -1, 1) + 1) * 127.5).astype(np.uint8)
        image: Array = pixels[:, : self.stream.height, : self.stream.width].transpose(1, 2, 0)
        return image

    def goes_on(self) -> bool:
        if not self.stopped and self.step < self.steps:
            self.stopped = not self.words.decision(1 - 2.0**-12)
            return not self.stopped
        return False

    def walk(self) -> None:
        """One step."""
        x, p = self.state, self.p
        e = self.prior.denoise(x, 1 / sqrt(p))
        self.follow()
        assert self.q is not None
        error = self.curve.error(p) * self.n * QUARTERS[self.q % 4] * 2.0 ** (self.q // 4)
        after = min(self.sender.after(p, error, self.ends[self.step]), self.end)
        divergence = (after - p) * error / 2
        self.paid += divergence
        noise, atoms = self.sender.send(Step(self.step, self.sent, divergence, self.paid))
        r = p / after
        self.state = (r * x + (1 - r) * e) + sqrt((1 - r) / after) * noise.reshape(self.shape)
        self.p, self.step, self.sent = after, self.step + 1, self.sent + atoms

    def follow(self) -> None:
        """The factor of the error."""
        if self.q is None:
            self.q = self.words.integer(6) - 32
        elif not self.words.decision(0.8):
            sign, c = -1 if self.words.decision(0.5) else 1, 1
            while -32 < self.q + sign * c < 31 and not self.words.decision(0.75):
                c += 1
            self.q = min(max(self.q + sign * c, -32), 31)
