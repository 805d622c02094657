"""What an accelerator gives: the CPU's bits or not, evaluations a second, seconds, memory and transfers.

    python benchmarks/accelerator.py [--device cuda] [--short]

Each recipe codes a small crop on the CPU and on the device, whose payloads and pixels are compared, and a larger one on
the device alone: seconds of encoding and of decoding; then once more with the device waited for around each evaluation,
for evaluations a second and the share of the time beside the network; then with its transfers counted. Where there are
two devices, two processes of ``pscx test`` are compared with one. With ``--stable-diffusion`` the denoiser of Stable
Diffusion 2.1 at its real size is evaluated with random weights. A table is printed and written, with the date and the
device's name, to ``benchmarks/results/accelerator``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pscx import Codec, load_codec
from pscx.api import Pixels
from pscx.data.folder import BUNDLED
from pscx.execution.arithmetic import arithmetic_of
from pscx.execution.placement import chosen
from pscx.format.container import unpack
from pscx.priors import DDPM

RESULTS = Path(__file__).parent / "results" / "accelerator"
PAPER = {"sampler": {"steps": 4}, "samples": 4, "iterations": 4}
RECIPES: dict[str, dict[str, Any]] = {"fast": {}, "default": {}, "best": {}, "paper-pixel, short": PAPER}
SHORT: dict[str, dict[str, Any]] = {"fast": {"iterations": 4}}
ASKING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
HEAD = ("recipe", "payload", "pixels", "encode s", "decode s", "NFE/s", "beside the network", "peak MB", "transfers")
UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}


class Transfers(TorchDispatchMode):
    """Counts what crosses between a device and the host, and what the host asks of the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch types no constructor of it
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = {leaf.device.type for leaf in given}
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            kinds |= {leaf.device.type for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)}
            self.count += len(kinds) > 1
        elif func._schema.name in ASKING:
            self.count += kinds != {"cpu"}
        return answer


def synchronize(device: torch.device) -> None:
    """Wait for a device."""
    module: Any = torch.get_device_module(device)
    module.synchronize()


@contextmanager
def waiting(device: torch.device) -> Iterator[list[float]]:
    """The seconds of each evaluation, with the device waited for before and after it."""
    denoise, spent = DDPM.denoise, []

    def timed(self: DDPM, x: Tensor, sigma: float) -> Tensor:
        synchronize(device)
        started = time.perf_counter()
        x0 = denoise(self, x, sigma)
        synchronize(device)
        spent.append((time.perf_counter() - started) / len(x))
        spent.extend(spent[-1:] * (len(x) - 1))
        return x0

    DDPM.denoise = timed  # type: ignore[method-assign]  # for as long as is measured
    try:
        yield spent
    finally:
        DDPM.denoise = denoise  # type: ignore[method-assign]  # as it was


