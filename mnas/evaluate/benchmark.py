"""A published benchmark stands in for training and measuring, so that whole searches run in seconds.

Accel-NASBench is read by `mnas.evaluate.accel_nasbench`, any table by `mnas.evaluate.table`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.distributions import CategoricalDistribution

from mnas.space.space import Space

Indices = NDArray[np.int64]
"""(N, D): of each member, the place of each decision's choice among its choices."""
Values = NDArray[np.float64]
"""(N,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """Accuracy and cost of every member of a space, at once and always the same. Pickles."""

    name: str
    space: Mapping[str, CategoricalDistribution]
    """Name -> distribution of every decision, in order; a decision may have one choice only."""
    cost_unit: str
    """`ms`, `ms/image`, or the name of a table's column."""
    accuracy_of: Callable[[Indices], Values]
    cost_of: Callable[[Indices], Values]
    content: str
    """Hash of what the scores are made from: the same for equal rows, wherever they were read."""
    notes: tuple[str, ...] = ()
    """What a user should know of it, a line each: rows left out, how well values not in the file are predicted."""
    networks: Space | None = None
    """The space whose decisions `space` has; None where a table does not say what networks its rows are."""
    members: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name -> indices of members that have one."""

    def score(self, indices: ArrayLike) -> tuple[Values, Values]:
        """Accuracies in [0, 1] and costs above 0, both (N,), of the members with these (N, D) indices.

        Raises:
            ValueError: not an integer array of that shape, or an index that no choice has.
        """
        members = np.asarray(indices)
        if members.ndim != 2 or members.shape[1] != len(self.space) or members.dtype.kind not in "iu":
            raise ValueError(
                f"indices must be integers of shape (N, {len(self.space)}), but got {members.dtype} {members.shape}"
            )
        counts = np.array([len(d.choices) for d in self.space.values()])
        if ((members < 0) | (members >= counts)).any():
            row, column = np.argwhere((members < 0) | (members >= counts))[0]
            raise ValueError(
                f"{list(self.space)[column]} must be from 0 to {counts[column] - 1}, but got {members[row, column]}"
            )
        rows: Indices = members.astype(np.int64)
        return np.clip(self.accuracy_of(rows), 0.0, 1.0), self.cost_of(rows)

    def indices(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """The indices of a trial's parameters. Raises ValueError where one is not among its choices."""
        return tuple(int(d.to_internal_repr(params[name])) for name, d in self.space.items())
