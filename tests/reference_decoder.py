"""A second decoder, written from docs/format.md alone: numpy and plain Python, no code of pscx.

It takes ``ddpm`` (exact), ``ddrm`` (log spacing), ``dct``, ``learned``, ``uniform``, ``trellis``, ``posterior`` and
``mean``, and is slow.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil, cos, exp, floor, lcm, log, pi, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[Any]
F4 = np.float32
OCTAVES = [o / 4 for o in (0, -1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -6, 6, -7, 7, -8, 8)]
GAINS = [round(2.0**o * 1024) / 1024 for o in OCTAVES]
RECIPES = (
    "default",
    "paper-pixel",
    "fast",
    "best",
    "paper-latent",
    "turbo",
    "latent",
    "latent-fast",
    "latent-rows",
    "perceptual",
)


# The container.


@dataclass
class Stream:
    height: int
    width: int
    fingerprint: bytes
    step: float
    seed: int
    spec: dict[str, Any]
    payload: bytes


def read(data: bytes, recipes: Sequence[dict[str, Any]] = ()) -> Stream:
    """``recipes`` are the specs of the user recipes that this decoder keeps."""
    assert data[:3] == b"\xb7PX"
    assert data[3] >> 4 == 2
    assert crc16(data[:7] + data[9:]) == int.from_bytes(data[7:9], "big")
    flags, at = data[3] & 15, 9
    assert flags & 12 == 0  # no caption; an exact codec

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    def varint() -> int:
        value = place = 0
        while True:
            byte = take(1)[0]
            value |= (byte & 127) << place
            place += 7
            if byte < 128:
                return value

    height, width, fingerprint = varint() + 1, varint() + 1, take(6)
    step = struct.unpack(">f", take(2) + b"\0\0")[0] if flags & 1 else 0.0
    seed = varint() if flags & 2 else 0
    if data[4] == 255:
        wanted = take(6)
        spec = next(recipe for recipe in recipes if digest(recipe) == wanted)
    elif data[4]:
        spec = shipped(RECIPES[data[4] - 1])
    else:
        spec = json.loads(zlib.decompress(take(varint()), -15))
    assert crc16(data[:5] + data[9:at]) == int.from_bytes(data[5:7], "big")
    return Stream(height, width, fingerprint, step, seed, spec, data[at:])


def shipped(name: str) -> dict[str, Any]:
    """The codec of a recipe's file, which the document names."""
    file = Path(__file__).parents[1] / f"pscx/config/recipes/{name}.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["codec"])


def digest(spec: dict[str, Any]) -> bytes:
    """What names a user recipe."""
    return sha256(as_json(spec).encode("ascii")).digest()[:6]


def as_json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_json(key)}:{as_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, str):
        return f'"{value}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(int(value)) if value == int(value) else repr(value)


def crc16(data: bytes) -> int:
    """Bit by bit."""
    rest = 0xFFFF
    for byte in data:
        rest ^= byte << 8
        for _ in range(8):
            rest = rest << 1 ^ (0x11021 if rest >> 15 else 0)
    return rest


