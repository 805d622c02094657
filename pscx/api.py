"""From images to streams and back: pixels and headers around a codec of signals (:mod:`pscx.codecs`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from pscx.captioners import Captioner
from pscx.captioners.base import captioned
from pscx.codecs import Outcome, Progress, SignalCodec, Watch
from pscx.codecs.pixels import check_encoding, padded, shown, signal_of
from pscx.codecs.replay import Replay
from pscx.codecs.specs import parse_spec, recipe_spec, wanted_of_spec
from pscx.codecs.user_recipes import user_spec
from pscx.codecs.with_prior import PriorCodec
from pscx.compression.asked import setting_for, target_of
from pscx.compression.configured import Compressing, compressing, takes_none
from pscx.compression.headers import check_sides, checked_caption, header_of, shares_calls
from pscx.compression.held_priors import KEPT_PRIORS, HeldPriors
from pscx.compression.known_priors import KnownPriors
from pscx.compression.restoring import Asked, Choice
from pscx.compression.results import Decoded, Encoded, Pixels, Simulation
from pscx.config import ConfigError, Layer, build, option_layer, read_yaml
from pscx.config.recipes import USER_RECIPE, recipe_names
from pscx.errors import PscxError, StreamError
from pscx.execution.batching import Task, in_place
from pscx.execution.placement import CPU
from pscx.format.container import Header, is_whole, unpack
from pscx.format.info import stream_info
from pscx.format.limits import Limits, picture_memory
from pscx.images import as_pixels
from pscx.priors import Prior, Speed
from pscx.rate_control import Target
from pscx.rate_control.trials import OnTrial, Trials
from pscx.registry import choices, parameters_of
from pscx.restorations import Restoration
from pscx.runtime.cancel import Cancel, cancellable
from pscx.runtime.filling import room_on
from pscx.runtime.memory import out_of_memory

__all__ = [
    "BATCH",
    "KEPT_PRIORS",
    "Codec",
    "Decoded",
    "Decompressor",
    "Encoded",
    "Pixels",
    "Simulation",
    "build_codec",
    "load_codec",
    "shares_calls",
]

MAX_MULTIPLE = 1024
MOST_RESTORATIONS = 1 << 32
BATCH = 8
DOUBT = "the checksum of the stream does not match, so the image may be wrong"
Picture: TypeAlias = Image | Pixels | Tensor
T = TypeVar("T")
Self = TypeVar("Self", bound="Decompressor")


class Decompressor:
    """Decompresses any stream from what it says of itself, given the prior it was made with.

    Args:
        prior: a prior to use for the streams that were made with it.
        prior_path: where to load the prior of other streams from; default: the prior's own default.
        limits: what a stream may ask for; see :class:`pscx.format.limits.Limits`.
        download: fetch a prior that is not on this machine from its default place. Without it nothing is fetched unless
            ``prior_path`` is a hub id.
        known: where priors are by their fingerprint, and where places of priors are remembered; or none.
        device: where priors compute, and all that is made of signals; see :meth:`to`.
        speed: what makes priors in floating point faster, or none; that of the encoder.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        prior_path: str | None = None,
        limits: Limits | None = None,
        *,
        download: bool = False,
        known: KnownPriors | None = None,
        device: str | torch.device = CPU,
        speed: Speed | None = None,
    ) -> None:
        self.prior_path, self.limits, self.download = prior_path, limits or Limits(), download
        self._priors = HeldPriors(prior, device, known, speed)

    def to(self: Self, device: str | torch.device) -> Self:
        """Compute on ``cpu``, ``cuda``, ``cuda:1``, ``mps``, another device of torch, or ``auto``; returns the object.

        ``auto`` is this machine's accelerator if it gives the CPU's bits, else the CPU. Raises :class:`PscxError` where
        the device is not there, or fails a check that an exact codec relies on.
        """
        self._priors.to(device)
        return self

    def decompress(
        self,
        data: bytes,
        *,
        index: int = 0,
        restoration: Asked = None,
        perception: float | None = None,
        partial: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Pixels:
        """The image of a stream: restoration number ``index``, ``(height, width, 3)`` uint8.

        With ``partial`` a stream whose payload was cut or damaged gives the image of the segments before that; see
        :meth:`decode` for how many they were. Raises :class:`StreamError` for a stream that is damaged, of another
        version or of another prior; with ``partial`` where the header is, or not one segment is whole.

        ``restoration`` takes the place of the codec's own: an object, a name, or a name with options, such as
        ``{"name": "mean", "samples": 8}``. ``perception``, from 0 (least error) to 1 (most realistic), chooses one for
        a stream of a recipe. Raises :class:`PscxError` where that cannot be.

        ``cancel()`` is asked before each network evaluation; where it is true, ``CancelledError`` is raised.
        """
        chosen: dict[str, Any] = {"restoration": restoration, "perception": perception, "partial": partial}
        return self.decode(data, range(index, index + 1), **chosen, progress=progress, cancel=cancel).images[0]

    def decompress_samples(self, data: bytes, samples: int, **options: Any) -> list[Pixels]:
        """The first ``samples`` restorations of a stream; ``options`` are those of :meth:`decode`.

        How they differ is up to the restoration. Raises ``ValueError`` for fewer than one sample.
        """
        _check_samples(samples)
        return self.decode(data, range(samples), **options).images

    def decompress_many(
        self, streams: Iterable[bytes], *, batch: int = BATCH, **options: Any
    ) -> list[Pixels | PscxError]:
        """:meth:`decompress` of each stream, at most ``batch`` of them at once; ``options`` are those of that method.

        Streams of one exact prior share network calls, others are decoded one at a time; the pixels are the same. A
        stream that cannot be decoded has its error in place of its image.
        """
        choice = Choice.asked(options.pop("restoration", None), options.pop("perception", None))
        options |= {"restoration": choice.restoration, "perception": choice.perception}
        work = ((partial(self.decompress, data, **options), choice.exact and shares_calls(data)) for data in streams)
        return in_place((Task(*one) for one in work), batch)

    @staticmethod
    def info(data: bytes) -> dict[str, Any]:
        """What a stream says of itself, nothing decoded; see :func:`pscx.stream_info`."""
        return stream_info(data)

    def decode(
        self,
        data: bytes,
        indices: range = range(1),
        *,
        restoration: Asked = None,
        perception: float | None = None,
        partial: bool = False,
        progress: Progress | None = None,
        watch: Watch | None = None,
        cancel: Cancel | None = None,
    ) -> Decoded:
        """The restorations number ``indices`` of a stream, with how much of it was whole; as :meth:`decompress`.

        ``watch`` is shown each segment while it is decoded; see :class:`pscx.codecs.Segment`.
        """
        _check_numbers(indices)
        header, payload = unpack(data, partial=partial)
        chosen = Choice.asked(restoration, perception).of(header.recipe)
        with out_of_memory("decoding the stream"), cancellable(cancel):
            codec = self._codec_of(header, len(indices), chosen)
            outcome, shape = _outcome(self.limits, codec, header, payload, len(indices), partial, progress, watch)
            restored = (codec.restore(outcome, shape, index) for index in indices)
            images = [shown(codec, signal, header.height, header.width) for signal in restored]
        cut = str(outcome.cut or ("" if is_whole(bytes(data)) else DOUBT))
        return Decoded(images, outcome.segments, codec.segments, cut)

    def replay(self, data: bytes, progress: Progress | None = None, restorations: Sequence[Restoration] = ()) -> Replay:
        """What each segment of a stream brought, for a report, and a picture by each of some restorations.

        Raises as :meth:`decompress`.
        """
        header, payload = unpack(data)
        with out_of_memory("decoding the stream"):
            codec = self._codec_of(header, 0)
            others = [codec.restored_by(one) for one in restorations]
            extra = sum(other.evaluations(1) - codec.evaluations(0) for other in others)
            self.limits.check_work(codec.evaluations(0) + extra, header.height, header.width)
            recorder = codec.recorder(header.height, header.width)
            outcome, shape = _outcome(self.limits, codec, header, payload, 0, False, progress, recorder)
            played, size = recorder.finish(), (header.height, header.width)
            played.restored += [shown(other, other.restore(outcome, shape), *size) for other in others]
            return played

    def _codec_of(self, header: Header, restorations: int, restoration: Restoration | None = None) -> SignalCodec:
        wanted = wanted_of_spec(_spec_of(header), header.parameter, header.seed)
        wanted = replace(wanted, restoration=restoration)
        self.limits.check_work(wanted.evaluations(restorations), header.height, header.width)
        self.limits.check_memory(picture_memory(header.height, header.width))
        prior = self._priors.of(wanted, header.fingerprint, self.prior_path, download=self.download)
        codec = wanted.codec(prior)
        _check_prior(header.fingerprint, codec.fingerprint())
        try:
            return codec.conditioned(header.caption)
        except PscxError as error:
            raise StreamError(f"the stream has a caption that is of no use: {error}") from error


class Codec(Decompressor):
    """Compresses images of any size with one codec, and decompresses the streams of all.

    Images are padded with their edge pixels to sides that prior and row rule take; the decoder cuts that off again.

    Args:
        codec: what to compress with.
        prior_path: see :class:`Decompressor`.
        captioner: describes each image, for a prior that takes captions; or none.
        target: what streams are to be where nothing else is asked for; none: that of the quantizer as it is.
        limits: see :class:`Decompressor`; compressing has none.
    """

    def __init__(
        self,
        codec: SignalCodec,
        prior_path: str | None = None,
        captioner: Captioner | None = None,
        target: Target | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(codec.prior if isinstance(codec, PriorCodec) else None, prior_path, limits)
        if captioner is not None and not codec.takes_captions:
            raise ValueError(f"caption must be null: the {takes_none(codec)}")
        if target is not None:
            target.check(codec)
        self.signal_codec, self.captioner, self.target = codec, captioner, target

    def compress(
        self,
        image: Picture,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        psnr: float | None = None,
        max_bytes: int | None = None,
        step: float | None = None,
        caption: str | None = None,
        source: str | Path = "",
        progress: Progress | None = None,
    ) -> bytes:
        """The stream of an image (any kind that :func:`pscx.images.as_pixels` takes).

        At most one of ``quality`` (1 to 100), ``bpp``, ``psnr`` (dB), ``max_bytes`` and ``step`` may be given; see
        :mod:`pscx.rate_control`. Without one, the codec's own target or quantizer stands.

        ``caption`` takes the place of what the captioner says, who may need to know the image's file, ``source``; an
        empty one is none. Both sides sample under it, and the stream carries it. Raises :class:`PscxError` where the
        prior takes no captions, or not this one, and where what was asked for cannot be reached.
        """
        asked = {"quality": quality, "bpp": bpp, "psnr": psnr, "max_bytes": max_bytes, "step": step}
        return self.encode(image, target=target_of(asked), caption=caption, source=source, progress=progress).data

    def encode(
        self,
        image: Picture,
        *,
        target: Target | None = None,
        caption: str | None = None,
        source: str | Path = "",
        progress: Progress | None = None,
        on_trial: OnTrial | None = None,
        watch: Watch | None = None,
    ) -> Encoded:
        """:meth:`compress`, with its cost; ``on_trial(number, parameter)`` is called before each encoding, ``watch`` is
        shown each of its segments.
        """
        target = target or self.target
        trials = self._trials(image, caption, source, progress, on_trial, watch)
        with out_of_memory(_encoding(trials.pixels)):
            setting = setting_for(target, trials)
            run = trials.run(setting)
            return Encoded(run.data, trials.account(), "" if target is None else target.outcome(trials, setting))

    def compress_many(
        self, images: Iterable[Picture], *, batch: int = BATCH, **options: Any
    ) -> list[bytes | PscxError]:
        """:meth:`compress` of each image, at most ``batch`` of them at once; ``options`` are those of that method.

        Images of one size share network calls under an exact codec; under any other they are encoded one at a time.
        The streams are the same. An image that cannot be compressed has its error in place of its stream; the
        ``TypeError`` or ``ValueError`` of :func:`pscx.images.as_pixels` is raised.
        """
        return in_place((_task(self, self.compress, image, options) for image in images), batch)

    def simulate_many(
        self, images: Iterable[Picture], *, batch: int = BATCH, **options: Any
    ) -> list[Simulation | PscxError]:
        """:meth:`simulate` of each image, as :meth:`compress_many`; ``options`` are those of :meth:`simulate`.

        The seconds of an image are its own work and its part, by samples, of the calls that it shared.
        """
        return in_place((_task(self, self.simulate, image, options) for image in images), batch)

    @property
    def shares_calls(self) -> bool:
        """Whether several images may share network calls: where that changes no bit, and one process has an image."""
        return self.signal_codec.exact and self.signal_codec.spread.size == 1

    def simulate(
        self,
        image: Picture,
        *,
        samples: int = 1,
        restoration: Asked = None,
        target: Target | None = None,
        caption: str | None = None,
        progress: Progress | None = None,
        on_trial: OnTrial | None = None,
        watch: Watch | None = None,
    ) -> Simulation:
        """The stream of an image and its first ``samples`` restorations, at the cost of compressing alone.

        ``restoration`` as in :meth:`decompress`, others as in :meth:`encode`; ``ValueError`` for no sample.
        """
        _check_samples(samples)
        chosen = Choice.asked(restoration, None).restoration
        trials = self._trials(image, caption, "", progress, on_trial, watch)
        with out_of_memory(_encoding(trials.pixels)):
            run = trials.run(setting_for(target or self.target, trials))
        run, account = run if chosen is None else run.restored_by(chosen), trials.account()
        with out_of_memory("restoring the image"):
            images = run.images(samples)
        return Simulation(run.data, images, account, account.seconds, run.account.seconds + run.restore_seconds)

    def _trials(
        self,
        image: Picture,
        caption: str | None,
        source: str | Path,
        progress: Progress | None,
        on_trial: OnTrial | None,
        watch: Watch | None,
    ) -> Trials:
        pixels = as_pixels(image)
        with out_of_memory(_encoding(pixels)):
            check_sides(pixels)
            said = self.caption_of(pixels, source) if caption is None else checked_caption(caption)
            header = self.header(pixels.shape[0], pixels.shape[1], said)
            check_encoding(self.signal_codec, pixels)
            codec = self.signal_codec.conditioned(header.caption)
            return Trials(codec, header, pixels, signal_of(codec, pixels), progress, on_trial, watch)

    def header(self, height: int, width: int, caption: str = "") -> Header:
        """What a stream of an image of that size says, at the codec's own parameter."""
        return header_of(self.signal_codec, height, width, caption)

    def caption_of(self, pixels: Pixels, source: str | Path = "") -> str:
        """What the captioner says of an image, whose file is ``source``; empty without a captioner."""
        return "" if self.captioner is None else checked_caption(captioned(self.captioner, pixels, str(source)))


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")


def _check_numbers(indices: range) -> None:
    """Raise ``ValueError`` where a restoration has a number that is negative or too large."""
    for index in (indices[0], indices[-1]) if indices else ():
        if not 0 <= index < MOST_RESTORATIONS:
            raise ValueError(f"the number of a restoration must lie in [0, 2^32), got {index}")


def _outcome(
    limits: Limits,
    codec: SignalCodec,
    header: Header,
    payload: bytes,
    restorations: int,
    partial: bool,
    progress: Progress | None,
    watch: Watch | None,
) -> tuple[Outcome, tuple[int, ...]]:
    """What a stream's codec makes of its payload, and the shape of the signal."""
    if codec.stride > MAX_MULTIPLE:
        asked = f"the stream asks for blocks of {codec.stride} pixels"
        raise StreamError(f"{asked}; at most {MAX_MULTIPLE} are allowed")
    height, width = padded(codec, header.height, header.width)
    shape = codec.signal_shape(height, width)
    limits.check(codec, height, width, shape, restorations)
    outcome = codec.decode(payload, shape, progress, partial=partial, arithmetic=header.arithmetic, watch=watch)
    return outcome, shape


def memory_of(codec: SignalCodec, height: int, width: int) -> int:
    """Estimated bytes that a codec takes for an image of this size."""
    return codec.memory(codec.signal_shape(*padded(codec, height, width)))


def room_for(codec: Decompressor) -> int | None:
    """Bytes that images may take together on its accelerator; none on the CPU."""
    return room_on(codec._priors.device)


def memory_to_decode(decompressor: Decompressor, header: Header, choice: Choice | None = None) -> int:
    """Estimated bytes that decoding a stream takes; 0 where it cannot be decoded. Loads its prior."""
    try:
        restoration = None if choice is None else choice.of(header.recipe)
        return memory_of(decompressor._codec_of(header, 1, restoration), header.height, header.width)
    except PscxError:
        return 0


def _check_prior(wanted: bytes, found: bytes) -> None:
    if found != wanted:
        raise StreamError(
            f"the stream was made with another prior (fingerprint {wanted.hex()}, this one is {found.hex()}): say "
            "where that prior is (--prior PATH)"
        )


def _spec_of(header: Header) -> Any:
    """The spec that a stream names or holds, not trusted. Raises :class:`StreamError` where it names an unknown one."""
    if header.recipe == USER_RECIPE:
        return user_spec(header.digest)
    return recipe_spec(header.recipe) if header.recipe else parse_spec(header.spec)


def load_codec(
    config: str | Path = "default",
    *,
    step: float | None = None,
    prior_path: str | None = None,
    device: str | torch.device = CPU,
    **overrides: Any,
) -> Codec:
    """A codec from a recipe's name or a YAML file, of which only the ``model`` section (and ``recipe``) is used.

    Args:
        config: ``default`` or another recipe, also a user recipe (:func:`pscx.load_recipes`), else a file.
        step: parameter of the quantizer, in place of the config's quantizer and target; or none for what that says.
        prior_path: see :class:`Decompressor`.
        device: where it computes; see :meth:`Decompressor.to`.
        **overrides: options of the codec, such as ``sampler={"steps": 3}`` or ``seed=1``, and ``caption="blip2"`` or
            ``target``.

    Raises :class:`ConfigError`, one sentence that names the source, the key and what is allowed.

    >>> from pscx import read_image
    >>> from pscx.data.folder import BUNDLED
    >>> photograph = read_image(BUNDLED / "chelsea.png")[:64, :64]
    >>> codec = load_codec("fast", iterations=2, sampler={"steps": 1})
    >>> data = codec.compress(photograph, quality=10)
    >>> codec.decompress(data).shape
    (64, 64, 3)
    """
    names = recipe_names()
    known = str(config) in names
    if not known and not os.path.exists(str(config)):  # that of Path raises for a name that is too long
        raise ConfigError(f"'{config}' is neither a config file nor a recipe{choices(str(config), names)}")
    layers = [option_layer("recipe", str(config)) if known else read_yaml(config)]
    beside = parameters_of(Compressing)
    places = {key: f"model.{key}" if key in beside else f"model.codec.{key}" for key in overrides}
    layers += [option_layer(places[key], value) for key, value in overrides.items()]
    return build_codec(layers, step, prior_path).to(device)


def build_codec(layers: list[Layer], step: float | None = None, prior_path: str | None = None) -> Codec:
    """The codec of the ``model`` section that ``layers`` add up to; with ``step`` at that parameter and no target."""
    made = compressing(layers, step)
    parts = {"codec": made.codec, "prior_path": prior_path, "captioner": made.caption, "target": made.target}
    return build(Codec, parts)


def _task(codec: Codec, do: Callable[..., T], image: Picture, options: Mapping[str, Any]) -> Task[T]:
    return Task(partial(do, image, **options), shares=codec.shares_calls)


def _encoding(pixels: Pixels) -> str:
    return f"encoding {pixels.shape[1]}x{pixels.shape[0]} pixels"
