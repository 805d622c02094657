"""Parameterisations: what a network is given and what it predicts, turned into ``E[x0 | x]`` in one place each."""

from pscx.priors.parameterisations.base import Network, Parameterisation, Scalings
from pscx.priors.parameterisations.edm import EDM
from pscx.priors.parameterisations.flow_matching import FlowMatching
from pscx.priors.parameterisations.variance_preserving import VariancePreserving

__all__ = ["EDM", "FlowMatching", "Network", "Parameterisation", "Scalings", "VariancePreserving"]