def photograph(side: int) -> Pixels:
    """A square of bundled photographs, repeated where it is larger than they are."""
    whole = np.array(Image.open(BUNDLED / "astronaut.png").convert("RGB"))
    times = -(-side // 128)
    return np.tile(whole, (times, times, 1))[:side, :side]


def both_ways(codec: Codec, image: Pixels) -> tuple[bytes, Pixels, float, float]:
    """The stream of an image, its pixels, and the seconds of encoding and of decoding."""
    started = time.perf_counter()
    data = codec.compress(image)
    between = time.perf_counter()
    return data, codec.decompress(data), between - started, time.perf_counter() - between


def row(name: str, options: dict[str, Any], device: torch.device, small: int, large: int) -> list[str]:
    """One line of the table."""
    codec = load_codec(name.partition(",")[0], **options)
    data, pixels, *_ = both_ways(codec, photograph(small))
    codec.to(device)
    there, shown, *_ = both_ways(codec, photograph(small))  # which also warms the device up
    differ = np.abs(shown.astype(int) - pixels).max()
    module: Any = torch.get_device_module(device)
    measured = hasattr(module, "reset_peak_memory_stats")
    if measured:
        module.reset_peak_memory_stats(device)
    *_, encode, decode = both_ways(codec, photograph(large))
    peak = f"{module.max_memory_allocated(device) / 1e6:.0f}" if measured else "-"
    with waiting(device) as spent:
        *_, slow_encode, slow_decode = both_ways(codec, photograph(large))
    beside = 1 - sum(spent) / (slow_encode + slow_decode)
    marks: list[int] = []
    with Transfers() as transfers:
        codec.encode(photograph(small), watch=lambda codec, segment: marks.append(transfers.count))
    segments = [later - before for before, later in pairwise(marks)]
    same = [str(unpack(there)[1] == unpack(data)[1]), "True" if differ == 0 else f"within {differ} levels"]
    figures = [f"{encode:.2f}", f"{decode:.2f}", f"{len(spent) / sum(spent):.1f}", f"{beside:.0%}", peak]
    return [name, *same, *figures, str(max(segments, default=0))]


def two_against_one(device: torch.device, recipe: str, side: int) -> list[str]:
    """Seconds of ``pscx test`` over eight images on one device and on two, start included."""
    if torch.get_device_module(device).device_count() < 2:
        return ["There are not two devices, so two were not compared with one."]
    lines = []
    with TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(8):
            Image.fromarray(np.roll(photograph(side), number, 0)).save(images / f"{number}.png")
        for count in (1, 2):
            options = ["--trainer.accelerator", device.type, "--trainer.devices", str(count)]
            options += ["--data.root", str(images), "--trainer.default_root_dir", f"{folder}/{count}"]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "pscx", "test", "--recipe", recipe, *options], check=True)
            seconds = time.perf_counter() - started
            lines.append(f"`pscx test` with `{recipe}`, 8 images of {side}x{side}, devices {count}: {seconds:.1f} s.")
    return lines


def stable_diffusion(device: torch.device) -> str:
    """Evaluations a second of its denoiser for a 512x512 image, in float16, with random weights."""
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(**UNET).half().to(device).eval()
    x, context = (torch.zeros(shape, dtype=torch.half, device=device) for shape in ((1, 4, 64, 64), (1, 77, 1024)))
    steps = torch.full((1,), 500, device=device)
    seconds = []
    with torch.no_grad():
        for _ in range(6):
            synchronize(device)
            started = time.perf_counter()
            network(x, steps, encoder_hidden_states=context)
            synchronize(device)
            seconds.append(time.perf_counter() - started)
    what = "Stable Diffusion 2.1's denoiser, random weights, float16, 512x512"
    return f"{what}: {1 / min(seconds):.1f} evaluations a second."


def main(args: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--short", action="store_true", help="one recipe, made short, on small crops")
    parser.add_argument("--small", type=int, help="side of the crop that is coded on the CPU too (default: 64)")
    parser.add_argument("--large", type=int, help="side of the crop that is timed (default: 512)")
    parser.add_argument("--stable-diffusion", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(args)
    device = chosen(options.device)
    small = options.small or (32 if options.short else 64)
    large = options.large or (64 if options.short else 512)
    today, started = datetime.now(timezone.utc).strftime("%Y-%m-%d"), time.perf_counter()
    # That `fast` has a prior is no matter of types. It is not kept: memory is measured below.
    place = arithmetic_of(load_codec("fast", device=device).signal_codec.prior)  # type: ignore[attr-defined]
    lines = [
        f"# {today}: {place}",
        "",
        f"Payloads and pixels of {small}x{small} pixels against the CPU, figures of {large}x{large}.",
    ]
    lines += ["", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name, own in (SHORT if options.short else RECIPES).items():
        lines.append(f"| {' | '.join(row(name, own, device, small, large))} |")
        print(lines[-1], flush=True)
    lines += ["", *([] if options.short else two_against_one(device, "fast", small))]
    lines += [stable_diffusion(device)] if options.stable_diffusion else []
    lines.append(f"Whole run: {time.perf_counter() - started:.0f} s.")
    options.output.mkdir(parents=True, exist_ok=True)
    name = "".join(char if char.isalnum() else "-" for char in place.split(", ")[1]).strip("-").lower()
    file: Path = options.output / f"{today}-{name}{'-short' if options.short else ''}.md"
    file.write_text("\n".join(lines) + "\n")
    print(f"written to {file}")
    return file


if __name__ == "__main__":
    main()
