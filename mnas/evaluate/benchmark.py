"""Published benchmarks in place of training and measuring, so that whole searches run in seconds.

`mnas.evaluate.accel_nasbench` reads Accel-NASBench, and `mnas.evaluate.table` reads any table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.distributions import CategoricalDistribution

from mnas.space.space import Space

Indices = NDArray[np.int64]
"""Index of each decision's choice among its choices, for each member; (N, D)."""
Values = NDArray[np.float64]
"""One value for each member; (N,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """Deterministic accuracy and cost of every member of a space. Can be pickled."""

    name: str
    space: Mapping[str, CategoricalDistribution]
    """Name -> distribution of every decision, in order; a decision may have a single choice."""
    cost_unit: str
    """Unit of the cost: `ms`, `ms/image`, or the name of a table's column."""
    accuracy_of: Callable[[Indices], Values]
    cost_of: Callable[[Indices], Values]
    content: str
    """Hash of the data behind the scores; equal rows have equal hashes, even in different files."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one line each, such as rows left out and the accuracy of predicted values."""
    networks: Space | None = None
    """Space with the decisions of `space`; None if a table does not describe its networks."""
    members: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name -> indices, for members that have a name."""

    def score(self, indices: ArrayLike) -> tuple[Values, Values]:
        """Return accuracies in [0, 1] and costs above 0, both (N,), of the members with these (N, D) indices.

        Raises:
            ValueError: the array has another shape or type, or an index is out of its decision's range.
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
        """Return the indices of a trial's parameters. Raises ValueError if one is not among its choices."""
        return tuple(int(d.to_internal_repr(params[name])) for name, d in self.space.items())
