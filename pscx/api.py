"""From images to streams and back: pixels and headers around a codec of signals (:mod:`pscx.codecs`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from pscx.captioners import Captioner
from pscx.codecs import CODECS, Account, Outcome, Progress, SignalCodec, Watch
from pscx.codecs.pixels import check_encoding, padded, shown, signal_of
from pscx.codecs.replay import Replay
from pscx.codecs.specs import Wanted, codec_spec, parse_spec, recipe_number, recipe_spec, wanted_of_spec
from pscx.codecs.with_prior import PriorCodec
from pscx.config.checker import Checker, ConfigError, Layer, build, built, option_layer, read_yaml
from pscx.config.recipes import RECIPES
from pscx.errors import ImageError, PscxError, StreamError
from pscx.execution.batching import Task, together
from pscx.execution.placement import CPU, chosen, move
from pscx.format.container import SIDE_LIMIT, TEXT_LIMIT, Header, is_whole, unpack
from pscx.format.info import stream_info
from pscx.format.limits import Limits, picture_memory
from pscx.images import as_pixels
from pscx.priors import Prior
from pscx.rate_control import TARGETS, Target
from pscx.rate_control.trials import OnTrial, Run, Setting, Trials
from pscx.registry import choices, parameters_of
from pscx.runtime.cancel import Cancel, cancellable
from pscx.runtime.memory import out_of_memory

Pixels = NDArray[np.uint8]
MAX_MULTIPLE = 1024
BATCH = 8
KEPT_PRIORS = 2
DOUBT = "the checksum of the stream does not match, so the image may be wrong"
T = TypeVar("T")
Self = TypeVar("Self", bound="Decompressor")
EVALUATION_ONLY = ("restorations", "simulate", "ranks_per_image", "logged_pictures")


@dataclass(frozen=True)
class Compressing:
    """What compressing takes of a config's ``model`` section."""

    codec: SignalCodec
    caption: Captioner | None = None
    target: Target | None = None


@dataclass(frozen=True)
class Encoded:
    """A stream, and what it cost to make: all encodings, where a target had several tried.

    ``outcome`` says what the target came to, such as a PSNR; empty where the size of the stream tells.
    """

    data: bytes
    account: Account
    outcome: str = ""


@dataclass(frozen=True)
class Decoded:
    """The restorations of a stream, ``(height, width, 3)`` uint8, and how much of it they were made from.

    ``segments`` of ``iterations`` were used; ``cut`` says why there are no more, or that the stream's checksum does not
    match although all of them decode; it is empty where the stream is whole.
    """

    images: list[Pixels]
    segments: int
    iterations: int
    cut: str


@dataclass(frozen=True)
class Simulation:
    """A stream and what its decoder would show, from one pass of the loop.

    ``images`` are the restorations, ``(height, width, 3)`` uint8; ``account`` counts the loop alone, or all encodings
    where a target had several tried. A decoder runs the same loop once, so ``decode_seconds`` is the time of the last
    encoding and of the restorations.
    """

    data: bytes
    images: list[Pixels]
    account: Account = field(repr=False)
    encode_seconds: float
    decode_seconds: float

    @property
    def pixels(self) -> Pixels:
        """The first restoration."""
        return self.images[0]


