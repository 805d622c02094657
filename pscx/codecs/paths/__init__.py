"""What the families along a path from noise to the image share."""

from pscx.codecs.paths.codebooks import Codebook, Place
from pscx.codecs.paths.family import PathCodec
from pscx.codecs.paths.groups import Groups
from pscx.codecs.paths.sides import Side
from pscx.codecs.paths.walk import Increments, Path, Reached, Sent, Step

__all__ = ["Codebook", "Groups", "Increments", "Path", "PathCodec", "Place", "Reached", "Sent", "Side", "Step"]
