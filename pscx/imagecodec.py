"""From images to streams and back: pixels and headers around the loop of :mod:`pscx.codec`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import lcm
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from pscx.arithmetic import arithmetic_of
from pscx.cancel import Cancel, cancellable
from pscx.captioners import CAPTIONERS, Captioner
from pscx.codec import PSC, Account, Progress, Watch
from pscx.config import Checker, ConfigError, Layer, build, built, option_layer, read_yaml
from pscx.errors import ImageError, PscxError, StreamError
from pscx.images import as_pixels, to_tensor
from pscx.info import stream_info
from pscx.limits import Limits, picture_memory
from pscx.priors import Prior
from pscx.recipes import RECIPES
from pscx.registry import Registry, choices
from pscx.specs import Wanted, codec_spec, parse_spec, recipe_number, recipe_spec, wanted_of_spec
from pscx.stream import SIDE_LIMIT, TEXT_LIMIT, Header, is_whole, unpack
from pscx.targets import TARGETS, Target
from pscx.together import Task, together
from pscx.trials import OnTrial, Run, Setting, Trials, shown

Pixels = NDArray[np.uint8]
MAX_MULTIPLE = 1024
BATCH = 8
DOUBT = "the checksum of the stream does not match, so the image may be wrong"
T = TypeVar("T")
EVALUATION_ONLY = ("restorations", "simulate", "ranks_per_image", "logged_pictures")
BESIDE_THE_LOOP: dict[str, Registry[Any]] = {"caption": CAPTIONERS, "target": TARGETS}


@dataclass(frozen=True)
class Encoded:
    """A stream, and what it cost to make: all encodings, where a target had several tried."""

    data: bytes
    account: Account


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
        limits: what a stream may ask for; see :class:`pscx.limits.Limits`.
        download: fetch a prior that is not on this machine from its default place. Without it nothing is fetched unless
            ``prior_path`` is a hub id.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        prior_path: str | None = None,
        limits: Limits | None = None,
        *,
        download: bool = False,
    ) -> None:
        self.prior_path, self.limits, self.download = prior_path, limits or Limits(), download
        self._priors: dict[tuple[type[Prior], bytes], Prior] = {}
        if prior is not None:
            self._priors[type(prior), prior.fingerprint()] = prior

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

        ``watch`` is shown each segment while it is decoded; see :class:`pscx.codec.Seal`.
        """
        header, payload = unpack(data, partial=partial)
        psc = self._psc_of(header, len(indices))
        multiple = _multiple(psc)
        if multiple > MAX_MULTIPLE:
            raise StreamError(f"the stream asks for blocks of {multiple} pixels; at most {MAX_MULTIPLE} are allowed")
        height, width = (-(-side // multiple) * multiple for side in (header.height, header.width))
        shape = psc.prior.signal_shape(height, width)
        self.limits.check(psc, height, width, shape, len(indices))
        with cancellable(cancel):
            outcome = psc.decode(payload, shape, progress, partial=partial, arithmetic=header.arithmetic, watch=watch)
            restored = (psc.restore(outcome, shape, index) for index in indices)
            images = [shown(psc, signal, header.height, header.width) for signal in restored]
        cut = str(outcome.cut or ("" if is_whole(data) else DOUBT))
        return Decoded(images, outcome.segments, psc.iterations, cut)

    def _psc_of(self, header: Header, restorations: int) -> PSC:
        spec = recipe_spec(header.recipe) if header.recipe else parse_spec(header.spec)
        wanted = wanted_of_spec(spec, header.parameter, header.seed)
        self.limits.check_work(wanted, header.height, header.width, restorations)
        self.limits.check_memory(picture_memory(header.height, header.width))
        psc = wanted.psc(self._prior(wanted, header.fingerprint))
        try:
            return psc.conditioned(header.caption)
        except PscxError as error:
            raise StreamError(f"the stream has a caption that is of no use: {error}") from error

    def _prior(self, wanted: Wanted, fingerprint: bytes) -> Prior:
        """The prior of that kind and fingerprint, held or loaded."""
        known = self._priors.get((wanted.kind, fingerprint))
        if known is not None:
            return known
        prior = wanted.load(self.prior_path, download=self.download)
        found = prior.fingerprint()
        if found != fingerprint:
            raise StreamError(
                f"the stream was made with another prior (fingerprint {fingerprint.hex()}, this one is "
                f"{found.hex()}): say where that prior is (--prior PATH)"
            )
        self._priors[type(prior), found] = prior
        return prior


class Codec(Decompressor):
    """Compresses images of any size with one codec, and decompresses the streams of all.

    Images are padded to the right and below with their edge pixels, to sides that the prior and the row rule take;
    the decoder cuts that off again.

    Args:
        psc: what to compress with.
        prior_path: see :class:`Decompressor`.
        captioner: describes each image, for a prior that takes captions; or none.
        target: what streams are to be where nothing else is asked for; none: that of the quantizer as it is.
        limits: see :class:`Decompressor`; compressing has none.
    """

    def __init__(
        self,
        psc: PSC,
        prior_path: str | None = None,
        captioner: Captioner | None = None,
        target: Target | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(psc.prior, prior_path, limits)
        if captioner is not None and not psc.prior.takes_captions:
            raise ValueError(
                f"caption must be null: the prior is a {type(psc.prior).__name__}, which takes no captions"
            )
        if target is not None:
            target.check(psc.quantizer)
        self.psc, self.captioner, self.target = psc, captioner, target
        self._fingerprint = psc.prior.fingerprint()

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
        :mod:`pscx.targets`. Without one, the codec's own target or quantizer stands.

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
        run, account = self._run(image, target, caption, progress, on_trial, watch)
        return Encoded(run.data, account)

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
        return self.psc.exact and self.psc.spread.size == 1

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
        pixels = as_pixels(image)
        header = self._header(pixels, caption)
        psc = self.psc.conditioned(header.caption)
        trials = Trials(psc, header, pixels, signal_of(psc, pixels), progress, on_trial, watch)
        target = target or self.target
        setting = Setting(psc.quantizer.parameter) if target is None else _reached(target, trials)
        return trials.run(setting), trials.account()

    def _header(self, pixels: Pixels, caption: str | None) -> Header:
        height, width = pixels.shape[:2]
        if max(height, width) > SIDE_LIMIT:
            raise ImageError(f"an image must be at most {SIDE_LIMIT} pixels a side, got {width}x{height}")
        spec = codec_spec(self.psc)
        number = recipe_number(spec)
        return Header(
            height=height,
            width=width,
            fingerprint=self._fingerprint,
            recipe=number,
            spec="" if number else json.dumps(spec, separators=(",", ":")),
            parameter=self.psc.quantizer.parameter,
            seed=self.psc.seed,
            caption=self.caption_of(pixels) if caption is None else _checked_caption(caption),
            arithmetic="" if self.psc.exact else arithmetic_of(self.psc.prior),
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
    config: str | Path = "default", *, step: float | None = None, prior_path: str | None = None, **overrides: Any
) -> Codec:
    """A codec from a recipe's name or a YAML file, of which only the ``model`` section (and ``recipe``) is used.

    Args:
        config: ``default`` or another recipe, else a file.
        step: parameter of the quantizer, in place of the config's quantizer and target; or none for what that says.
        prior_path: see :class:`Decompressor`.
        **overrides: keys of the ``model`` section, such as ``sampler={"steps": 3}``, ``seed=1`` or ``caption="blip2"``.

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
    layers += [option_layer(f"model.{key}", value) for key, value in overrides.items()]
    return build_codec(layers, step, prior_path)


def build_codec(layers: list[Layer], step: float | None = None, prior_path: str | None = None) -> Codec:
    """:func:`build_psc`, and the captioner and the target of the ``model`` section, if it names them.

    With ``step`` there is no target.
    """
    checker = Checker([_codec_layer(layer) for layer in layers])
    model = checker.tree().get("model")
    own = {
        key: checker.component(registry, model[key], f"model.{key}")
        for key, registry in BESIDE_THE_LOOP.items()
        if isinstance(model, dict) and model.get(key) is not None
    }
    target = None if step is not None or "target" not in own else built(own["target"])
    psc = build_psc([_loop_alone(layer) for layer in layers], step)
    if "caption" in own and not psc.prior.takes_captions:  # before the captioner is loaded
        raise ConfigError(f"model.caption must be null: the prior is a {type(psc.prior).__name__}, which takes none")
    return build(Codec, {"psc": psc, "prior_path": prior_path, "captioner": own.get("caption"), "target": target})


def build_psc(layers: list[Layer], step: float | None = None) -> PSC:
    """The codec of the ``model`` section that ``layers`` add up to, at the quantizer's parameter ``step`` if given."""
    checker = Checker([_codec_layer(layer) for layer in layers])
    tree = checker.tree()
    checker.sections(tree)
    model = tree.get("model")
    if not isinstance(model, dict) or "name" in model:
        name = layers[0].source if layers else "the config"
        raise ConfigError(
            f"{name}: its model section must be a codec: prior, sampler, rows, quantizer, coder, restoration"
        )
    psc = build(PSC, checker.options(PSC, model, "model", "model"))
    if step is not None:
        try:
            psc.quantizer = psc.quantizer.with_parameter(step)
        except ValueError as error:
            raise ConfigError(f"step: {error}") from error
    return psc


def _codec_layer(layer: Layer) -> Layer:
    """A file without what only the evaluation of a codec knows; an option stays, to be refused."""
    model = layer.values.get("model")
    if not isinstance(model, dict) or layer.source.startswith("--"):
        return layer
    name = str(model.get("name", "evaluate")).rpartition(".")[2].lower()
    kept = {k: v for k, v in model.items() if k not in EVALUATION_ONLY and not (k == "name" and name == "evaluate")}
    return Layer(layer.source, {**layer.values, "model": kept})


def _loop_alone(layer: Layer) -> Layer:
    """A layer without the captioner and the target, which are no part of the loop."""
    model = layer.values.get("model")
    if not isinstance(model, dict):
        return layer
    return Layer(layer.source, {**layer.values, "model": {k: v for k, v in model.items() if k not in BESIDE_THE_LOOP}})


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
        target.check(trials.quantizer)
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


def _multiple(psc: PSC) -> int:
    """What the sides of an image must be multiples of, in pixels."""
    stride = psc.prior.stride
    pixels_each = stride // psc.prior.signal_shape(stride, stride)[-1]
    return lcm(stride, psc.rows.stride * pixels_each)


def signal_of(psc: PSC, pixels: Pixels) -> Tensor:
    """The signal ``(channels, height, width)`` of an image that was padded as far as the codec asks for, float32."""
    multiple = _multiple(psc)
    below, right = (-side % multiple for side in pixels.shape[:2])
    padded = np.pad(pixels, ((0, below), (0, right), (0, 0)), "edge")
    return psc.prior.to_signal(to_tensor(padded))[0]
