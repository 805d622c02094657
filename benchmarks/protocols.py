"""The sets of photographs that papers of this field report on, and how: whole images, or central squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pscx.errors import PscxError


@dataclass(frozen=True)
class Protocol:
    """A set: its title, how many images it has, the central square that is taken (none: whole images), its sizes."""

    title: str
    images: int
    crop: int | None
    fits: Callable[[int, int], bool]
    sizes: str

    def check(self, files: Mapping[str, Path]) -> None:
        """Raise :class:`pscx.PscxError` where these files are not from the set."""
        if len(files) > self.images:
            raise PscxError(f"{self.title} has {self.images} images, but the folder has {len(files)}")
        for file in files.values():
            width, height = size_of(file)
            if not self.fits(width, height):
                raise PscxError(f"the images of {self.title} are {self.sizes}, but '{file}' is {width}x{height}")


def _kodak(width: int, height: int) -> bool:
    return sorted((width, height)) == [512, 768]


PROTOCOLS = {
    "kodak": Protocol("Kodak", 24, None, _kodak, "768x512 or 512x768"),
    "kodak-512": Protocol("Kodak", 24, 512, _kodak, "768x512 or 512x768"),
    "div2k": Protocol("DIV2K validation", 100, None, lambda *size: max(size) == 2040, "2040 pixels on the longer side"),
    "clic": Protocol("CLIC 2020 test", 428, None, lambda *size: True, "of any size"),
}
"""By the names that ``--protocol`` takes."""


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an image by its header. Raises :class:`pscx.PscxError` where it is none."""
    try:
        with Image.open(file) as image:
            return image.size
    except OSError as error:
        raise PscxError(f"cannot read '{file}': {error}") from error
