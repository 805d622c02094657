"""Captioners: text that says what is in an image, for a prior that knows what to do with it."""

from pscx.captioners.base import CAPTIONERS, Captioner
from pscx.captioners.blip2 import Blip2
from pscx.captioners.file import File
from pscx.captioners.fixed import Fixed

__all__ = ["CAPTIONERS", "Blip2", "Captioner", "File", "Fixed"]
