"""Search for the highest score over index vectors: evolution from good members, then every neighbour of the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Score = Callable[[Indices], Scores]
"""Function from (N, D) members of the space to (N,) scores, more being better."""

POPULATION = 128
CHILDREN = 128
"""Number of children of a generation."""
PATIENCE = 4
"""Number of generations in a row without a better best that ends evolution."""
CROSSING = 0.5
"""Share of children with two parents."""
CLIMBS = 20
"""Maximum number of times that the best's neighbours are scored."""


@dataclass(frozen=True)
class Ranking:
    """Members that were scored highest: (N, D), best first, and their scores."""

    members: Indices
    scores: Scores


def search(
    score: Score,
    sizes: Sequence[int],
    start: Indices,
    drawn: set[tuple[int, ...]],
    draw: np.random.Generator,
    generations: int,
) -> Ranking:
    """Return members outside `drawn` with high scores; empty where all are drawn.

    Args:
        score: function of members, which may be in `drawn`.
        sizes: number of choices of each decision.
        start: (N, D) members to start from.
        drawn: members that may be parents, but are not returned.
        draw: source of random numbers.
        generations: maximum number of generations.
    """
    population = _Population(score, drawn)
    population.add(start)
    waited = 0
    for _ in range(generations):
        before = population.best
        population.add(_children(population.ranking, sizes, draw))
        waited = 0 if population.best > before else waited + 1
        if waited == PATIENCE:
            break
    for _ in range(CLIMBS):
        wanted = population.wanted
        if not len(wanted.members):
            break
        before = wanted.scores[0]
        population.add(_neighbours(wanted.members[0], sizes))
        if population.wanted.scores[0] <= before:
            break
    return population.wanted


class _Population:
    """The best members seen; each is scored once."""

    def __init__(self, score: Score, drawn: set[tuple[int, ...]]) -> None:
        self._score, self._drawn = score, drawn
        self._seen: set[tuple[int, ...]] = set()
        self.ranking = Ranking(np.empty((0, 0), np.int64), np.empty(0))
        self._is_drawn = np.empty(0, bool)

    @property
    def best(self) -> float:
        """Highest score outside `drawn`."""
        scores = self.ranking.scores[~self._is_drawn]
        return float(scores[0]) if len(scores) else -np.inf

    @property
    def wanted(self) -> Ranking:
        return Ranking(self.ranking.members[~self._is_drawn], self.ranking.scores[~self._is_drawn])

    def add(self, members: Indices) -> None:
        new = []
        for row in map(tuple, members.tolist()):
            if row not in self._seen:
                self._seen.add(row)
                new.append(row)
        if not new:
            return
        rows = np.array(new, np.int64)
        scores = np.concatenate([self.ranking.scores, self._score(rows)])
        every = np.concatenate([self.ranking.members, rows]) if len(self.ranking.members) else rows
        is_drawn = np.concatenate([self._is_drawn, [row in self._drawn for row in new]])
        order = np.argsort(-scores, kind="stable")
        # drawn members may be parents, but must not crowd out the others
        places = [np.flatnonzero(is_drawn[order])[: POPULATION // 2], np.flatnonzero(~is_drawn[order])[:POPULATION]]
        survivors = np.sort(np.concatenate(places))
        order = order[survivors]
        self.ranking, self._is_drawn = Ranking(every[order], scores[order]), is_drawn[order]


def _children(parents: Ranking, sizes: Sequence[int], draw: np.random.Generator) -> Indices:
    """Return children, more of the better members: each parent is the best of two."""
    count, decisions = len(parents.members), len(sizes)
    one, other = (draw.integers(count, size=(2, CHILDREN)).min(axis=0) for _ in range(2))  # sorted, so lower is better
    children: Indices = parents.members[one].copy()
    crossed = (draw.random((CHILDREN, decisions)) < 0.5) & (draw.random((CHILDREN, 1)) < CROSSING)
    children[crossed] = parents.members[other][crossed]
    # at least one decision changes, two on average
    changed = draw.random((CHILDREN, decisions)) < 1 / decisions
    changed[np.arange(CHILDREN), draw.integers(decisions, size=CHILDREN)] = True
    drawn = np.stack([draw.integers(size, size=CHILDREN) for size in sizes], axis=1)
    children[changed] = drawn[changed]
    return children


def _neighbours(member: Indices, sizes: Sequence[int]) -> Indices:
    """Return all members that differ from `member` in one decision."""
    rows = []
    for decision, size in enumerate(sizes):
        for choice in range(size):
            if choice != member[decision]:
                row = member.copy()
                row[decision] = choice
                rows.append(row)
    return np.stack(rows) if rows else member[None]


def spread_design(sizes: Sequence[int], count: int, draw: np.random.Generator) -> Indices:
    """Return (count, D) members with equally frequent choices of each decision, and nearly so pairs of choices."""
    best: tuple[float, Indices] | None = None
    for _ in range(DESIGNS):
        rows = np.stack([_balanced(size, count, draw) for size in sizes], axis=1)
        crowded = _crowding(rows)
        if best is None or crowded < best[0]:
            best = crowded, rows
    assert best is not None
    return best[1]


DESIGNS = 40
"""Number of designs to try; the best is used."""


def _balanced(size: int, count: int, draw: np.random.Generator) -> Indices:
    whole, rest = divmod(count, size)
    return draw.permutation(np.concatenate([np.tile(np.arange(size), whole), draw.permutation(size)[:rest]]))


def _crowding(rows: Indices) -> float:
    """Return the sum over pairs of rows of their equal choices, squared: low where all are equally far apart."""
    total = 0.0
    for row in range(len(rows) - 1):
        total += float(((rows[row + 1 :] == rows[row]).sum(axis=1) ** 2).sum())
    return total
