"""Predict the score of the next, dearer fidelity: the surrogate's model with the cheaper score as a feature."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from optuna.distributions import CategoricalDistribution

from mnas.controller.surrogate.coding import Coded, Coding
from mnas.controller.surrogate.gaussian import fit

FEWEST = 3
"""Fewest members with both scores from which anything is predicted."""

Array = npt.NDArray[np.float64]


def expected_scores(
    space: Mapping[str, CategoricalDistribution],
    seen: Sequence[tuple[Mapping[str, Any], float, float]],
    asked: Sequence[tuple[Mapping[str, Any], float]],
) -> tuple[Array, Array]:
    """Return the expected scores of the members asked about, and their standard deviations, (N,) each.

    Args:
        space: decision -> distribution.
        seen: choices, cheaper score and dearer score of each known member; `FEWEST` or more.
        asked: choices and cheaper score of each member to predict.
    """
    assert len(seen) >= FEWEST
    coding = Coding(space)
    cheap = np.array([score for _, score, _ in seen])
    mean, deviation = float(cheap.mean()), float(cheap.std()) or 1.0

    def coded(members: Sequence[tuple[Mapping[str, Any], float]]) -> Coded:
        rows = [[d.choices.index(choices[name]) for name, d in space.items()] for choices, _ in members]
        scores = torch.tensor([[(score - mean) / deviation] for _, score in members], dtype=torch.float64)
        return replace(coding(np.array(rows, dtype=np.int64)), beside=scores)

    process = fit(coding, coded([(choices, score) for choices, score, _ in seen]), np.array([s for *_, s in seen]))
    means, deviations = process.predict(coded(asked))
    return means.numpy(), deviations.numpy()
