"""Detection of broken trials, far worse than predicted: a training that diverged, a measurement that was disturbed.

A Gaussian process that has to explain a few such values takes everything else for noise. Broken trials are left out,
the worst first, and teach the model of where trials break (`surrogate.py`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from mnas.controller.surrogate.goals import GoalModel

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

FAR = 5.0
"""Number of deviations of the first trials' values beyond which a value is broken."""
ROUNDS = 3
"""Maximum number of times that values are left out and the model is learned again."""
FEWEST = 8
"""Minimum number of values to look for broken ones in."""


def without_broken(
    make: Callable[[Rows], GoalModel], worse: Callable[[GoalModel, Rows], Array], rows: Rows, first: int
) -> tuple[GoalModel, Rows]:
    """Return the model that `make` learns from the unbroken `rows`, and the broken ones.

    `worse` returns by how much rows are worse than a model of others predicts, in its units. The `first` trials are
    assumed to be as varied as random members, so their spread is the scale for "far".
    """
    sound = rows
    for _ in range(ROUNDS):
        model = make(sound)
        suspects = _suspects(model, first)
        if not suspects.any():
            break
        sound = sound[~suspects]
    else:
        model = make(sound)
    broken = np.setdiff1d(rows, sound)
    if len(broken):  # restore rows that only looked broken beside those that are
        innocent = broken[worse(model, broken) <= _bound(model, first)]
        if len(innocent):
            broken = np.setdiff1d(broken, innocent)
            model = make(np.setdiff1d(rows, broken))
    return model, broken


def _bound(model: GoalModel, first: int) -> float:
    early = model.process.values[:first]
    return FAR * 1.4826 * float(np.median(np.abs(early - np.median(early))))  # 1.4826: of a normal distribution


def _suspects(model: GoalModel, first: int) -> npt.NDArray[np.bool_]:
    """Return (N,) which values of a model are far worse than the others predict."""
    process, bound = model.process, _bound(model, first)
    values = process.values
    suspects = np.zeros(len(values), bool)
    if len(values) < FEWEST or bound == 0:
        return suspects
    precision = torch.cholesky_inverse(process.factor).numpy()
    standard = (values - process.mean) / process.scale
    while 2 * suspects.sum() < len(values):
        # prediction of all others less the value; a broken value makes others look broken, so the worst goes first
        worse = -model.sign * process.scale * (precision @ standard) / precision.diagonal()
        worst = int(worse.argmax())
        if suspects[worst] or not worse[worst] > bound:  # ends too where numbers are too large to differ
            break
        suspects[worst] = True
        column = precision[:, worst].copy()
        precision -= np.outer(column, column) / column[worst]  # the precision of the others alone
        precision[worst, worst], standard[worst] = 1, 0
    return suspects
