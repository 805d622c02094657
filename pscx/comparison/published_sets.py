"""The sets of images that published figures are of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSet:
    """A set of images: its title, how many it has, and the pixels of each; none where that is not told, or differs."""

    title: str
    images: int | None
    pixels: int | None = None


SETS = {
    "kodak": ImageSet("Kodak", 24, 768 * 512),
    "kodak-512": ImageSet("Kodak, central 512x512", 24, 512 * 512),
    "clic": ImageSet("CLIC 2020 test", 428),
    "clic2020-professional": ImageSet("CLIC 2020, professional", None),
    "clic2020-mobile": ImageSet("CLIC 2020, mobile", None),
    "div2k": ImageSet("DIV2K validation", 100),
    "tecnick": ImageSet("Tecnick", None),
}
"""By the names that ``--published`` takes."""
