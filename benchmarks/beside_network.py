"""What a codec costs beside its network: seconds a megapixel with a network of no cost.

    python benchmarks/beside_network.py [--recipes fast default] [--side 256] [--device cpu] [--profile]

The prior's denoiser is replaced by a shrinkage of its input, one product; all else is what it is: noise, projections,
transforms, row rules, quantizers, coders. One thread; the least of three runs. The bytes of the stream, and the first
digits of its digest and of the pixels', tell that two versions of the code did the same work.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pscx import load_codec
from pscx.data.folder import BUNDLED
from pscx.priors import DDPM
from pscx.runtime.allocator import keep_freed_memory


def shrink(self: DDPM, x: Tensor, sigma: float) -> Tensor:
    """The denoiser of white images of variance 1/4."""
    return x * (0.25 / (0.25 + sigma * sigma))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["fast", "default"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    keep_freed_memory()  # as the pscx program does
    torch.set_num_threads(1)
    DDPM.denoise = shrink  # type: ignore[method-assign]  # of this process alone
    whole = np.array(Image.open(BUNDLED / "astronaut.png").convert("RGB"))
    times = -(-options.side // 128)
    image = np.tile(whole, (times, times, 1))[: options.side, : options.side]
    megapixels = options.side**2 / 1e6
    print("| recipe | encode s/MP | decode s/MP | bytes | stream | pixels |\n|---|---|---|---|---|---|")
    for name in options.recipes:
        codec = load_codec(name, device=options.device)
        codec.compress(image[:64, :64])
        found = []
        profile = cProfile.Profile(time.process_time)
        for _ in range(3):
            marks = [time.process_time()]
            profile.enable() if options.profile else None
            data = codec.compress(image)
            marks.append(time.process_time())
            pixels = codec.decompress(data)
            marks.append(time.process_time())
            profile.disable()
            found.append(np.diff(marks) / megapixels)
        encode, decode = np.min(found, 0)
        digests = " | ".join(sha256(part).hexdigest()[:12] for part in (data, pixels.tobytes()))
        print(f"| {name} | {encode:.1f} | {decode:.1f} | {len(data)} | {digests} |", flush=True)
        if options.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
