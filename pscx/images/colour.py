"""Converts the colours of a file to sRGB, the colour space of codecs.

The first of these in a file counts: cICP (PNG), an ICC profile, PNG's sRGB chunk, PNG's gamma and chromaticities,
EXIF's Adobe RGB. Without any of them the file is sRGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pscx.runtime.notices import tell

Array = NDArray[np.float64]
Apply = Callable[[Image.Image], Image.Image]

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green and blue, as in a cHRM chunk
ADOBE_RGB = (*SRGB[:4], 0.21, 0.71, 0.15, 0.06)
PRIMARIES = {  # ITU-T H.273, table 2
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*SRGB[:4], 0.29, 0.60, 0.15, 0.06),
    6: (*SRGB[:2], 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*SRGB[:2], 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*SRGB[:2], 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*SRGB[:2], 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # of the transfer characteristics in H.273, table 3
BT709, SRGB_CURVE = (1, 6, 14, 15), 13
USUAL_GAMMA, NEAR = 1 / 2.2, 0.005  # gammas in files that mean the sRGB curve, and their tolerance
ADOBE_GAMMA = 563 / 256
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
ENCODINGS = 1 << 16  # number of distinct linear values
BAND = 1 << 20  # pixels per conversion step
SAME = 1  # level: a space that moves no colour further is sRGB


def in_srgb(image: Image.Image, info: Mapping[str, Any], name: str) -> Image.Image:
    """An image of mode L, RGB or CMYK as sRGB, of mode RGB; itself, as it is, where it is sRGB already.

    ``info`` is what the file says of its colours, as Pillow has it, and ``cicp`` and ``adobe_rgb``; ``name`` stands in
    warnings.
    """
    apply = _space(image.mode, info, name)
    if apply is None:
        return image.convert("RGB")
    return apply(image)


def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same bytes every time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = b"\x07\xe8\0\1\0\1\0\0\0\0\0\0"  # its creation date
    return bytes(profile)


def _space(mode: str, info: Mapping[str, Any], name: str) -> Apply | None:
    """The conversion to sRGB, or none."""
    if "cicp" in info and (codes := tuple(info["cicp"])):
        if codes in _FOLLOWED:
            return _with_matrix(PRIMARIES[codes[0]], codes[1], None)
        tell(f"'{name}' has a colour space (cICP {codes}) that is not followed: its colours may come out wrong")
    if info.get("icc_profile"):
        return _with_profile(mode, bytes(info["icc_profile"]), name)
    if "srgb" in info:
        return None
    if "gamma" in info or "chromaticity" in info:
        return _with_gamma(info, name)
    return _with_matrix(ADOBE_RGB, None, ADOBE_GAMMA) if info.get("adobe_rgb") else None


def _with_gamma(info: Mapping[str, Any], name: str) -> Apply | None:
    primaries = tuple(info.get("chromaticity") or SRGB)
    encoding = info.get("gamma", USUAL_GAMMA)
    usual = abs(encoding - USUAL_GAMMA) <= NEAR
    try:
        if not 0.1 <= encoding <= 10:
            raise ValueError("gamma out of range")
        return _with_matrix(primaries, SRGB_CURVE if usual else None, 1 / encoding)
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError):
        tell(f"'{name}' has a gamma or chromaticities that make no sense: its colours are taken to be sRGB")
        return None


@lru_cache(maxsize=4)
def _with_matrix(primaries: tuple[float, ...], transfer: int | None, gamma: float | None) -> Apply | None:
    """From a space with those primaries, and the curve of a code in H.273 or the exponent ``gamma``."""
    levels = np.arange(256) / 255
    linear = _curve(levels, transfer) if transfer is not None else levels ** float(gamma or 1)
    matrix = np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(primaries)
    if not np.isfinite(matrix).all():
        raise ValueError("not a space of colours")
    table = np.rint(255 * _encoded(np.arange(ENCODINGS) / (ENCODINGS - 1))).astype(np.uint8)

    def apply(image: Image.Image) -> Image.Image:
        pixels = np.array(image.convert("RGB"))
        flat = pixels.reshape(-1, 3)
        for start in range(0, len(flat), BAND):
            band = flat[start : start + BAND]
            mixed = (linear[band] @ matrix.T).clip(0, 1)
            band[:] = table[np.rint(mixed * (ENCODINGS - 1)).astype(np.int64)]
        return Image.fromarray(pixels)

    return None if _changes_nothing(apply, "RGB") else apply


def _with_profile(mode: str, profile: bytes, name: str) -> Apply | None:
    try:
        return _of_profile(mode, profile)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        tell(f"'{name}' has a colour profile that is damaged or not for such a picture: it is ignored")
        return None


@lru_cache(maxsize=4)
def _of_profile(mode: str, profile: bytes) -> Apply | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    kind = source.profile.xcolor_space.strip()
    taken = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(kind, "")
    if taken != mode and (mode, taken) != ("L", "RGB"):
        raise ValueError(f"a profile of {kind} for a picture of {mode}")
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        taken,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def apply(image: Image.Image) -> Image.Image:
        return transform.apply(image if image.mode == taken else image.convert(taken))

    return None if taken != "CMYK" and _changes_nothing(apply, taken) else apply


def _changes_nothing(apply: Apply, mode: str) -> bool:
    """Whether a conversion leaves all greys, and colours of 17 levels each way, where they are, but for rounding."""
    greys = np.arange(256, dtype=np.uint8)
    if mode == "L":
        probe = Image.fromarray(greys[None])
    else:
        levels = np.linspace(0, 255, 17).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
        probe = Image.fromarray(np.concatenate([greys[:, None].repeat(3, 1), colours])[None])
    moved = np.abs(np.asarray(apply(probe)).astype(int) - np.asarray(probe.convert("RGB")))
    return int(moved.max()) <= SAME


def _curve(levels: Array, transfer: int) -> Array:
    """Linear light of levels in [0, 1], by a code of H.273."""
    if transfer in GAMMAS:
        return np.asarray(levels ** GAMMAS[transfer])
    if transfer in BT709:
        return np.where(levels < 0.081, levels / 4.5, ((levels + 0.099) / 1.099) ** (1 / 0.45))
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Array) -> Array:
    """Levels of sRGB (IEC 61966-2-1) for linear light, both in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_xyz(primaries: tuple[float, ...]) -> Array:
    """Linear light of a space to CIE XYZ as seen under the white of sRGB (Bradford)."""
    white, *rest = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    colours = np.stack(rest, 1)
    matrix = colours * np.linalg.solve(colours, white)
    x, y = SRGB[:2]
    cones = BRADFORD @ np.stack([white, np.array([x / y, 1, (1 - x - y) / y])], 1)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(cones[:, 1] / cones[:, 0]) @ BRADFORD
    return np.asarray(adapted @ matrix)


_FOLLOWED = {(p, t, 0, 1) for p in PRIMARIES for t in (*GAMMAS, *BT709, SRGB_CURVE)}
