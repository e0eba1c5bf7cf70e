"""Trials that came out far worse than all others tell: a training that diverged, a measurement that was disturbed.

A Gaussian process that has to explain a few such values takes everything else for noise. They are left out, the worst
first, and teach where trials break (`surrogate.py`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mnas.controller.goals import Model

Rows = npt.NDArray[np.int64]

FAR = 5.0
"""So many deviations of the first trials' values."""
ROUNDS = 5
FEWEST = 8
"""Values of which some may be broken."""


def without_broken(make: Callable[[Rows], Model], rows: Rows, first: int) -> tuple[Model, Rows]:
    """The model that `make` learns from those of `rows` that are not broken, and which are.

    `first` trials are thought to be of all kinds, as random members are: what is far is told by them.
    """
    kept = rows
    for _ in range(ROUNDS):
        model = make(kept)
        broken = _broken(model, first)
        if not broken.any():
            return model, np.setdiff1d(rows, kept)
        kept = kept[~broken]
    return make(kept), np.setdiff1d(rows, kept)


def _broken(model: Model, first: int) -> npt.NDArray[np.bool_]:
    """(N,) of the values that a model has learned from, those that are by far worse than what the others predict."""
    values = model.process.values
    if len(values) < FEWEST:
        return np.zeros(len(values), bool)
    worse = model.sign * (model.process.left_out()[0] - values)
    early = values[:first]
    deviation = 1.4826 * float(np.median(np.abs(early - np.median(early))))  # of a normal distribution
    # one broken value makes others look so: first those that are nearly as far as the furthest
    found: npt.NDArray[np.bool_] = worse > max(FAR * deviation, worse.max() / 2)
    return found & (deviation > 0)
