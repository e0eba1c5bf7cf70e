"""Sample of a space to learn the latency of all members from: all choices occur equally often.

Random members leave some choices, and more pairs of choices, nearly unseen. This sample takes each choice of each
decision equally often, and each triple of op, kernel and layers in each block. It does the same for each pair of
choices in any two decisions as far as the numbers allow (nearly an orthogonal array).
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mnas.space.space import Space

Indices = npt.NDArray[np.int64]

JOINT = ("op", "kernel", "layers")
"""Decisions of a block that its time depends on most, and not as a product of three factors."""
SWAPS = 20_000
"""Number of swaps tried to bring pairs of choices together equally often; more gain little."""
LEFTOVERS = 1000
"""Number of draws tried where the sample size is no multiple of the number of combinations."""


def design_sample(space: Space, count: int, seed: int) -> list[tuple[int, ...]]:
    """Return `count` different members of `space` as index vectors, in random order.

    Raises:
        ValueError: the space has fewer members.
    """
    if not 1 <= count <= space.distinct:
        raise ValueError(
            f"--samples must be from 1 to {space.distinct:,}, the size of the search space, but got {count}"
        )
    draw = np.random.default_rng(seed)
    groups = _groups([decision.name for decision in space.decisions])
    sizes = [len(decision.choices) for decision in space.decisions]
    rows = np.zeros((count, len(sizes)), dtype=np.int64)
    for group in groups:
        combinations = np.array(list(itertools.product(*(range(sizes[column]) for column in group))))
        rows[:, group] = _balanced(combinations, count, draw)
    _mix(rows, groups, sizes, draw)
    return _different(space, rows, sizes, draw)


def _groups(names: Sequence[str]) -> list[list[int]]:
    """Return the decisions that are balanced together: the `JOINT` of each block; others stand alone."""
    together: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        block, _, what = name.rpartition(".")
        together.setdefault(block if block and what in JOINT else name, []).append(column)
    return list(together.values())


def _balanced(combinations: Indices, count: int, draw: np.random.Generator) -> Indices:
    """Return `count` of the combinations in random order; no combination occurs twice more than another."""
    whole, rest = divmod(count, len(combinations))
    rows = np.concatenate([*[combinations] * whole, _leftover(combinations, rest, draw)])
    return draw.permutation(rows)


def _leftover(combinations: Indices, count: int, draw: np.random.Generator) -> Indices:
    """Return `count` different combinations, with the choices as equally frequent as the draws allow."""
    tried = (draw.choice(combinations, count, replace=False) for _ in range(LEFTOVERS if count else 1))
    return min(tried, key=lambda rows: sum((np.bincount(column) ** 2).sum() for column in rows.T))


def _mix(rows: Indices, groups: list[list[int]], sizes: Sequence[int], draw: np.random.Generator) -> None:
    """Swap entries of a group between rows where that makes pairs of choices more equally frequent."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hot = np.zeros((len(rows), sum(sizes)))
    np.put_along_axis(hot, rows + starts, 1.0, axis=1)
    target = np.outer(1 / np.repeat(sizes, sizes), 1 / np.repeat(sizes, sizes)) * len(rows)
    excess = hot.T @ hot - target
    owned = [np.concatenate([np.arange(starts[c], starts[c] + sizes[c]) for c in group]) for group in groups]
    others = [np.setdiff1d(np.arange(hot.shape[1]), columns) for columns in owned]
    for _ in range(SWAPS):
        number = draw.integers(len(groups))
        one, other = draw.integers(len(rows), size=2)
        group, columns, rest = groups[number], owned[number], others[number]
        if (rows[one, group] == rows[other, group]).all():
            continue  # a swap would change nothing
        step = np.outer(hot[other, columns] - hot[one, columns], hot[one, rest] - hot[other, rest])
        meetings = excess[np.ix_(columns, rest)]
        if (step * (2 * meetings + step)).sum() < 0:  # the swap lowers the sum of squares
            excess[np.ix_(columns, rest)] += step
            excess[np.ix_(rest, columns)] += step.T
            for table, where in ((hot, columns), (rows, np.array(group))):
                table[one, where], table[other, where] = table[other, where].copy(), table[one, where].copy()


def _different(space: Space, rows: Indices, sizes: Sequence[int], draw: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the members; random others replace repeated networks, as some choices make no difference."""
    members: dict[str, tuple[int, ...]] = {}
    for row in rows.tolist():
        candidate = tuple(row)
        while (fingerprint := space.decode(candidate).fingerprint) in members:
            candidate = tuple(int(draw.integers(size)) for size in sizes)
        members[fingerprint] = candidate
    return list(members.values())
