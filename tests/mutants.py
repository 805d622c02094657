"""Streams that no encoder wrote: what the fuzz test and ``benchmarks/fuzz_streams.py`` feed to a decoder.

A mutant is a function of its number alone, so that a run can go on where another one stopped, and a finding is a
number. Some keep the checksum of the stream that they were made from, others have one that fits.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sealing import resealed
from tiny import save_prior

from pscx import Decompressor, PscxError, load_codec, load_recipes
from pscx.catalogue.components import SECTIONS
from pscx.format.container import STREAM_CHECK, Header, pack, unpack
from pscx.format.limits import Limits
from pscx.priors import DDPM
from pscx.training.codec_file import codec_file

KINDS = {key: SECTIONS[key] for key in ("prior", "sampler", "rows", "quantizer", "coder", "restoration")}

LIMITS = Limits(evaluations=128, pixel_evaluations=128 << 14, memory=1 << 27)
SMALL = {
    "sampler": {"name": "ddrm", "steps": 2, "start": 20.0, "warm_start": 2.0, "stop": 0.05, "spacing": "log"},
    "restoration": {"name": "mean", "samples": 2},
    "restoration_sampler": {"name": "ddrm", "steps": 2, "start": 20.0, "stop": 0.05, "spacing": "log"},
    "samples": 2,
    "iterations": 3,
}
CODECS: list[dict[str, Any]] = [
    {"rows": {"name": "dct", "block": 8}, "quantizer": {"name": "uniform", "step": 0.25}, "coder": "posterior"},
    {
        "rows": {"name": "dct", "block": 8},
        "quantizer": {"name": "deadzone", "step": 0.5},
        "coder": "adaptive",
        "seed": 7,
    },
    {"rows": {"name": "local", "block": 8}, "quantizer": "float8", "coder": "raw", "restoration": "sample"},
    {"rows": {"name": "pca", "per_iteration": 3}, "quantizer": {"name": "rdo", "step": 0.25}, "coder": "static"},
    {"rows": {"name": "random", "block": 16, "per_iteration": 3}, "coder": {"name": "posterior", "gains": [2.0, 0.5]}},
]
FAMILIES: list[dict[str, Any]] = [
    {"name": "ddcm", "level": 1.0, "entries": 6, "group": 8, "steps": 40},
    {"name": "turbo_ddcm", "level": 0.5, "steps": 4, "flow": 2},
    {
        "name": "turbo_ddcm",
        "level": 0.5,
        "steps": 3,
        "atoms": 5,
        "schedule": "even",
        "codebook": "gaussian",
        "entries": 4,
    },
    {"name": "diffc", "level": 0.5, "steps": 4, "chunk": 6, "candidates": 8, "seed": 3},
]
NETWORKS = ("stable_diffusion",)  # what would be fetched
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 5, 31, 32, 33, 64, 1023, 4096, 4097, -1, 10**30),
    *(0.0, 0.5, 1.0, 1.5, 1e-9, 1e-300, 4096.0, -0.5, 1e300, float("inf"), float("nan")),
    *("", "x", "ddrm", "nested", "pca", "local", "uniform", "posterior", "raw", "gaussian", "linear", "a/b", "\ud800"),
    *([], {}, [1.0], [0.5] * 5000, ["x"], {"name": "pca"}, {"name": ["x"]}, {"class_path": "os.system"}),
    {"name": "dct", "block": 2, "per_iteration": 4096.0},
    {"name": "random", "block": None, "per_iteration": 4096},
    {"name": "nested", "steps": 64, "inner_steps": 64},
]


@dataclass(frozen=True)
class Mutant:
    """``whole`` streams have a right checksum; the others are refused unless ``partial``."""

    kind: str
    data: bytes
    whole: bool
    partial: bool


class Fuzzer:
    """Makes mutants of small streams with a small network, and decodes them within tight limits.

    Args:
        folder: an empty folder for the network's weights.
    """

    def __init__(self, folder: Path) -> None:
        path = save_prior(folder, 1)
        photo = np.add.outer(np.arange(17) * 7, np.arange(19) * 5)[..., None] + np.array([0, 20, 40])
        pixels = photo.astype(np.uint8)
        self.decoders = {name: Decompressor(limits=LIMITS) for name in ("gaussian", "ddpm")}
        self.decoders["ddpm"] = Decompressor(DDPM(path, exact=True), path, LIMITS)
        self.seeds = []
        for codec in CODECS:
            for prior in ({"name": "ddpm", "path": path, "exact": True}, {"name": "gaussian"}):
                made = load_codec("default", prior=prior, **{**SMALL, **codec})
                self.seeds.append((prior["name"], made.compress(pixels)))
        for codec in FAMILIES:
            for prior in ({"name": "ddpm", "path": path, "exact": True}, {"name": "gaussian"}):
                config = folder / "family.yaml"
                config.write_text(json.dumps({"model": {"codec": {**codec, "prior": prior}}}))
                self.seeds.append((str(prior["name"]), load_codec(config).compress(pixels)))
        recipes = folder / "recipes"
        recipes.mkdir()
        for name in self.decoders:
            prior = {"name": name, "path": path, "exact": True} if name == "ddpm" else {"name": name}
            made = load_codec("default", prior=prior, **{**SMALL, **CODECS[0]})
            (recipes / f"{name}.yaml").write_bytes(codec_file(made.signal_codec))
            load_recipes(recipes)
            self.seeds.append((name, made.compress(pixels)))

    def decoder_and_mutant(self, number: int) -> tuple[Decompressor, Mutant]:
        """Mutant ``number``, and a decoder with the prior of the stream that it was made from."""
        source = random.Random(number)
        prior, data = source.choice(self.seeds)
        return self.decoders[str(prior)], mutant(source, data, [stream for _, stream in self.seeds])

    def outcome(self, number: int) -> tuple[str, str]:
        """Kind and outcome of a mutant: ``decoded`` or ``refused``; anything else raises."""
        decoder, one = self.decoder_and_mutant(number)
        refusal: PscxError | None = None
        try:
            done = decoder.decode(one.data, range(1), partial=one.partial)
        except PscxError as error:
            refusal = error
        if refusal is not None:
            assert str(refusal)
            assert "\n" not in str(refusal)
            return one.kind, "refused"
        header, _ = unpack(one.data, partial=one.partial)
        assert done.images[0].shape == (header.height, header.width, 3)
        assert done.images[0].dtype == np.uint8
        assert one.whole or one.partial, "a stream whose checksum does not match was decoded"
        return one.kind, "decoded" if not done.cut else "decoded in part"


def mutant(source: random.Random, data: bytes, others: Sequence[bytes]) -> Mutant:
    """One mutant of a stream; ``others`` lend their payloads."""
    header, payload = unpack(data)
    kinds: dict[str, Callable[[], bytes]] = {
        "bits flipped": lambda: flipped(source, data),
        "cut": lambda: data[: source.randrange(len(data))],
        "longer": lambda: data + source.randbytes(source.randint(1, 40)),
        "bytes, checksum": lambda: resealed(flipped(source, data)),
        "header bytes, checksum": lambda: resealed(flipped(source, data, len(data) - len(payload))),
        "header, checksum": lambda: pack_or(replaced(source, header), payload, data),
        "payload, checksum": lambda: pack(header, flipped(source, payload) if payload else b"?"),
        "payload cut, checksum": lambda: pack(header, payload[: source.randrange(len(payload) + 1)]),
        "payload longer, checksum": lambda: pack(header, payload + source.randbytes(source.randint(1, 40))),
        "payload at random, checksum": lambda: pack(header, source.randbytes(source.randint(0, 60))),
        "payload of another, checksum": lambda: pack(header, unpack(source.choice(others))[1]),
        "spec, checksum": lambda: pack_or({"spec": respecified(source, header.spec or "{}")}, payload, data),
        "spec and payload, checksum": lambda: pack_or(
            {"spec": respecified(source, header.spec or "{}")}, source.randbytes(30), data
        ),
        "header at random, checksum": lambda: resealed(data[:9] + source.randbytes(source.randint(0, 80))),
    }
    kind = source.choice([*kinds, *["bits flipped"] * 4])
    made = kinds[kind]()
    return Mutant(kind, made, is_sealed(made), partial=source.random() < 0.25)


def flipped(source: random.Random, data: bytes, length: int | None = None) -> bytes:
    """One to four bits, or a few bytes, of the first ``length`` are others."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(length or len(changed))
        changed[place] = source.choice([changed[place] ^ 1 << source.randrange(8), source.randrange(256)])
    if bytes(changed) == data:
        changed[-1] ^= 1
    return bytes(changed)


