"""Pictures: reading, writing and converting them. Pixels are ``(height, width, 3)`` uint8 in sRGB."""

from pscx.images.pictures import (
    MIN_SIDE,
    WEBP_MAX_SIDE,
    as_pixels,
    background_colour,
    check_image_suffix,
    decode_image,
    encode_image,
    image_sides,
    pattern_pixels,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)

__all__ = [
    "MIN_SIDE",
    "WEBP_MAX_SIDE",
    "as_pixels",
    "background_colour",
    "check_image_suffix",
    "decode_image",
    "encode_image",
    "image_sides",
    "pattern_pixels",
    "read_image",
    "to_pixels",
    "to_tensor",
    "write_image",
]
