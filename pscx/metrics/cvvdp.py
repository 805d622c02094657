"""ColorVideoVDP: how visible differences are on a given display."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from pscx.errors import PscxError
from pscx.metrics.base import METRICS, Image, ImageMetric
from pscx.runtime.extras import broken_torchvision

LIBRARY = "pycvvdp"


@METRICS.register("cvvdp")
class CVVDP(ImageMetric):
    """ColorVideoVDP (Mantiuk et al. 2024), in just-objectionable differences; equal pictures: 10, higher is better.

    Computed by the authors' package ``cvvdp``, which needs torchvision (``pip install cvvdp``).

    Args:
        display: of the package's displays, such as ``standard_4k``, ``standard_fhd`` or ``iphone_12_pro``.
    """

    references = ("mantiuk2024cvvdp",)
    title, unit, higher_is_better = "ColorVideoVDP", "JOD", True
    least_side = 16

    def __init__(self, display: str = "standard_4k") -> None:
        if not display:
            raise ValueError("display must name one of the displays of ColorVideoVDP, such as standard_4k")
        self.display = display
        self._model: Any = None

    def prepare(self) -> None:
        if self._model is None:
            library = _library()
            try:
                self._model = library.cvvdp(display_name=self.display, quiet=True, device=self.device)
            except Exception as error:  # the package raises RuntimeError and its own kinds for a display it lacks
                raise PscxError(f"cvvdp cannot be made for the display '{self.display}': {error}") from error

    def measure(self, original: Image, other: Image) -> float:
        self.prepare()
        found, _ = self._model.predict(other, original, dim_order="HWC")  # the test comes first
        return float(found)


def _library() -> ModuleType:
    """The package. Raises :class:`PscxError` where it, or the torchvision that it imports, does not load."""
    try:
        return import_module(LIBRARY)
    except ModuleNotFoundError as error:
        if error.name == LIBRARY:
            raise PscxError(f"the metric cvvdp needs the library {LIBRARY}: pip install cvvdp") from None
        raise PscxError(f"the metric cvvdp: the library {LIBRARY} does not load: {error}") from error
    except Exception as error:  # a torchvision for another torch fails in several ways
        reason = broken_torchvision(error) or f"the library {LIBRARY} does not load: {error}"
        raise PscxError(f"the metric cvvdp: {reason}") from error