def is_sealed(data: bytes) -> bool:
    return len(data) >= STREAM_CHECK.stop and resealed(data) == data


def replaced(source: random.Random, header: Header) -> dict[str, Any]:
    """Other values for one or two fields of a header."""
    values: dict[str, Callable[[], Any]] = {
        "height": lambda: source.choice([1, 2, header.height + 1, 63, 200, 4096, 65535]),
        "width": lambda: source.choice([1, 2, header.width - 1, 65, 201, 4096, 65535]),
        "fingerprint": lambda: source.randbytes(6),
        "recipe": lambda: source.choice([0, 1, 2, 3, 6, 7, 255]),
        "digest": lambda: source.choice([b"", source.randbytes(6)]),
        "spec": lambda: source.choice(["", "{}", "[]", "null", "[" * 900, "1", '{"prior":' * 400, header.spec + "}"]),
        "parameter": lambda: source.choice([None, 2.0**-133, 2.0**-20, 0.5, 512.0, 2.0**100]),
        "seed": lambda: source.choice([0, 1, 1 << 63, (1 << 64) - 1]),
        "caption": lambda: source.choice(["", "a boat", "\x1b[2J", "x" * 65536]),
        "arithmetic": lambda: source.choice(["", "torch 9", "~" * 200]),
    }
    return {key: values[key]() for key in source.sample(sorted(values), source.randint(1, 2))}