# Noise.


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10, from the paper."""
    words, mask = (1 << 64), (1 << 64) - 1
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], words)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], words)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def quantiles() -> list[float]:
    lower = [round(NormalDist().inv_cdf((i + 0.5) / 65536) * 4096) / 4096 for i in range(32768)]
    return lower + [-value for value in reversed(lower)]


class Noise:
    def __init__(self, seed: int) -> None:
        self.seed, self.table = seed, quantiles()

    def __call__(self, shape: tuple[int, ...], iteration: int, sample: int, step: int) -> Array:
        count, values = int(np.prod(shape)), []
        for block in range(1, -(-count // 16) + 1):
            for word in philox([block, step, sample, iteration], [self.seed, 0x70736378]):
                values += [self.table[word >> place & 65535] for place in (0, 16, 32, 48)]
        return np.array(values[:count]).reshape(shape)


# The network.


class Convolution:
    def __init__(
        self, weight: Array, bias: Array, scale: Array | None, transposed: bool = False, rectified: bool = False
    ) -> None:
        self.transposed, self.rectified = transposed, rectified
        weight = weight.astype(np.float64)
        self.whole = weight.swapaxes(0, 1) if transposed else weight  # (out, in, rows, columns)
        if scale is None:
            scale = (np.maximum(abs(self.whole).max((1, 2, 3)), 2.0**-100) / 127).astype(F4)
            self.whole = np.rint(self.whole / scale.astype(np.float64)[:, None, None, None])
        self.scale, self.bias = scale, bias.astype(F4)
        self.top = 255 if rectified else 32639
        channels = self.whole.shape[1]
        positive, negative = (np.maximum(signed, 0).sum((2, 3)) for signed in (self.whole, -self.whole))
        sizes = [255 * positive, 255 * negative] + ([] if rectified else [128 * (positive + negative)])
        for count in range(1, channels + 1):
            self.parts = [slice(channels * i // count, channels * (i + 1) // count) for i in range(count)]
            if all(size[:, part].sum(1).max() < 1 << 24 for size in sizes for part in self.parts):
                break

    def tensors(self) -> list[Array]:
        weight = self.whole.swapaxes(0, 1) if self.transposed else self.whole
        return [np.array(self.top, F4), weight.astype(F4), self.scale, self.bias]

    def __call__(self, x: Array, stride: int = 1, padding: int = 0) -> Array:
        unit = np.maximum(abs(x).max(), F4(2.0**-100)) / F4(self.top)
        z = np.rint(x * (F4(1) / unit)).astype(np.int64)
        total = None
        for part in self.parts:
            if self.rectified:
                summed = self.sums(z, part, stride, padding).astype(F4)
            else:
                high = (z + 128) // 256
                digits = (self.sums(one, part, stride, padding).astype(F4) for one in (high, z - 256 * high))
                summed = F4(256) * next(digits) + next(digits)
            total = summed if total is None else summed + total
        assert total is not None
        return total * (unit * self.scale)[:, None, None] + self.bias[:, None, None]

    def sums(self, z: Array, part: slice, stride: int, padding: int) -> Array:
        w = self.whole[:, part].astype(np.int64)
        size = w.shape[2]
        if self.transposed:  # blocks do not overlap: the kernel is as large as the stride
            spread = np.einsum("ihw,oipq->ohpwq", z[part], w)
            return spread.reshape(len(w), z.shape[1] * size, z.shape[2] * size)
        z = np.pad(z[part], ((0, 0), (padding, padding), (padding, padding)))
        patches = np.lib.stride_tricks.sliding_window_view(z, (size, size), (1, 2))[:, ::stride, ::stride]
        return np.einsum("ihwpq,oipq->ohw", patches, w)


class Network:
    """``ResidualUNet``; the names of its weights begin with ``path``."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Array], path: str = "") -> None:
        self.blocks, self.levels = config["blocks"], len(config["blocks"])
        self.patch = round((config["in_channels"] / 3) ** 0.5)
        names = ["head"]
        names += [self.block("down", i, j) for i in range(self.levels - 1) for j in range(2 * self.blocks[i])]
        names += [f"shrink.{i}" for i in range(self.levels - 1)]
        names += [self.block("body", None, j) for j in range(2 * self.blocks[-1])]
        names += [f"grow.{i}" for i in range(self.levels - 1)]
        names += [self.block("up", i, j) for i in range(self.levels - 1) for j in range(2 * self.blocks[i])]
        self.layers = {
            name: Convolution(
                weights[f"{path}{name}.weight"],
                weights[f"{path}{name}.bias"],
                weights.get(f"{path}{name}.weight_scale"),
                transposed=name.startswith("grow"),
                rectified=name.endswith("second"),
            )
            for name in [*names, "tail"]
        }

    @staticmethod
    def block(way: str, level: int | None, layer: int) -> str:
        inside = f"{layer // 2}.{'second' if layer % 2 else 'first'}"
        return f"{way}.{inside}" if level is None else f"{way}.{level}.{inside}"

    def chain(self, x: Array, way: str, level: int | None, count: int) -> Array:
        for j in range(count):
            first, second = (self.layers[self.block(way, level, 2 * j + i)] for i in (0, 1))
            x = x + second(np.maximum(first(x, padding=1), F4(0)), padding=1)
        return x

    def __call__(self, x: Array, level: np.float32) -> Array:
        x = np.concatenate([x, np.full((1, *x.shape[1:]), level * F4(1 / 3), F4)])
        x, kept = self.layers["head"](x, padding=1), []
        for i in range(self.levels - 1):
            x = self.chain(x, "down", i, self.blocks[i])
            kept.append(x)
            x = self.layers[f"shrink.{i}"](x, stride=2)
        x = self.chain(x, "body", None, self.blocks[-1])
        for i in reversed(range(self.levels - 1)):
            x = self.chain(self.layers[f"grow.{i}"](x) + kept[i], "up", i, self.blocks[i])
        return self.layers["tail"](x, padding=1)