class Decompressor:
    """Decompresses any stream from what it says of itself, given the prior it was made with.

    Args:
        prior: a prior to use for the streams that were made with it.
        prior_path: where to load the prior of other streams from; by default from where such a prior is by default.
        limits: what a stream may ask for; see :class:`pscx.format.limits.Limits`.
        download: fetch a prior that is not on this machine from its default place. Without it nothing is fetched unless
            ``prior_path`` is a hub id.
        device: where priors compute, and all that is made of signals; see :meth:`to`.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        prior_path: str | None = None,
        limits: Limits | None = None,
        *,
        download: bool = False,
        device: str | torch.device = CPU,
    ) -> None:
        self.prior_path, self.limits, self.download = prior_path, limits or Limits(), download
        self._given = [] if prior is None else [prior]
        self._loaded: list[Prior] = []  # the last few that were used
        self.device = chosen(device)
        if self.device != CPU:
            self.to(self.device)

    def to(self: Self, device: str | torch.device) -> Self:
        """Compute on a device from now on: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, another of torch's, or ``auto``.

        ``auto`` is the accelerator of this machine if it gives the CPU's bits, and the CPU if not. What an exact codec
        makes is the same on every device; a device that fails a check of its arithmetic is refused for it. Priors are
        moved, those that are loaded later too; returns the object itself.

        Raises :class:`PscxError` where there is no such device here, or it will not do.
        """
        self.device = chosen(device)
        for prior in (*self._given, *self._loaded):
            move(prior, self.device, exact=prior.exact)
        return self

    def decompress(
        self,
        data: bytes,
        *,
        index: int = 0,
        partial: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Pixels:
        """The image of a stream: restoration number ``index``, ``(height, width, 3)`` uint8.

        With ``partial`` a stream whose payload was cut or damaged gives the image of the segments before that; see
        :meth:`decode` for how many they were. Raises :class:`StreamError` for a stream that is damaged, of another
        version or of another prior; with ``partial`` where the header is, or not one segment is whole.

        ``cancel()`` is asked before each network evaluation; where it is true, ``CancelledError`` is raised.
        """
        indices = range(index, index + 1)
        return self.decode(data, indices, partial=partial, progress=progress, cancel=cancel).images[0]

    def decompress_samples(
        self,
        data: bytes,
        samples: int,
        *,
        partial: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[Pixels]:
        """The first ``samples`` restorations of a stream; how they differ is up to its restoration."""
        return self.decode(data, range(samples), partial=partial, progress=progress, cancel=cancel).images

    def decompress_many(
        self, streams: Iterable[bytes], *, batch: int = BATCH, **options: Any
    ) -> list[Pixels | PscxError]:
        """:meth:`decompress` of each stream, at most ``batch`` of them at once; ``options`` are those of that method.

        Streams of one exact prior share network calls, others are decoded one at a time; the pixels are the same. A
        stream that cannot be decoded has its error in place of its image.
        """
        tasks = (Task(partial(self.decompress, data, **options), shares=shares_calls(data)) for data in streams)
        return _in_place(tasks, batch)

    @staticmethod
    def info(data: bytes) -> dict[str, Any]:
        """What a stream says of itself, nothing decoded; see :func:`pscx.stream_info`."""
        return stream_info(data)

    def decode(
        self,
        data: bytes,
        indices: range = range(1),
        *,
        partial: bool = False,
        progress: Progress | None = None,
        watch: Watch | None = None,
        cancel: Cancel | None = None,
    ) -> Decoded:
        """The restorations number ``indices`` of a stream, with how much of it was whole; as :meth:`decompress`.

        ``watch`` is shown each segment while it is decoded; see :class:`pscx.codecs.Segment`.
        """
        header, payload = unpack(data, partial=partial)
        with out_of_memory("decoding the stream"), cancellable(cancel):
            codec = self._codec_of(header, len(indices))
            outcome, shape = self._decoded(codec, header, payload, len(indices), partial, progress, watch)
            restored = (codec.restore(outcome, shape, index) for index in indices)
            images = [shown(codec, signal, header.height, header.width) for signal in restored]
        cut = str(outcome.cut or ("" if is_whole(data) else DOUBT))
        return Decoded(images, outcome.segments, codec.segments, cut)

    def replay(self, data: bytes, progress: Progress | None = None) -> Replay:
        """What each segment of a stream brought, for a report; no restoration. Raises as :meth:`decompress`."""
        header, payload = unpack(data)
        with out_of_memory("decoding the stream"):
            codec = self._codec_of(header, 0)
            recorder = codec.recorder(header.height, header.width)
            self._decoded(codec, header, payload, 0, False, progress, recorder)
            return recorder.finish()

    def _decoded(
        self,
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
        self.limits.check(codec, height, width, shape, restorations)
        outcome = codec.decode(payload, shape, progress, partial=partial, arithmetic=header.arithmetic, watch=watch)
        return outcome, shape

    def _codec_of(self, header: Header, restorations: int) -> SignalCodec:
        spec = recipe_spec(header.recipe) if header.recipe else parse_spec(header.spec)
        wanted = wanted_of_spec(spec, header.parameter, header.seed)
        self.limits.check_work(wanted.evaluations(restorations), header.height, header.width)
        self.limits.check_memory(picture_memory(header.height, header.width))
        codec = wanted.codec(self._prior(wanted, header.fingerprint))
        found = codec.fingerprint()
        if found != header.fingerprint:
            raise StreamError(
                f"the stream was made with another prior (fingerprint {header.fingerprint.hex()}, this one is "
                f"{found.hex()}): say where that prior is (--prior PATH)"
            )
        try:
            return codec.conditioned(header.caption)
        except PscxError as error:
            raise StreamError(f"the stream has a caption that is of no use: {error}") from error

    def _prior(self, wanted: Wanted, fingerprint: bytes) -> Prior | None:
        """The prior of that kind and fingerprint, held or loaded; none for a codec that has none."""
        if wanted.kind is None:
            return None
        for prior in (*self._given, *self._loaded):
            if type(prior) is wanted.kind and prior.fingerprint() == fingerprint:
                return prior
        prior = wanted.load(self.prior_path, download=self.download)
        move(prior, self.device, exact=prior.exact)
        self._loaded = [*self._loaded, prior][-KEPT_PRIORS:]
        return prior


class Codec(Decompressor):
    """Compresses images of any size with one codec, and decompresses the streams of all.

    Images are padded to the right and below with their edge pixels, to sides that the prior and the row rule take;
    the decoder cuts that off again.

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
        image: Image | Pixels | Tensor,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        psnr: float | None = None,
        max_bytes: int | None = None,
        step: float | None = None,
        caption: str | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """The stream of an image (any kind that :func:`pscx.images.as_pixels` takes).

        At most one of ``quality`` (1 to 100), ``bpp``, ``psnr`` (dB), ``max_bytes`` and ``step`` may be given; see
        :mod:`pscx.rate_control`. Without one, the codec's own target or quantizer stands.

        ``caption`` takes the place of what the captioner says; an empty one is none. Both sides sample under it, and
        the stream carries it. Raises :class:`PscxError` where the prior takes no captions, or not this one, and where
        what was asked for cannot be reached.
        """
        asked = {"quality": quality, "bpp": bpp, "psnr": psnr, "max_bytes": max_bytes, "step": step}
        return self.encode(image, target=_target(asked), caption=caption, progress=progress).data

    def encode(
        self,
        image: Image | Pixels | Tensor,
        *,
        target: Target | None = None,
        caption: str | None = None,
        progress: Progress | None = None,
        on_trial: OnTrial | None = None,
        watch: Watch | None = None,
    ) -> Encoded:
        """:meth:`compress`, with what it cost.

        ``on_trial(number, parameter)`` is called before each encoding, and ``watch`` is shown each of its segments.
        """
        target = target or self.target
        trials = self._trials(image, caption, progress, on_trial, watch)
        setting = self._setting(target, trials)
        run = trials.run(setting)
        return Encoded(run.data, trials.account(), "" if target is None else target.outcome(trials, setting))

    def compress_many(
        self, images: Iterable[Image | Pixels | Tensor], *, batch: int = BATCH, **options: Any
    ) -> list[bytes | PscxError]:
        """:meth:`compress` of each image, at most ``batch`` of them at once; ``options`` are those of that method.

        Images of one size share network calls under an exact codec; under any other they are encoded one at a time.
        The streams are the same. An image that cannot be compressed has its error in place of its stream; the
        ``TypeError`` or ``ValueError`` of :func:`pscx.images.as_pixels` is raised.
        """
        return _in_place((self._task(self.compress, image, options) for image in images), batch)

    def simulate_many(
        self, images: Iterable[Image | Pixels | Tensor], *, batch: int = BATCH, **options: Any
    ) -> list[Simulation | PscxError]:
        """:meth:`simulate` of each image, as :meth:`compress_many`; ``options`` are those of :meth:`simulate`.

        The seconds of an image are its own work and its part, by samples, of the calls that it shared.
        """
        return _in_place((self._task(self.simulate, image, options) for image in images), batch)

    @property
    def shares_calls(self) -> bool:
        """Whether several images may share network calls: where that changes no bit, and one process has an image."""
        return self.signal_codec.exact and self.signal_codec.spread.size == 1

    def _task(self, do: Callable[..., T], image: Image | Pixels | Tensor, options: Mapping[str, Any]) -> Task[T]:
        return Task(partial(do, image, **options), shares=self.shares_calls)

    def simulate(
        self,
        image: Image | Pixels | Tensor,
        *,
        samples: int = 1,
        target: Target | None = None,
        caption: str | None = None,
        progress: Progress | None = None,
        on_trial: OnTrial | None = None,
        watch: Watch | None = None,
    ) -> Simulation:
        """The stream of an image and its first ``samples`` restorations, at the cost of compressing alone.

        ``on_trial`` and ``watch`` as in :meth:`encode`.
        """
        run, account = self._run(image, target, caption, progress, on_trial, watch)
        with out_of_memory("restoring the image"):
            images = run.images(samples)
        return Simulation(run.data, images, account, account.seconds, run.account.seconds + run.restore_seconds)

    def _run(
        self,
        image: Image | Pixels | Tensor,
        target: Target | None,
        caption: str | None,
        progress: Progress | None,
        on_trial: OnTrial | None,
        watch: Watch | None = None,
    ) -> tuple[Run, Account]:
        """The encoding that the target asks for, and what it has cost to come by."""
        trials = self._trials(image, caption, progress, on_trial, watch)
        with out_of_memory(f"encoding {trials.pixels.shape[1]}x{trials.pixels.shape[0]} pixels"):
            return trials.run(self._setting(target or self.target, trials)), trials.account()

    def _trials(
        self,
        image: Image | Pixels | Tensor,
        caption: str | None,
        progress: Progress | None,
        on_trial: OnTrial | None,
        watch: Watch | None,
    ) -> Trials:
        pixels = as_pixels(image)
        with out_of_memory(f"encoding {pixels.shape[1]}x{pixels.shape[0]} pixels"):
            header = self._header(pixels, caption)
            check_encoding(self.signal_codec, pixels)
            codec = self.signal_codec.conditioned(header.caption)
            return Trials(codec, header, pixels, signal_of(codec, pixels), progress, on_trial, watch)

    @staticmethod
    def _setting(target: Target | None, trials: Trials) -> Setting:
        return Setting(trials.codec.parameter) if target is None else _reached(target, trials)

    def _header(self, pixels: Pixels, caption: str | None) -> Header:
        height, width = pixels.shape[:2]
        if max(height, width) > SIDE_LIMIT:
            raise ImageError(f"an image must be at most {SIDE_LIMIT} pixels a side, got {width}x{height}")
        return self.header(height, width, self.caption_of(pixels) if caption is None else _checked_caption(caption))

    def header(self, height: int, width: int, caption: str = "") -> Header:
        """What a stream of an image of that size says, at the codec's own parameter."""
        spec = codec_spec(self.signal_codec)
        number = recipe_number(spec)
        return Header(
            height=height,
            width=width,
            fingerprint=self.signal_codec.fingerprint(),
            recipe=number,
            spec="" if number else json.dumps(spec, separators=(",", ":")),
            parameter=self.signal_codec.parameter,
            seed=self.signal_codec.seed,
            caption=caption,
            arithmetic=self.signal_codec.arithmetic(),
        )

    def caption_of(self, pixels: Pixels) -> str:
        """What the captioner says of an image; empty without one."""
        return "" if self.captioner is None else _checked_caption(self.captioner.caption(pixels))


