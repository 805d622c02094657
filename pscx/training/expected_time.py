"""How long a run over images will take, from the time of one evaluation of the denoiser."""

from __future__ import annotations

import time

import numpy as np
import torch

from pscx.codecs import PSC
from pscx.codecs.pixels import signal_of
from pscx.data.base import Photo


@torch.no_grad()
def seconds_of(codec: PSC, photo: Photo) -> float:
    """Seconds of one evaluation of the denoiser for an image of this size, in a full micro-batch; the second of two."""
    pixels = np.ascontiguousarray(photo["pixels"].movedim(0, -1).cpu().numpy())
    signal = signal_of(codec, pixels).double().expand(codec.batch, -1, -1, -1)
    level = float(codec.prior.levels[len(codec.prior.levels) // 2])
    seconds = 0.0
    for _ in range(2):  # the first prepares memory
        started = time.perf_counter()
        codec.prior.denoise(signal, level).sum().item()  # waits for an accelerator
        seconds = time.perf_counter() - started
    return seconds / codec.batch


def said(images: int, evaluations: int, seconds: float) -> str:
    """The sentence at the start of a run.

    >>> said(40, 9360, 0.8)
    'expected time: about 2 h 5 min (40 images, 9360 evaluations of the denoiser, 0.8 s each)'
    """
    return (
        f"expected time: about {duration(evaluations * seconds)} ({images} images, {evaluations} evaluations of the "
        f"denoiser, {seconds:.2g} s each)"
    )


def duration(seconds: float) -> str:
    """In hours and minutes, or seconds where it is short.

    >>> [duration(seconds) for seconds in (0.2, 59.6, 3660)]
    ['1 s', '1 min', '1 h 1 min']
    """
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