class Prior:
    tiles = (1024, 768, 48, 16)  # the longest side that is not cut, cores, what is around them, half of a ramp

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "unet/config.json").read_text())
        weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
        if config["_class_name"] == "NoiseExperts":
            low = {**config, "blocks": config.get("low_blocks") or config["blocks"]}
            self.networks = [Network(low, weights, "low."), Network(config, weights, "high.")]
            self.border = round(log(config["switch"]) * 4096) / 4096
        else:
            self.networks, self.border = [Network(config, weights)], float("inf")
        self.patch = self.networks[0].patch

        def f(u: float) -> float:
            return cos((u + 0.008) / 1.008 * pi / 2) ** 2

        b = np.array([min(1 - f((t + 1) / 1000) / f(t / 1000), 0.999) for t in range(1000)]).astype(F4)
        a = np.cumprod((F4(1) - b).astype(np.float64)).astype(F4).astype(np.float64)
        self.levels = np.sqrt((1 - a) / a)
        self.table = np.array([round(log(min(level, 250)) * 4096) / 4096 for level in self.levels]).astype(F4)
        self.stride = self.patch * 2 ** (self.networks[0].levels - 1)

    def fingerprint(self) -> bytes:
        state = sha256()
        layers = [layer for network in self.networks for layer in network.layers.values()]
        tensors = [tensor for layer in layers for tensor in layer.tensors()]
        border = [] if len(self.networks) == 1 else [np.array(self.border)]
        for tensor in [*tensors, self.levels, self.table, *border]:
            state.update(f"torch.{tensor.dtype}{tuple(tensor.shape)}".encode() + np.ascontiguousarray(tensor).tobytes())
        return state.digest()[:6]

    def denoise(self, x: Array, s: float) -> Array:
        x0 = np.zeros(x.shape)
        for top, bottom, down in self.stretches(x.shape[1]):
            for left, right, across in self.stretches(x.shape[2]):
                tile = self.denoise_tile(x[:, top:bottom, left:right], s)
                x0[:, top:bottom, left:right] += tile * (down[:, None] * across)
        return x0

    def stretches(self, side: int) -> list[tuple[int, int, Array]]:
        limit, core, halo, fade = self.tiles
        if side <= limit:
            return [(0, side, np.ones(side))]
        count, m = ceil(side / core), self.stride
        cuts = [side // m * i // count * m for i in range(count + 1)]
        found = []
        for i in range(count):
            start = max(cuts[i] - m * ceil(halo / m), 0)
            stop = min(cuts[i + 1] + m * ceil(halo / m), side)
            x = np.arange(start, stop)
            rising = np.ones(len(x)) if i == 0 else np.clip((2 * (x - cuts[i]) + 1) / (4 * fade) + 0.5, 0, 1)
            falling = np.zeros(len(x))
            if i < count - 1:
                falling = np.clip((2 * (x - cuts[i + 1]) + 1) / (4 * fade) + 0.5, 0, 1)
            found.append((start, stop, rising * (1 - falling)))
        return found

    def denoise_tile(self, x: Array, s: float) -> Array:
        p, (c, h, w) = self.patch, x.shape
        t, r = int(abs(self.levels - s).argmin()), sqrt(s * s + 1)
        network = self.networks[0 if self.table[t] <= self.border else 1]
        cut = (1 / r * x).astype(F4).reshape(c, h // p, p, w // p, p).transpose(0, 2, 4, 1, 3)
        cut = cut.reshape(c * p * p, h // p, w // p)
        v = network(cut, self.table[t]).reshape(c, p, p, h // p, w // p).transpose(0, 3, 1, 4, 2).reshape(c, h, w)
        return 1 / (s * s + 1) * x - s / r * v.astype(np.float64)


# The transform.


def dct(size: int) -> Array:
    rows = [[cos(pi * (n + 0.5) * k / size) * sqrt(2 / size) for n in range(size)] for k in range(size)]
    rows[0] = [sqrt(1 / size)] * size
    return np.rint(np.array(rows) * 2**20) / 2**20


def whole(x: Array) -> Array:
    return np.rint(np.clip(x * 2**20, -127 * 2**20, 127 * 2**20))


def fine(x: Array) -> Array:
    return np.rint(np.clip(x * 2.0**31, -1023 * 2.0**31, 1023 * 2.0**31)) / 2.0**31


class Transform:
    def __init__(self, side: int, height: int, width: int, axes: Array | None = None) -> None:
        self.side, self.grid = side, (height // side, width // side)
        self.d, self.axes = dct(side), dct(3) if axes is None else axes

    def forward(self, x: Array) -> Array:
        (down, across), n = self.grid, self.side
        x = np.rint(np.einsum("dc,chw->dhw", self.axes, whole(x))).reshape(3, down, n, across, n)
        x = np.rint(np.einsum("pi,cyixj->cypxj", self.d, x))
        x = np.rint(np.einsum("qj,cypxj->cypxq", self.d, x))
        return x.transpose(1, 3, 0, 2, 4).reshape(down * across, 3 * n * n) / 2**20

    def inverse(self, x: Array) -> Array:
        (down, across), n = self.grid, self.side
        x = whole(x).reshape(down, across, 3, n, n).transpose(2, 0, 3, 1, 4)
        x = np.rint(np.einsum("qj,cypxq->cypxj", self.d, x))
        x = np.rint(np.einsum("pi,cypxj->cyixj", self.d, x)).reshape(3, down * n, across * n)
        return np.rint(np.einsum("dc,dhw->chw", self.axes, x)) / 2**20


def base_variances(side: int) -> Array:
    """``B``."""
    place = np.arange(side)
    y, x = (t.ravel() for t in np.meshgrid(place, place, indexing="ij"))
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    covariance = np.zeros((3 * side**2, 3 * side**2))
    axes = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))
    numbers = ((0.696, 0.058, 0.69), (0.0836, 0.0105, 0.95), (0.0167, 0.0135, 0.92))
    for axis, (v, r, p) in zip(axes, numbers, strict=True):
        e = np.array(axis) / np.linalg.norm(axis)
        covariance += np.kron(v * np.outer(e, e), np.exp(-r * distance**p))
    one = Transform(side, side, side)
    rows = np.stack([one.inverse(unit[None]).ravel() for unit in np.eye(3 * side**2)])
    mantissa, exponent = np.frexp(np.einsum("ri,ij,rj->r", rows, covariance, rows, optimize=True))
    return fine(np.ldexp(np.rint(mantissa * 1024), exponent - 10))


class Statistics:
    """What is known of blocks of three channels: ``base`` is ``B``, ``mean`` that of coefficients number 0."""

    def __init__(self, numbers: list[float], side: int) -> None:
        place = np.arange(side)
        radius = np.rint(np.hypot(place[:, None], place)).astype(int)
        means, axes, variances = np.split(np.array(numbers), [3, 12])
        self.axes = np.rint(axes.reshape(3, 3) * 2**20) / 2**20
        self.base = fine(variances.reshape(3, -1)[:, radius].ravel())
        total = np.zeros(3)
        for u, column in zip(means, axes.reshape(3, 3).T, strict=True):
            total = total + u * column
        self.mean = fine(side * total)


# The features of ``learned``, in single precision.


def weights_of(side: int, chroma: float, knee: float) -> Array:
    """What an error of each coefficient counts."""
    square = np.arange(side, dtype=float) ** 2
    square = square[:, None] + square
    weight = 1 / np.sqrt(1 + square / (2 * side * knee) ** 2) if knee else np.ones_like(square)
    axes = np.stack([weight, weight * chroma, weight * chroma])
    return np.maximum(np.round(axes * 256) / 256, 1 / 256).ravel()


def photographs(module: str) -> list[float]:
    """The numbers of the default weights."""
    return table(f"rows/{module}", "PHOTOGRAPHS")


def table(module: str, name: str) -> list[float]:
    """The numbers of a table, out of the text of the file that the document names."""
    text = (Path(__file__).parents[1] / f"pscx/{module}.py").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = [\[(]\n(.*?)^[\])]", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [float(number) for number in re.findall(r"[-+.\de]+", found[1])]


def around(x: Array, axis: int, reach: int, weight: float = 1.0) -> Array:
    """``x`` and, times ``weight``, what lies up to ``reach`` places before and behind it."""
    margin = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    shifted = np.lib.stride_tricks.sliding_window_view(np.pad(x, margin), x.shape[axis], axis)
    total = x
    for place in (place for place in range(2 * reach + 1) if place != reach):
        total = total + F4(weight) * np.moveaxis(shifted.take(place, axis), -1, axis)
    return total


def near(x: Array) -> Array:
    """``N`` of ``(rows of blocks, columns of blocks, channel axis, row, column)``."""
    return around(around(x, 4, 1), 3, 1)


def wide(x: Array) -> Array:
    """``W``."""
    return around(around(around(around(x, 0, 1, 0.5), 1, 1, 0.5), 4, 2), 3, 2)


def ln(x: Array) -> Array:
    half, exponent = np.frexp(x)
    h, root = half * F4(2), F4(sqrt(2))
    z = (h - root) / (h + root)
    s = z * z
    series = ((s * F4(2 / 5) + F4(2 / 3)) * s + F4(2)) * z
    return series + F4(log(2) / 2) + (exponent - 1).astype(F4) * F4(log(2))


def lg(x: Array) -> Array:
    return ln(x.astype(F4) + F4(1e-6))


def exponential(x: Array) -> Array:
    u = x * F4(1.4426950408889634)
    e = np.rint(u)
    d = u - e
    total = np.zeros_like(d)
    for c in (0.001326472731307149, 0.009671512991189957, 0.05550733581185341, 0.24022242426872253, 0.6931470036506653):
        total = (total + F4(c)) * d
    return np.ldexp(total + F4(1), e.astype(np.int32))


# The pyramid of block means.


def steps(grid: tuple[int, int]) -> Iterator[tuple[list[tuple[int, int]], int, bool]]:
    """Blocks of each step, with its spacing and whether each lies in the middle of four."""
    yield [(0, 0)], 0, False
    h = 1
    while h < max(grid):
        h *= 2
    while h > 1:
        h //= 2
        places = [(y, x) for y in range(0, grid[0], h) for x in range(0, grid[1], h)]
        for middle in (True, False):
            odd = [(y // h % 2, x // h % 2) for y, x in places]
            wanted = [(1, 1)] if middle else [(0, 1), (1, 0)]
            chosen = [place for place, parity in zip(places, odd, strict=True) if parity in wanted]
            if chosen:
                yield chosen, h, middle


EDGE = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -2), (-1, 2), (1, -2), (1, 2), (-2, -1), (-2, 1), (2, -1), (2, 1))
CENTRE = ((-1, -1), (1, 1), (-1, 1), (1, -1), (-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (3, -1), (-3, 1), (3, 1))


@dataclass
class Pyramid:
    """What is known of the block means while they are decoded."""

    grid: tuple[int, int]
    step: float
    weights: list[float]

    def __post_init__(self) -> None:
        self.value = np.full((3, *self.grid), np.nan)  # where nothing is known

    def there(self, axis: int, place: tuple[int, int], h: int, middle: bool) -> list[float | None]:
        """The values of the twelve neighbours, none for those that are not known."""
        found: list[float | None] = []
        for dy, dx in CENTRE if middle else EDGE:
            y, x = place[0] + dy * h, place[1] + dx * h
            inside = 0 <= y < self.grid[0] and 0 <= x < self.grid[1]
            value = float(self.value[axis, y, x]) if inside else float("nan")
            found.append(None if value != value else value)
        return found

    def mean(self, axis: int, place: tuple[int, int], h: int, middle: bool) -> float:
        four = self.there(axis, place, h, middle)[:4]
        a, b, c, d = (0.0 if value is None else value for value in four)
        known = [value for value in four if value is not None]
        if len(known) < 4:
            return (((a + b) + c) + d) / max(len(known), 1)
        u, v = (1 / (((p - q) * (p - q) + self.step * self.step) + 1e-6) for p, q in ((a, b), (c, d)))
        return ((a + b) * u + (c + d) * v) / (2 * (u + v))

    def spread(self, axis: int, place: tuple[int, int], h: int, middle: bool, among: int) -> float:
        mean = self.mean(axis, place, h, middle)
        known = [value for value in self.there(axis, place, h, middle)[:among] if value is not None]
        total = 0.0
        for value in known:
            total += (value - mean) * (value - mean)
        return total / max(len(known), 1)

    def variance(self, axis: int, place: tuple[int, int], h: int, middle: bool, error: float) -> float:
        four = self.there(axis, place, h, middle)[:4]
        beside = error * error
        if axis == 0:
            beside = 0.0 + self.spread(1, place, h, middle, 4) + self.spread(2, place, h, middle, 4)
        logs = [self.spread(axis, place, h, middle, 4), self.spread(axis, place, h, middle, 12), beside]
        numbers = [F4(v + (0.1 * self.step * self.step + 1e-6)) for v in logs]
        numbers.append(F4(max(sum(value is not None for value in four), 1)))
        features = [*ln(np.array(numbers, F4)), F4(middle), F4(min(h.bit_length() - 1, 3))]
        weights = [F4(w) for w in (self.weights[:7] if axis == 0 else self.weights[7:])]
        t = weights[6]
        for feature, weight in zip(features, weights, strict=False):
            t = t + feature * weight
        v = exponential(np.clip(np.array([t], F4), F4(-20), F4(20)))
        return float(v[0]) + 1 / 12 * self.step * self.step


# Range coder and symbols.


class RangeDecoder:
    def __init__(self, payload: bytes) -> None:
        padded = payload + bytes(-len(payload) % 4)
        self.words = iter(struct.unpack(f">{len(padded) // 4}I", padded))
        self.low, self.range = 0, (1 << 64) - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        return next(self.words, 0)

    def quotient(self) -> int:
        return (self.point - self.low & (1 << 64) - 1) // (self.range >> 24)

    def take(self, left: int, prob: int) -> None:
        unit, mask = self.range >> 24, (1 << 64) - 1
        self.low = self.low + unit * left & mask
        self.range = unit * prob
        if self.range < 1 << 32:
            self.low, self.range = self.low << 32 & mask, self.range << 32
            self.point = self.point << 32 & mask | self.word()

    def decision(self, p: float) -> bool:
        no = floor((1 - p) * (2**24 - 2)) + 1
        yes = self.quotient() >= no
        self.take(no if yes else 0, (1 << 24) - no if yes else no)
        return yes

    def integer(self, bits: int) -> int:
        value = self.quotient() >> 24 - bits
        self.take(value << 24 - bits, 1 << 24 - bits)
        return value


def tail(z: float) -> float:
    square = 2 + z * z
    u, s = 2 / square, z / sqrt(square)
    return (((0.25 * u + 0.75) * u + 0.0) * u + 0.0) / (2 * (1 + s * (0.5 * u + 1)))


def sides(z: float) -> tuple[float, float]:
    """Masses below and above ``z``."""
    outside = tail(min(abs(z), 1e60))
    return (outside, 1 - outside) if z < 0 else (1 - outside, outside)


def mass(first: tuple[float, float], second: tuple[float, float]) -> float:
    return first[1] - second[1] if first[1] < 0.5 else second[0] - first[0]


def cost(m: float) -> int:
    """In units of 2^-10 bits."""
    f, e = np.frexp(max(m, 2.0**-40))
    f, e = (2 * float(f), int(e) - 1) if f < 0.70703125 else (float(f), int(e))
    y = (f - 1) / (f + 1)
    square = y * y
    return round(-1024 * (e + 2.8853900817779268 * y * (1 + square * (1 / 3 + square * (1 / 5)))))


class Uniform:
    """Symbols of one group: ``begin`` gives rows that are found together, ``offset`` an edge less the mean."""

    def __init__(self, step: float, spec: dict[str, Any]) -> None:
        self.step, self.half = step, 2 ** (spec["bits"] - 1) - 1

    def begin(self, rows: int) -> Iterator[range]:
        yield range(rows)

    def took(self, row: int, symbol: int) -> None:
        pass

    def edge(self, row: int, symbol: int, mean: float) -> float:
        if symbol == 0:
            return -float("inf")
        return float("inf") if symbol == 2 * self.half + 1 else mean + (symbol - (self.half + 0.5)) * self.step

    def offset(self, row: int, symbol: int, mean: float) -> float:
        return self.edge(row, symbol, mean) - mean

    def value(self, row: int, symbol: int, mean: float, scale: float) -> float:
        return mean + (symbol - self.half) * self.step

    def noise(self, row: int, symbol: int) -> float:
        return self.step**2 / 12


class Trellis(Uniform):
    def __init__(self, step: float, spec: dict[str, Any]) -> None:
        super().__init__(step, spec)
        self.degrees = spec["degrees"]
        assert self.degrees
        self.table = {
            4: [(0, 0, 2), (0, 2, 0), (1, 1, 3), (1, 3, 1)],
            8: [(0, 0, 2), (1, 5, 7), (0, 1, 3), (1, 6, 4), (0, 2, 0), (1, 4, 6), (0, 3, 1), (1, 7, 5)],
        }[spec["states"]]

    def begin(self, rows: int) -> Iterator[range]:
        lanes = max(ceil(rows / 64), 1)
        self.state, self.grids = [0] * lanes, [0] * rows
        for first in range(0, rows, lanes):
            yield range(first, min(first + lanes, rows))

    def took(self, row: int, symbol: int) -> None:
        lane = row % len(self.state)
        self.state[lane] = self.table[self.state[lane]][1 + (symbol - self.half) % 2]
        if row + len(self.state) < len(self.grids):
            self.grids[row + len(self.state)] = self.table[self.state[lane]][0]

    def point(self, row: int, symbol: int) -> int:
        k = symbol - self.half
        return 2 * k - self.grids[row] * ((k > 0) - (k < 0))

    def offset(self, row: int, symbol: int, mean: float) -> float:
        if symbol == 0:
            return -float("inf")
        if symbol == 2 * self.half + 1:
            return float("inf")
        return (self.point(row, symbol - 1) + self.point(row, symbol)) / 2 * (0.625 * self.step)

    def value(self, row: int, symbol: int, mean: float, scale: float) -> float:
        p, spacing = self.point(row, symbol) * (0.625 * self.step), 0.625 * self.step
        a = max(scale * scale * (self.degrees - 2), 1e-300)
        o = self.noise(row, symbol) * ((self.degrees + 1) * p / (a + p * p))
        return mean + (p + min(max(o, -spacing), spacing))

    def noise(self, row: int, symbol: int) -> float:
        return (0.105, 0.065, 0.095)[min(abs(self.point(row, symbol)), 2)] * (self.step * self.step)


@dataclass
class Group:
    """What was decoded of some coefficients: ``edges`` are those of their cells, less the mean."""

    symbols: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    edges: list[list[float]] = field(default_factory=list)

    def add(self, other: Group) -> None:
        self.symbols += other.symbols
        self.values += other.values
        self.noise += other.noise
        self.scales += other.scales
        self.edges += other.edges


@dataclass
class Posterior:
    words: RangeDecoder
    quantizer: Uniform
    scores: list[float] = field(default_factory=lambda: [0.0] * len(GAINS))

    def group(self, means: list[float], scales: list[float], known: float) -> list[int]:
        best = [score + 0.75 * o * o for score, o in zip(self.scores, OCTAVES, strict=True)]
        gain = GAINS[best.index(min(best))]
        spreads = [max(scale, 2.0**-64) * known for scale in scales]
        whole = 2 * self.quantizer.half + 1
        cells = [(0, whole)] * len(means)
        for turn in self.quantizer.begin(len(means)):
            while any(cells[i][1] - cells[i][0] > 1 for i in turn):
                for i in turn:
                    low, high = cells[i]
                    if high - low > 1:
                        middle = between(low, high, whole)
                        at = [sides(self.z(i, symbol, means[i], spreads[i] * gain)) for symbol in (low, middle, high)]
                        part, both = mass(at[1], at[2]), mass(at[0], at[2])
                        p = part / both if both > 1e-250 else 0.5
                        p = min(max(round(p * 2**20) / 2**20, 2.0**-16), 1 - 2.0**-16)
                        cells[i] = (middle, high) if self.words.decision(p) else (low, middle)
            for i in turn:
                self.quantizer.took(i, cells[i][0])
        symbols = [low for low, _ in cells]
        for number, other in enumerate(GAINS):
            parts = enumerate(zip(symbols, means, spreads, strict=True))
            bits = sum(cost(self.cell(i, y, mean, spread * other)) for i, (y, mean, spread) in parts) / 1024
            self.scores[number] = self.scores[number] * (512 / (512 + len(means))) + bits
        return symbols

    def z(self, row: int, symbol: int, mean: float, spread: float) -> float:
        return self.quantizer.offset(row, symbol, mean) / spread

    def cell(self, row: int, symbol: int, mean: float, spread: float) -> float:
        return mass(sides(self.z(row, symbol, mean, spread)), sides(self.z(row, symbol + 1, mean, spread)))


def between(low: int, high: int, whole: int) -> int:
    c = whole // 2
    middle = (low + high) // 2
    if (low, high) == (0, whole):
        middle = c + 8
    elif (low, high) == (0, c + 8):
        middle = c - 7
    elif low == 0 and high <= c - 7:
        middle = 2 * high - c
    elif high == whole and low > c:
        middle = 2 * low - c
    return middle if low < middle < high else (low + high) // 2


# The loop.


class Decoder:
    def __init__(self, data: bytes, folder: Path, recipes: Sequence[dict[str, Any]] = ()) -> None:
        self.stream, self.prior = read(data, recipes), Prior(folder)
        assert self.prior.fingerprint() == self.stream.fingerprint
        self.spec, self.rows = self.stream.spec, self.stream.spec["rows"]
        names = {key: self.spec[key]["name"] for key in ("sampler", "rows", "quantizer", "coder", "restoration")}
        assert self.rows["name"] in ("dct", "learned")
        kinds = {"uniform": Uniform, "trellis": Trellis}
        assert names["quantizer"] in kinds
        assert [names[key] for key in ("coder", "restoration")] == ["posterior", "mean"]
        for sampler in (self.spec["sampler"], self.spec.get("restoration_sampler", self.spec["sampler"])):
            assert (sampler["name"], sampler["noise_aware"]) == ("ddrm", True)
        assert self.spec["coder"]["adapt"]
        side = self.rows["block"]
        multiple = lcm(self.prior.stride, side)
        height, width = (-(-n // multiple) * multiple for n in (self.stream.height, self.stream.width))
        known = self.rows.get("statistics")
        learnt = None if known is None else Statistics(known, side)
        self.shape = (3, height, width)
        self.transform = Transform(side, height, width, None if learnt is None else learnt.axes)
        self.noise = Noise(self.stream.seed)
        self.base = base_variances(side) if learnt is None else learnt.base
        self.expected = np.zeros(3) if learnt is None else learnt.mean
        self.at_once = learnt is not None
        self.weight = weights_of(side, self.rows.get("chroma", 1.0), self.rows.get("knee", 0.0))
        self.quantizer = kinds[names["quantizer"]](self.stream.step, self.spec["quantizer"])
        self.coder = Posterior(RangeDecoder(self.stream.payload), self.quantizer)
        blocks, dim = height * width // side**2, 3 * side**2
        self.known = np.zeros((blocks, dim), bool)
        self.value, self.variance = np.zeros((blocks, dim)), np.zeros((blocks, dim))
        self.gain = np.ones(blocks)
        self.estimate: Array | None = None

    def image(self) -> Array:
        k = 0
        while not self.segment(k):
            k += 1
        options = self.spec.get("restoration_sampler", self.spec["sampler"])
        samples = self.spec["restoration"]["samples"]
        restored = sum(self.draws(65536, samples, options), np.zeros(self.shape)) / samples
        pixels = np.rint((np.clip(restored, -1, 1) + 1) * 127.5).astype(np.uint8)
        return pixels[:, : self.stream.height, : self.stream.width].transpose(1, 2, 0)

    def segment(self, k: int) -> bool:
        """Decode a segment; whether it is the last."""
        samples: list[Array] = []
        if k > 0:
            samples = list(self.draws(k, self.spec["samples"], self.spec["sampler"]))
            self.estimate = sum(samples[1:], samples[0]) / len(samples)
        if k == 0 and self.rows["first"] == "pyramid":
            block, number, found = self.means()
        else:
            block, number, variance, groups = self.choose(k, samples)
            area = self.rows["block"] ** 2
            mean = np.where(number % area, 0.0, self.expected[number // area])
            if self.estimate is not None:
                mean = self.transform.forward(self.estimate)[block, number]
            elif self.at_once:
                groups = [len(block)]
            found, first = Group(), 0
            for size in [len(block)] if isinstance(self.quantizer, Trellis) else groups:
                part = slice(first, first + size)
                scale = np.sqrt(np.maximum(variance[part], 1e-24))
                found.add(self.group(k, mean[part], scale, self.weight[number[part]]))
                first += size
        y, values = np.array(found.symbols, np.int64), np.array(found.values)
        last = k == self.spec["iterations"] - 1 or (k > 0 and len(block) < self.spec["least_rows"] * len(self.gain))
        bits = 8 if last else max(1, min(3, 36 // self.spec["iterations"]))
        check = zlib.crc32(y.astype("<i8").tobytes(), zlib.crc32(values.astype("<f8").tobytes()))
        assert self.coder.words.integer(bits) == check >> 32 - bits, f"seal of segment {k}"
        self.known[block, number] = True
        self.value[block, number] = values
        self.variance[block, number] = found.noise
        if self.estimate is not None:
            self.correct(block, found)
        return last

    def group(self, k: int, means: Array, scales: Array, weights: Array) -> Group:
        """Decode a group of coefficients."""
        gains = self.spec["coder"]["gains"] or [1.0]
        mean, scale = (means * weights).tolist(), (scales * weights).tolist()
        symbols = self.coder.group(mean, scale, gains[min(k, len(gains) - 1)])
        rows = list(enumerate(zip(symbols, mean, scale, strict=True)))
        edges = [[self.quantizer.offset(i, at, m) for at in (y, y + 1)] for i, (y, m, _) in rows]
        by = weights.tolist()
        values = [self.quantizer.value(i, *row) / w for (i, row), w in zip(rows, by, strict=True)]
        noise = [self.quantizer.noise(i, y) / (w * w) for (i, (y, *_)), w in zip(rows, by, strict=True)]
        return Group(symbols, values, noise, scale, edges)

    def means(self) -> tuple[Array, Array, Group]:
        """The first segment, where it is a pyramid: blocks, coefficients, and what was found."""
        area, grid = self.rows["block"] ** 2, self.transform.grid
        pyramid = Pyramid(grid, self.stream.step, self.rows["pyramid"] or photographs("pyramid"))
        found, at = Group(), []
        for places, h, middle in steps(grid):
            error = dict.fromkeys(places, 0.0)
            fresh: list[tuple[tuple[int, tuple[int, int]], float]] = []
            for axes in ((0,), (1, 2)):
                rows = [(axis, place) for axis in axes for place in places]
                if h:
                    mean = [pyramid.mean(axis, place, h, middle) for axis, place in rows]
                    variance = [pyramid.variance(axis, place, h, middle, error[place]) for axis, place in rows]
                else:
                    mean = [float(self.expected[axis]) for axis, _ in rows]
                    variance = [float(self.base[axis * area]) for axis, _ in rows]
                weights = self.weight[[axis * area for axis, _ in rows]]
                finer = [1.0 if y % 4 or x % 4 else self.rows.get("coarse", 1.0) for _, (y, x) in rows]
                weights = np.round(weights * finer * 256) / 256
                group = self.group(0, np.array(mean), np.sqrt(np.maximum(variance, 1e-24)), weights)
                for (axis, place), m, value in zip(rows, mean, group.values, strict=True):
                    at.append((place[0] * grid[1] + place[1], axis * area))
                    if axis == 0:
                        error[place] = value - m
                found.add(group)
                fresh += zip(rows, group.values, strict=True)
            for (axis, place), value in fresh:
                pyramid.value[axis, place[0], place[1]] = value
        block, number = np.array(at, np.int64).T
        return block, number, found

    def correct(self, block: Array, found: Group) -> None:
        own = np.zeros((len(GAINS), len(self.gain)), np.int64)
        for b, s, edges in zip(block, found.scales, found.edges, strict=True):
            low, high = (edge / s for edge in edges)
            for i, g in enumerate(GAINS):
                at = [sides(min(max(edge / g, -1e12), 1e12)) for edge in (low, high)]
                own[i, b] += cost(mass(*at))
        shared = own.sum(1, keepdims=True) * (8 / max(len(block), 1))
        scores = own + shared + 768 * np.square(OCTAVES)[:, None]
        self.gain *= np.array(GAINS)[scores.argmin(0)] ** 2

    def choose(self, k: int, samples: list[Array]) -> tuple[Array, Array, Array, list[int]]:
        rows = self.rows
        variance = np.where(self.known, 0.0, self.base)
        if samples:
            c = np.stack([self.transform.forward(sample) for sample in samples])
            m = c.sum(0) / len(c)
            n = len(c)
            s = fine(fine((c - m) ** 2).sum(0) / max(n - n % 2 / n if self.spec["antithetic"] else n - 1, 1))
            variance = self.learned(k, s, m) if rows["name"] == "learned" else self.mixed(s, variance)
        variance = variance * self.weight**2
        quota = rows["per_iteration"]
        for _ in range(k):
            quota = min(quota * rows["growth"], 2.0**40)
        most, left = int(quota * len(variance)), 0
        if rows["complete"] and 2 * k >= self.spec["iterations"]:
            wanted = rows["complete"] * self.stream.step
            left = int((variance >= wanted * wanted).sum())
            shares, share = 0.0, 1.0
            for _ in range(self.spec["iterations"] - k):
                shares, share = shares + share, min(share * rows["growth"], 2.0**40)
            most = max(most, min(int(left / shares), 1 << 21))
        depth = max(rows["depth"], 3 * most // (2 * len(variance)) if left else 0)
        order = np.argsort(-variance, axis=1, kind="stable")[:, :depth]
        variance = np.take_along_axis(variance, order, 1)
        most = max(1, most)
        limit = rows["floor"] * self.stream.step
        limit = limit * limit
        if variance.size > most:
            limit = max(limit, np.sort(variance.ravel())[-most])
        rank, block = np.nonzero((variance.T >= limit) & (variance.T > 0))
        groups: list[int] = []
        for size in np.bincount(rank).tolist():
            if groups and groups[-1] < 128:
                groups[-1] += size
            else:
                groups.append(size)
        number = order[block, rank]
        return block, number, variance[block, rank] / self.weight[number] ** 2, groups

    def learned(self, k: int, s: Array, m: Array) -> Array:
        side, free = self.transform.side, ~self.known
        shape = (*self.transform.grid, 3, side, side)
        local, unknown, energy = (v.astype(F4).reshape(shape) for v in (s * free, free, m * m))
        one, y, x = np.ones(shape, F4), np.arange(side, dtype=F4)[:, None], np.arange(side, dtype=F4)
        features = [
            lg(near(local) / np.maximum(near(unknown), F4(1))),
            lg(wide(local) / np.maximum(wide(unknown), F4(1 / 4))),
            lg(near(energy) / near(one)),
            lg(wide(energy) / wide(one)),
            lg(self.gain).reshape(*shape[:2], 1, 1, 1),
            (free.sum(1).astype(F4) / F4(free.shape[1])).reshape(*shape[:2], 1, 1, 1),
            lg(self.base).reshape(shape[2:]),
            ln(np.sqrt(y * y + x * x) + F4(1)),
            np.array([1, 0, 0], F4)[:, None, None],
        ]
        w = self.rows["weights"] or photographs("learned")
        assert len(w) == 30
        p, r = k / (self.spec["iterations"] - 1), 1 / (k * k)
        g = [F4(w[j] + p * w[10 + j] + r * w[20 + j]) for j in range(10)]
        t = np.full(shape, g[9])
        for weight, feature in zip(g, features, strict=False):
            t = t + feature * weight
        assert t.dtype == F4
        variance = exponential(np.clip(t, F4(-20), F4(20))).astype(np.float64)
        return np.where(self.known, 0.0, variance.reshape(s.shape))

    def mixed(self, s: Array, prior: Array) -> Array:
        """The variances of ``dct``."""
        local, base = self.pooled(s), self.rows["base"]
        parts, axes = local.reshape(len(local), 3, -1), prior.reshape(len(local), 3, -1)
        energy = parts.sum(2) / np.maximum(axes.sum(2), 1e-12)
        scaled = (energy[..., None] * axes).reshape(local.shape)
        variance = ((1 - base) * local + base * scaled) * self.gain[:, None]
        return variance * self.leveled(variance)[:, None]

    def leveled(self, variance: Array) -> Array:
        energy = np.round(fine(variance).sum(1) * 4096) / 4096
        ratio = np.maximum(energy.sum() / len(energy), 2.0**-12) / np.maximum(energy, 2.0**-12)
        factor, eighths = np.ones(len(energy)), int(8 * self.rows["evenness"])
        if eighths == 8:
            factor = ratio
        for place in (4, 2, 1):
            ratio = np.sqrt(ratio)
            if eighths != 8 and eighths & place:
                factor = factor * ratio
        return np.clip(factor, 1 / 8, 8)

    def pooled(self, s: Array) -> Array:
        down, across = self.transform.grid
        free = ~self.known
        total = np.zeros((2, down, across, s.shape[1]))
        planes = np.stack([s * free, free.astype(float)]).reshape(2, down, across, -1)
        planes = np.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                weight = 1.0 if x == y == 0 else self.rows["neighbours"] * (0.25 if x and y else 0.5)
                total += weight * planes[:, 1 + y : 1 + y + down, 1 + x : 1 + x + across]
        mean = (total[0] / np.maximum(total[1], 1e-12)).reshape(s.shape)
        return fine(mean * free)

    def draws(self, k: int, count: int, options: dict[str, Any]) -> Iterator[Array]:
        levels = [float(self.prior.levels[t]) for t in self.times(options)]
        for i in range(count):
            guess = np.zeros(self.shape) if not self.warm(options) else self.estimate
            assert guess is not None
            x = levels[0] * self.drawn(k, i, 0) + self.project(guess, 1.0)
            for j, s in enumerate(levels):
                x0 = self.project(self.prior.denoise(x, s), s)
                if j + 1 < len(levels):
                    eta = options["eta"]
                    z = eta * self.drawn(k, i, j + 1)
                    if eta < 1:
                        z += sqrt(1 - eta * eta) * (x - x0) / s
                    x = levels[j + 1] * z + x0
            yield x0

    def drawn(self, k: int, i: int, step: int) -> Array:
        """The noise of a draw; antithetic ones come in pairs."""
        odd = i % 2 if self.spec["antithetic"] else 0
        noise = self.noise(self.shape, k, i - odd, step)
        return -noise if odd else noise

    def warm(self, options: dict[str, Any]) -> bool:
        return self.estimate is not None and options["warm_start"] is not None

    def times(self, options: dict[str, Any]) -> list[int]:
        levels = self.prior.levels
        start = options["warm_start"] if self.warm(options) else options["start"]
        first, last = (int(abs(levels - level).argmin()) for level in (start, options["stop"]))
        if options["steps"] == 1 or first <= last:
            return [first]
        l0, l1, count = log(levels[first]), log(levels[last]), options["steps"]
        wanted = [exp(l0 + (l1 - l0) * i / (count - 1)) for i in range(count)]
        return sorted({int(abs(levels - level).argmin()) for level in wanted}, reverse=True)

    def project(self, x: Array, s: float) -> Array:
        u = s * s / (1 + s * s)
        gain = u / (u + self.variance)
        missing = (self.value - self.transform.forward(x) * self.known) * gain
        return x + self.transform.inverse(missing * self.known)
