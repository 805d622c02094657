"""The priors that a decompressor holds: the one it was given, and the last few that it loaded."""

from __future__ import annotations

import torch

from pscx.execution.placement import CPU, chosen, move
from pscx.priors import Prior

KEPT_PRIORS = 2


class HeldPriors:
    """Priors on one device.

    Args:
        given: a prior that is always held; or none.
        device: where they are from now on; see :meth:`to`.

    Raises:
        PscxError: there is no such device here, or it will not do.
    """

    def __init__(self, given: Prior | None, device: str | torch.device) -> None:
        self.given = [] if given is None else [given]
        self.loaded: list[Prior] = []
        self.device = chosen(device)
        if self.device != CPU:
            self.to(self.device)

    def to(self, device: str | torch.device) -> None:
        """Move all priors, and from now on each that is loaded; an exact one to a device that was checked."""
        self.device = chosen(device)
        for prior in (*self.given, *self.loaded):
            move(prior, self.device, exact=prior.exact)

    def find(self, kind: type[Prior], fingerprint: bytes) -> Prior | None:
        """The prior of that kind and fingerprint, if it is held."""
        for prior in (*self.given, *self.loaded):
            if type(prior) is kind and prior.fingerprint() == fingerprint:
                if prior in self.loaded:
                    self.keep(prior)
                return prior
        return None

    def keep(self, prior: Prior) -> Prior:
        """Hold a prior that was loaded, as the last that was used."""
        move(prior, self.device, exact=prior.exact)
        self.loaded = [*(other for other in self.loaded if other is not prior), prior][-KEPT_PRIORS:]
        return prior
