"""Pictures, text and files as self-contained HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from pscx.rate_control.trials import Pixels

LARGEST = 3  # times its size that a picture is enlarged to


@dataclass(frozen=True)
class Picture:
    """A picture, ``(height, width, 3)`` uint8, with its title and caption."""

    title: str
    says: str
    pixels: Pixels


def gallery(pictures: Sequence[Picture]) -> str:
    """Pictures side by side, wrapped to the width of the page, small ones not enlarged beyond ``LARGEST`` times."""
    return f'<div class="gallery">{"".join(map(_figure, pictures))}</div>'


def message(text: str, kind: str = "says") -> str:
    """A sentence that screen readers announce; ``kind`` is ``says`` or ``error``."""
    return f'<p class="{kind}" role="{"alert" if kind == "error" else "status"}">{escape(text)}</p>'


def progress(label: str, done: int, total: int) -> str:
    """A bar with its label."""
    name = escape(label)
    return f'<p role="status">{name}</p><progress aria-label="{name}" value="{done}" max="{total}"></progress>'


def link(name: str, data: bytes, label: str) -> str:
    """A link that saves ``data`` as a file of this name."""
    source = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
    return f'<p><a class="file" download="{escape(name)}" href="{source}">{escape(label)}</a></p>'


def png(pixels: Pixels) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _figure(picture: Picture) -> str:
    height, width = picture.pixels.shape[:2]
    source = f"data:image/png;base64,{base64.b64encode(png(picture.pixels)).decode()}"
    title, says = escape(picture.title), escape(picture.says)
    size = f'width="{width}" height="{height}" style="max-width: min(100%, {LARGEST * width}px)"'
    image = f'<img src="{source}" {size} alt="{title}: {says}">'
    return f"<figure>{image}<figcaption><strong>{title}</strong><br>{says}</figcaption></figure>"
