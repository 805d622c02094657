"""PSC, posterior sampling-based compression (Elata, Michaeli and Elad, TMLR 2025)."""

from pscx.codecs.psc.codec import PSC

__all__ = ["PSC"]
