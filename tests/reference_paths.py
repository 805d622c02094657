"""A second decoder of the family ``turbo_ddcm``, written from docs/format.md alone: numpy and plain Python.

It takes the schedules ``kl`` and ``least``, Hadamard codebooks and no ``atoms``. Container, noise, network and range
coder are those of the other second decoder.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from reference_decoder import Array, Noise, Prior, RangeDecoder, read, table

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


def transform(x: Array) -> Array:
    """Sylvester's Hadamard matrix times the last dimension, by the butterfly."""
    x, half = x.copy(), 1
    while half < x.shape[-1]:
        pairs = x.reshape(*x.shape[:-1], -1, 2, half)
        x = np.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], -2).reshape(x.shape)
        half *= 2
    return x


class PathDecoder:
    def __init__(self, data: bytes, folder: Path) -> None:
        self.stream, self.prior = read(data), Prior(folder)
        assert self.prior.fingerprint() == self.stream.fingerprint
        spec = self.stream.spec
        assert (spec["name"], spec["codebook"], spec.get("atoms")) == ("turbo_ddcm", "hadamard", None)
        self.flow, self.steps = spec["flow"], spec["steps"]
        height, width = (
            -(-n // self.prior.stride) * self.prior.stride for n in (self.stream.height, self.stream.width)
        )
        self.shape, self.n = (3, height, width), 3 * height * width
        self.noise, self.words = Noise(self.stream.seed), RangeDecoder(self.stream.payload)
        self.curve = Curve(spec.get("curve") or table("codecs/paths/curve", "ERRORS"))
        self.groups = ceil(self.n / 2 ** spec["group"])
        self.size = ceil(self.n / self.groups)
        self.whole = 1 << (self.size - 1).bit_length()
        self.bits = min(spec["entries"], self.whole.bit_length() - 1)
        self.order = np.argsort(self.noise((self.n,), 1 << 40, 0, 0), kind="stable")
        self.worth = table("codecs/paths/atoms", "EXTREMES")[self.bits]
        self.p, self.end = self.curve.points[0][0], 1 / (self.stream.step * self.stream.step)
        measure = {"kl": equal, "least": least}[spec["schedule"]]
        self.ends = self.curve.divided(self.p, self.end, self.steps, measure)
        self.state = self.noise(self.shape, 1 << 41, 0, 0) * (1 / sqrt(self.p))
        self.q: int | None = None
        self.step, self.sent, self.paid, self.stopped = 0, 0, 0.0, False

    def image(self) -> Array:
        segments = self.curve.divided(self.curve.points[0][0], self.end, min(self.steps, 12), equal)
        for number, end in enumerate(segments, 1):
            while self.p < end * (1 - 2.0**-20) and self.goes_on():
                self.walk()
            bits = 8 if number == len(segments) else 3
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
            self.stopped = not self.decision(1 - 2.0**-12)
            return not self.stopped
        return False

    def decision(self, p: float) -> bool:
        return self.words.decision(round(p * 2**20) / 2**20)

    def walk(self) -> None:
        """One step."""
        x, p, after = self.state, self.p, min(self.ends[self.step], self.end)
        e = self.prior.denoise(x, 1 / sqrt(p))
        self.follow()
        assert self.q is not None
        error = self.curve.error(p) * self.n * QUARTERS[self.q % 4] * 2.0 ** (self.q // 4)
        self.paid += (after - p) * error / 2
        atoms = min(max(round(2 * self.paid / (self.worth * self.worth)) - self.sent, 0), 255 * self.groups)
        noise = self.sum(atoms)
        r = p / after
        self.state = (r * x + (1 - r) * e) + sqrt((1 - r) / after) * noise
        self.p, self.step, self.sent = after, self.step + 1, self.sent + atoms

    def follow(self) -> None:
        """The factor of the error."""
        if self.q is None:
            self.q = self.words.integer(6) - 32
        elif not self.decision(0.8):
            sign, c = -1 if self.decision(0.5) else 1, 1
            while -32 < self.q + sign * c < 31 and not self.decision(0.75):
                c += 1
            self.q = min(max(self.q + sign * c, -32), 31)

    def sum(self, atoms: int) -> Array:
        """The noise of a step."""
        shares = [atoms // self.groups] * self.groups
        for i in range(atoms % self.groups):
            shares[(self.sent + i) % self.groups] += 1
        flat = np.concatenate([self.block(b, shares[16 * b : 16 * b + 16]) for b in range(ceil(self.groups / 16))])
        found: Array = np.empty(self.n)
        found[self.order] = flat.ravel()[: self.n]
        return found.reshape(self.shape)

    def block(self, b: int, shares: list[int]) -> Array:
        total = np.zeros((len(shares), self.size))
        for k in range(max(shares)):
            drawn = self.noise((2, len(shares), self.whole), (1 << 32) + self.step, (k << 32) + 16 * b, 0)
            d, c = np.where(drawn < 0, -1.0, 1.0)
            for group, share in enumerate(shares):
                if share > k:
                    index, minus = divmod(self.number(self.bits + 1), 2)
                    u = np.zeros(self.whole)
                    u[index] = -1 if minus else 1
                    atom = transform(d[group] * transform(u)) * c[group] / sqrt(self.whole)
                    total[group] += atom[: self.size]
        for group, share in enumerate(shares):
            if share:
                total[group] *= 1 / sqrt(share)
            else:
                total[group] = self.noise((self.size,), (1 << 42) + self.step, 16 * b + group, 0)
        return total

    def number(self, bits: int) -> int:
        value = 0
        while bits:
            count = min(bits, 16)
            value, bits = value << count | self.words.integer(count), bits - count
        return value
