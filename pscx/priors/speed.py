"""How a denoiser in floating point is run: its number format, which is part of a codec, and its speed, which is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Literal, TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pscx.errors import PscxError
from pscx.registry import Registry

Format: TypeAlias = Literal["fp32", "fp16", "bf16"]
"""Number format of networks; it is in a codec's spec, and in the fingerprint of its weights."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
AUTO: Final = "auto"
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
BACKEND = "inductor"
SHAPES = 64  # of calls that a compiled network may have


def dtype_of(name: str) -> torch.dtype:
    """The number format of that name. Raises ``ValueError`` for another."""
    if name not in DTYPES:
        raise ValueError(f"prior.dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


class Speed:
    """What makes a denoiser in floating point faster. No stream holds it, and it changes the meaning of none.

    It may change the last bits of an answer, as another device does. So a stream is decoded with what it was encoded
    with, and the words for the arithmetic in its header name that.

    Args:
        compile: run the network through ``torch.compile``, once for each shape of a call; needs a C++ compiler.
        channels_last: memory format of the weights of convolutions, in which GPUs compute half precision fastest.
            Networks of pixels always have it.
        attention: ``auto`` is the fastest kernel that torch has for a call; ``flash``, ``efficient``, ``cudnn`` and
            ``math`` are that one alone.

    Raises:
        ValueError: ``attention`` is another word.
    """

    references: tuple[str, ...] = ()
    """What to cite: nothing."""

    def __init__(
        self,
        compile: bool = False,
        channels_last: bool = False,
        attention: Literal["auto", "flash", "efficient", "cudnn", "math"] = AUTO,
    ) -> None:
        if attention not in (AUTO, *KERNELS):
            raise ValueError(f"speed.attention must be one of {', '.join([AUTO, *KERNELS])}, got {attention!r}")
        self.compile, self.channels_last, self.attention = compile, channels_last, attention

    @property
    def words(self) -> list[str]:
        """What differs from a network as it is, in a few words."""
        kernel = "" if self.attention == AUTO else f"{self.attention} attention"
        return list(filter(None, ["compiled" * self.compile, "channels last" * self.channels_last, kernel]))

    def prepare(self, networks: Sequence[nn.Module]) -> None:
        """Set up the networks. Raises ``ValueError`` where they have nothing that an option could make faster."""
        parts = [part for network in networks for part in network.modules()]
        if self.channels_last and not any(isinstance(part, nn.Conv2d) for part in parts):
            raise ValueError("prior.speed.channels_last must be false: the network has no convolutions")
        if self.attention != AUTO and not any(hasattr(part, "processor") for part in parts):
            raise ValueError(f"prior.speed.attention must be {AUTO}: the network has no attention")
        for network in networks:
            if self.channels_last:
                nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.compile:  # each shape by itself, so that answers do not depend on those before
                network.compile(backend=BACKEND, fullgraph=True, dynamic=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around calls of the networks. Raises :class:`PscxError` where they cannot be run so."""
        with ExitStack() as stack:
            if self.attention != AUTO:
                stack.enter_context(sdpa_kernel(KERNELS[self.attention]))
            if self.compile:
                stack.enter_context(_many_shapes())
            try:
                yield
            except Exception as error:  # of several kinds, some not of RuntimeError
                reason = str(getattr(error, "inner_exception", error)).partition("\n")[0]
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    needs = "torch.compile, which needs a C++ compiler, has failed"
                    raise PscxError(f"prior.speed.compile must be false here: {needs} ({reason})") from error
                if self.attention != AUTO and reason.startswith(("No available kernel", "No viable backend")):
                    raise PscxError(
                        f"prior.speed.attention cannot be {self.attention} here: torch has no such kernel for this "
                        f"device and number format; leave it at {AUTO}"
                    ) from error
                raise


@contextmanager
def _many_shapes() -> Iterator[None]:
    from torch._dynamo import config  # slow to import

    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # the latter before 2.6
    with config.patch({limit: SHAPES}):
        yield


SPEEDS: Registry[Speed] = Registry("speed", Speed, default="speed")
SPEEDS.register("speed")(Speed)
