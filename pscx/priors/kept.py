"""Results that follow from a prior alone, held by the prior itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from pscx.priors.base import Prior

P = ParamSpec("P")
T = TypeVar("T")
OfPrior = Callable[Concatenate[Prior, P], T]


def kept_by_prior(count: int) -> Callable[[OfPrior[P, T]], OfPrior[P, T]]:
    """Have each prior keep the last ``count`` results of a function of it and of positional options.

    They are gone when the prior is, where :func:`functools.lru_cache` would hold both. Copies of a prior that differ in
    the caption share them, so the function must not depend on the caption.
    """

    def decorate(function: OfPrior[P, T]) -> OfPrior[P, T]:
        name = f"{function.__module__}.{function.__qualname__}"

        @wraps(function)
        def found(prior: Prior, /, *args: P.args, **options: P.kwargs) -> T:
            results: dict[object, T] = prior.kept.setdefault(name, {})
            key = (prior.home, *args, *sorted(options.items()))  # results lie where the prior's signals do
            known = dict(results)  # a copy, as another thread may change it
            if key not in known:
                for old in list(known)[: max(0, len(known) - count + 1)]:
                    results.pop(old, None)
                known[key] = results[key] = function(prior, *args, **options)
            return known[key]

        return found

    return decorate
