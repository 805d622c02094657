"""Pictures: reading, writing and converting them. Pixels are ``(height, width, 3)`` uint8 in sRGB."""

from pscx.images.conversion import MIN_SIDE, as_pixels, background_colour, pattern_pixels, to_pixels, to_tensor
from pscx.images.reading import decode_image, image_sides, read_image
from pscx.images.writing import WEBP_MAX_SIDE, check_image_suffix, encode_image, write_image

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
