"""DiffC: lossy compression with Gaussian diffusion (Theis, Salimans, Hoffman and Mentzer 2022)."""

from __future__ import annotations

from dataclasses import replace
from math import log, prod

import torch
from torch import Tensor

from pscx.codecs.base import CODECS, Account
from pscx.codecs.paths.codebooks import codebook, padded
from pscx.codecs.paths.family import Book, PathCodec, check_range
from pscx.codecs.paths.groups import Groups, random_order
from pscx.codecs.paths.levels import Schedule
from pscx.codecs.paths.reverse_coding import Chunks, OrderedCoding, chunk_count, most_chunks
from pscx.codecs.paths.sides import Side, Writer
from pscx.codecs.paths.walk import Increments, Reached, Sent, Step
from pscx.priors.base import Prior
from pscx.signal.noise import Noise

CHUNK_WORK = 1e6  # multiply-adds that take as long as to look up a small chunk
IDEAL = 1 << 43  # noise index of the first step of :meth:`DiffC.ideal`


@CODECS.register("diffc")
class DiffC(PathCodec):
    """DiffC (Theis et al. 2022): each step sends a sample of the noisy image by reverse channel coding.

    The state has the distribution of the image with noise of its level, as the prior was trained on. A step is cut into
    chunks of few bits, as in Vonderfecht and Liu (ICLR 2025), and the candidates of a chunk are searched exhaustively.

    Args:
        prior: the diffusion model.
        level: noise level at the end of the path, over 0 and below 64, in units of the signal. Rate control turns it.
        steps: steps to there, 1 to 4096.
        schedule: ``even``: along the prior's own noise levels; ``kl``: steps of equal divergence on a typical
            photograph; ``least``: of the least divergence in all.
        codebook: what candidates are: ``gaussian`` noise, or columns of ``hadamard`` transforms, which are far faster.
        chunk: bits of divergence in a chunk, at most, 1 to 16.
        candidates: bits of the number of candidates of a chunk, ``chunk`` to 24. If they are few, samples are biased.
        group: a chunk has at most ``2^group`` numbers; 4 to 20.
        flow: evaluations of the restoration, 1 to 64: 1 denoises the last state, more follow the probability flow.
        seed: seed of all noise, in [0, 2^64).
        curve: squared errors of the denoiser on a typical photograph, at 27 noise levels from 64 down to 2^-7, each
            smaller by sqrt(2): in [1e-12, 4096], not rising; none for those that ship with pscx, for its own prior.

    Raises:
        ValueError: an option is out of range.
    """

    references = ("theis2022diffc", "vonderfecht2025diffc", "theis2022ordered")
    turned = "level"

    def __init__(
        self,
        prior: Prior,
        level: float = 0.125,
        steps: int = 24,
        schedule: Schedule = "least",
        codebook: Book = "hadamard",
        chunk: int = 14,
        candidates: int = 18,
        group: int = 16,
        flow: int = 1,
        seed: int = 0,
        curve: list[float] | None = None,
    ) -> None:
        super().__init__(prior, level, steps, schedule, codebook, group, flow, seed, curve)
        check_range("chunk", chunk, 1, 16)
        check_range("candidates", candidates, chunk, 24)
        self.chunk, self.candidates = chunk, candidates

    @property
    def most_entries(self) -> int:
        return 1 << (self.candidates - 1)

    def work(self, shape: tuple[int, ...], restorations: int) -> float:
        """Multiply-adds that take as long as looking up chunks that are as small as can be: few bits ask for them."""
        return CHUNK_WORK * self.steps * most_chunks(prod(shape))

    def increments(self, shape: tuple[int, ...]) -> Increments:
        return _Samples(self, prod(shape))

    @torch.no_grad()
    def ideal(self, signal: Tensor) -> tuple[float, Reached]:
        """What an ideal reverse channel coding would need, in bits, and the outcome. This makes no file.

        The bits are the divergences of all steps, with no overhead (Theis et al. 2022, Eq. 7). ``signal`` is
        ``(channels, height, width)``.
        """
        made, shape = _Ideal(self.noise, self.precisions()), tuple(signal.shape)
        whole = self.path(shape)
        path = replace(whole, increments=made)
        outcome = path.walk(Writer(), shape, Account(), signal.double())
        return made.bits, outcome


class _Samples(Increments):
    """Samples by reverse channel coding; one object a walk."""

    def __init__(self, codec: DiffC, count: int) -> None:
        self._codec, self._count, self._precisions = codec, count, codec.precisions()
        self._order = random_order(codec.noise, count, codec.device)
        self._coding = OrderedCoding(codec.seed)

    def after(self, number: int, precision: float, error: float) -> float:
        return self._precisions[number]

    def send(self, side: Side, step: Step) -> Sent:
        codec = self._codec
        groups = Groups(self._order, chunk_count(step.nats, self._count, codec.chunk, codec.group))
        most = codec.most_entries
        entries = min(padded(groups.size), most) if codec.codebook == "hadamard" else most
        book = codebook(codec.codebook, codec.noise, groups.size, entries)
        return self._coding.send(side, step, Chunks(groups, book, most // entries))


class _Ideal(Increments):
    """Samples of the encoder's Gaussian, whose divergences are added up in ``bits``."""

    def __init__(self, noise: Noise, precisions: list[float]) -> None:
        self._noise, self._precisions, self.bits = noise, precisions, 0.0

    def after(self, number: int, precision: float, error: float) -> float:
        return self._precisions[number]

    def send(self, side: Side, step: Step) -> Sent:
        assert step.target is not None
        self.bits += float(step.target.square().sum()) / 2 / log(2)
        place = {"iteration": IDEAL + step.number, "sample": 0, "step": 0}
        fresh = self._noise.normal(step.shape, **place, device=step.target.device)
        return Sent(step.target + fresh, 0)
