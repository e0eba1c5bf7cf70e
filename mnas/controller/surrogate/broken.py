"""Trials that came out far worse than all others tell: a training that diverged, a measurement that was disturbed.

A Gaussian process that has to explain a few such values takes everything else for noise. They are left out, the
worst first, and teach where trials break (`surrogate.py`).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from mnas.controller.surrogate.goals import GoalModel

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

FAR = 5.0
"""So many deviations of the first trials' values."""
ROUNDS = 3
"""Of leaving out and learning again."""
FEWEST = 8
"""Values of which some may be broken."""


def without_broken(
    make: Callable[[Rows], GoalModel], worse: Callable[[GoalModel, Rows], Array], rows: Rows, first: int
) -> tuple[GoalModel, Rows]:
    """The model that `make` learns from those of `rows` that are not broken, and which are.

    `worse` says by how much rows are worse than a model of others predicts, in its units. The `first` trials are
    thought to be of all kinds, as random members are: what is far is told by them.
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
    if len(broken):  # what only looked so beside those that are
        innocent = broken[worse(model, broken) <= _bound(model, first)]
        if len(innocent):
            broken = np.setdiff1d(broken, innocent)
            model = make(np.setdiff1d(rows, broken))
    return model, broken


def _bound(model: GoalModel, first: int) -> float:
    early = model.process.values[:first]
    return FAR * 1.4826 * float(np.median(np.abs(early - np.median(early))))  # 1.4826: of a normal distribution


def _suspects(model: GoalModel, first: int) -> npt.NDArray[np.bool_]:
    """(N,) of the values that a model has learned from, those that are by far worse than what the others predict."""
    process, bound = model.process, _bound(model, first)
    values = process.values
    suspects = np.zeros(len(values), bool)
    if len(values) < FEWEST or bound == 0:
        return suspects
    precision = torch.cholesky_inverse(process.factor).numpy()
    standard = (values - process.mean) / process.scale
    while 2 * suspects.sum() < len(values):
        # what all others predict, less the value; one that is broken makes others look so: the worst goes first
        worse = -model.sign * process.scale * (precision @ standard) / precision.diagonal()
        worst = int(worse.argmax())
        if suspects[worst] or not worse[worst] > bound:  # also where numbers are too large to be told apart
            break
        suspects[worst] = True
        column = precision[:, worst].copy()
        precision -= np.outer(column, column) / column[worst]  # that of the others alone
        precision[worst, worst], standard[worst] = 1, 0
    return suspects