def shares_calls(data: bytes) -> bool:
    """Whether a stream may be decoded with others in one network call: it says that its codec is exact."""
    try:
        return unpack(data, partial=True)[0].exact
    except StreamError:
        return False


def _in_place(tasks: Iterable[Task[T]], batch: int) -> list[T | PscxError]:
    """The results of tasks, with an error of one image in its place; raises any other."""
    results: list[T | PscxError] = []
    for result in together(tasks, batch):
        if isinstance(result, Exception) and not isinstance(result, PscxError):
            raise result
        results.append(result)
    return results


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
        config: ``default`` or another recipe, else a file.
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
    known = str(config) in RECIPES.values()
    if not known and not Path(config).exists():
        raise ConfigError(f"'{config}' is neither a config file nor a recipe{choices(str(config), RECIPES.values())}")
    layers = [option_layer("recipe", str(config)) if known else read_yaml(config)]
    beside = parameters_of(Compressing)
    places = {key: f"model.{key}" if key in beside else f"model.codec.{key}" for key in overrides}
    layers += [option_layer(places[key], value) for key, value in overrides.items()]
    return build_codec(layers, step, prior_path).to(device)


def build_codec(layers: list[Layer], step: float | None = None, prior_path: str | None = None) -> Codec:
    """The codec, the captioner and the target of the ``model`` section that ``layers`` add up to.

    With ``step`` the codec is at that parameter, and there is no target.
    """
    checker = Checker([_compressing(layer) for layer in layers])
    tree = checker.tree()
    checker.sections(tree)
    model = tree.get("model")
    if not isinstance(model, dict) or "codec" not in model:
        name = layers[0].source if layers else "the config"
        raise ConfigError(f"{name}: its model section must have a codec, one of {', '.join(sorted(CODECS.classes))}")
    checked = checker.options(Compressing, model, "model", "model")
    forms = {key: form for key, form in checked.items() if form is not None}
    codec: SignalCodec = built(forms["codec"])
    if step is not None:
        forms.pop("target", None)
        try:
            codec = codec.with_parameter(step)
        except ValueError as error:
            raise ConfigError(f"step: {error}") from error
    if "caption" in forms and not codec.takes_captions:  # before the captioner is loaded
        raise ConfigError(f"model.caption must be null: the {takes_none(codec)}")
    beside = {"captioner": forms.get("caption"), "target": forms.get("target")}
    return build(Codec, {"codec": codec, "prior_path": prior_path, **beside})


