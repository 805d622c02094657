"""What the families along a path from noise to the image share."""

from pscx.codecs.paths.codebooks import Codebook, GaussianCodebook, HadamardCodebook, Place, codebook
from pscx.codecs.paths.family import PathCodec
from pscx.codecs.paths.groups import Groups, random_order
from pscx.codecs.paths.sides import Adaptive, Reader, Side, Writer
from pscx.codecs.paths.walk import Increments, Path, Reached, Sent, Step

__all__ = [
    "Adaptive",
    "Codebook",
    "GaussianCodebook",
    "Groups",
    "HadamardCodebook",
    "Increments",
    "Path",
    "PathCodec",
    "Place",
    "Reached",
    "Reader",
    "Sent",
    "Side",
    "Step",
    "Writer",
    "codebook",
    "random_order",
]