def pack_or(changes: dict[str, Any], payload: bytes, data: bytes) -> bytes:
    """The stream with other fields, or where no header has them, their text as a spec."""
    try:
        return pack(replace(unpack(data)[0], **changes), payload)
    except (ValueError, UnicodeEncodeError):
        return resealed(data[:-1] + b"?")


def respecified(source: random.Random, spec: str) -> str:
    """A spec with one to three other values, options less or more; seldom another text."""
    if source.random() < 0.05:
        place = source.randrange(len(spec))
        return spec[:place] + source.choice(["", "}", '"', "\\u0000", "9" * 5000]) + spec[place + 1 :]
    tree = json.loads(spec)
    for _ in range(source.choice([1, 1, 2])):
        changed(source, tree)
    return json.dumps(tree)


def changed(source: random.Random, tree: dict[str, Any]) -> None:
    """Change one place of a tree, at any depth."""
    if source.random() < 0.1:
        tree[source.choice([*tree, "path", "seed", "x"])] = source.choice(VALUES)
        return
    key = source.choice(list(tree) or ["x"])
    value = tree.get(key)
    if isinstance(value, dict) and value:
        changed(source, value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and source.random() < 0.8:
        near = [value + 1, value - 1, 2 * value, value / 2, 0 * value, -value, 7 * value, 100 * value]
        tree[key] = source.choice([type(value)(number) for number in near])
    elif key == "name" and source.random() < 0.7:
        tree[key] = source.choice([name for kind in KINDS.values() for name in kind.classes if name not in NETWORKS])
    elif source.random() < 0.1:
        tree.pop(key, None)
    else:
        tree[key] = source.choice(VALUES)


def peak_memory() -> int:
    """Bytes that this process has held at most; 0 where the system does not count them."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
