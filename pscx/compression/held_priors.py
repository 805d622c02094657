"""The priors that a decompressor holds: the one it was given, and the last few that it loaded."""

from __future__ import annotations

import torch

from pscx.codecs.specs import Wanted
from pscx.compression.known_priors import KnownPriors
from pscx.errors import PscxError
from pscx.execution.placement import CPU, chosen, move
from pscx.priors import Prior, Speed

KEPT_PRIORS = 2


class HeldPriors:
    """Priors on one device.

    Args:
        given: a prior that is always held; or none.
        device: where they are from now on; see :meth:`to`.
        known: where priors are by their fingerprint; or none.
        speed: what makes those that are loaded faster; or none.

    Raises:
        PscxError: there is no such device here, or it will not do.
    """

    def __init__(
        self,
        given: Prior | None,
        device: str | torch.device,
        known: KnownPriors | None = None,
        speed: Speed | None = None,
    ) -> None:
        self.known, self.speed = known, speed
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

    def of(self, wanted: Wanted, fingerprint: bytes, path: str | None, *, download: bool) -> Prior | None:
        """The prior that a stream asks for, held or loaded; none for a codec that has none.

        It is loaded from ``path``, or from where it is known to be, or from its default place; see
        :meth:`pscx.codecs.specs.Wanted.load`. Whether it is the right one is the caller's to check.
        """
        if wanted.kind is None:
            return None
        found = self.find(wanted.kind, fingerprint)
        if found is not None:
            return found
        place = None if self.known is None else self.known.place(fingerprint)
        prior = wanted.load(path, download=download, known=place)
        try:
            prior.hasten(self.speed)
        except ValueError as error:
            raise PscxError(str(error)) from error
        self.keep(prior)
        if self.known is not None and prior.fingerprint() == fingerprint:
            self.known.remember(fingerprint, prior)
        return prior

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
