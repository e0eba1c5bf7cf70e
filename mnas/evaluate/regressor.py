"""Gradient-boosted trees that predict a benchmark's missing rows, scored on held-out rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnas.evaluate.benchmark import Indices, Values

TREES, LEAVES, LEARNING_RATE = 1000, 8, 0.05
"""Settings chosen on Accel-NASBench's validation rows; the same for every target and every table."""


@dataclass(frozen=True, eq=False)
class Regressor:
    """Predicts a value from indices; learns the logarithm of a positive one."""

    trees: Any
    logarithmic: bool
    tested: int
    """Number of held-out rows behind the next two fields."""
    kendall_tau: float
    r2: float

    def __call__(self, indices: Indices) -> Values:
        """Return the predictions, (N,), for (N, D) indices."""
        from threadpoolctl import threadpool_limits

        if not len(indices):
            return np.zeros(0)
        with threadpool_limits(1, user_api="openmp"):
            predicted: Values = self.trees.predict(indices.astype(np.float64))
        return np.exp(predicted) if self.logarithmic else predicted

    def describe(self) -> str:
        """Return a description of its errors on held-out rows."""
        return f"Kendall tau {self.kendall_tau:.3f}, R2 {self.r2:.3f} on {self.tested:,} held-out rows"


def fit_regressor(
    indices: Indices,
    values: Values,
    tested: NDArray[np.bool_],
    *,
    ordered: NDArray[np.bool_],
    logarithmic: bool,
) -> Regressor:
    """Learn from the rows that are not `tested`, and score on those that are.

    The same rows give the same predictions, to the last bit with one processor and version of scikit-learn.

    Args:
        indices: (N, D).
        values: (N,), finite; above 0 if `logarithmic`.
        tested: (N,), which rows are held out.
        ordered: (D,), whether the order of a decision's choices has a meaning (numbers) or none (names).
        logarithmic: whether ratios count instead of differences; R2 is then of logarithms.

    Raises:
        ValueError: there are fewer than 20 rows to learn from, or fewer than 5 to score on.
    """
    from scipy.stats import kendalltau
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    if (learnt := int((~tested).sum())) < 20 or tested.sum() < 5:
        raise ValueError(
            f"a regressor needs at least 20 rows to learn from and 5 to test on, but got {learnt} and {tested.sum()}"
        )
    targets = np.log(values) if logarithmic else values
    features = indices.astype(np.float64)
    trees = HistGradientBoostingRegressor(
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        learning_rate=LEARNING_RATE,
        min_samples_leaf=min(20, learnt // 4),  # 20 is scikit-learn's default, which never splits fewer than 40 rows
        early_stopping=False,
        categorical_features=~ordered,
        random_state=0,
    )
    with threadpool_limits(1, user_api="openmp"):  # on a busy machine, more threads mostly wait for each other
        trees.fit(features[~tested], targets[~tested])
        predicted, actual = trees.predict(features[tested]), targets[tested]
    spread = float(((actual - actual.mean()) ** 2).sum())
    return Regressor(
        trees=trees,
        logarithmic=logarithmic,
        tested=int(tested.sum()),
        kendall_tau=float(kendalltau(predicted, actual).statistic),
        r2=1 - float(((predicted - actual) ** 2).sum()) / spread if spread > 0 else float("nan"),
    )


def hold_out(rows: int) -> NDArray[np.bool_]:
    """Return which rows are held out, (rows,): the same tenth every time, at least 5."""
    held = np.zeros(rows, bool)
    held[np.random.default_rng(0).permutation(rows)[: max(5, rows // 10)]] = True
    return held