def takes_none(codec: SignalCodec) -> str:
    """Which part of a codec takes no captions, and that it does not."""
    kind, part = ("prior", codec.prior) if isinstance(codec, PriorCodec) else ("codec", codec)
    return f"{kind} is a {type(part).__name__}, which takes no captions"


def _compressing(layer: Layer) -> Layer:
    """A file without what only an evaluation knows; an option stays, to be refused."""
    model = layer.values.get("model")
    if not isinstance(model, dict) or layer.source.startswith("--"):
        return layer
    name = str(model.get("name", "evaluate")).rpartition(".")[2].lower()
    if name != "evaluate":
        return layer
    kept = {k: v for k, v in model.items() if k not in (*EVALUATION_ONLY, "name")}
    return replace(layer, values={**layer.values, "model": kept})


def _target(asked: Mapping[str, float | None]) -> Target | None:
    """The one target of those that has a value, or none."""
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise PscxError(f"at most one of {', '.join(asked)} may be given, got {' and '.join(given)}")
    if not given:
        return None
    try:
        return build(TARGETS.get(given[0]), {"value": asked[given[0]]})
    except ConfigError as error:
        raise PscxError(str(error)) from error


def _reached(target: Target, trials: Trials) -> Setting:
    try:
        target.check(trials.codec)
    except ValueError as error:
        raise PscxError(str(error)) from error
    return target.reach(trials)


def _checked_caption(caption: str) -> str:
    """The caption, if a stream can hold it."""
    try:
        size = len(caption.encode())
    except UnicodeEncodeError:
        raise PscxError("the caption holds characters that UTF-8 cannot say") from None
    if size > TEXT_LIMIT:
        raise PscxError(f"the caption must be at most {TEXT_LIMIT} bytes of UTF-8, got {size}")
    return caption
