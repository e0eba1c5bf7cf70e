"""Index vectors as numbers that a model can learn from: what the choices and the names of decisions tell.

A choice that is a number stands nearer to those next to it. Decisions that have the same choices, or nearly so, and
names that differ in numbers only (`block1.kernel`, `block2.kernel`) are a *family*: what one does, the others probably
do as well, the more so the nearer they are in order. Decisions whose names begin alike up to a number (`block1.kernel`,
`block1.op`) are a *group*: they probably act on one another. Nothing of this is taken for granted: how much of it is
true, the model learns (`gaussian.py`), and where names tell nothing there are no families and no groups.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from optuna.distributions import CategoricalDistribution
from torch import Tensor

Table = npt.NDArray[np.float64]

NEIGHBOURS = 0.5
"""Share of what two choices that are numbers have in common by standing near each other."""


@dataclass(frozen=True)
class Coded:
    """N index vectors as features; the products of two vectors' features are what they have in common."""

    main: Tensor
    """(N, F): of each decision its choice, 0 on average over the choices."""
    family: Tensor
    """(N, G): of each family the sum of what its decisions have in `main`."""
    trend: Tensor
    """(N, G): the same, the first decisions against the last."""
    alike: Tensor
    """(N, H): of each decision its choice; the product of equal ones is 1, of near ones less, of far ones about 0."""
    beside: Tensor
    """(N, 0), or (N, 1) of what else is known of each: what another model predicts, in units of what that has seen."""

    def __len__(self) -> int:
        return len(self.main)


class Coding:
    """How members of `space` (name -> distribution) are coded.

    Attributes:
        decisions: count of them.
        free: those with a choice, in order.
        main_owner: (F,) which decision a column of `main` belongs to.
        alike_owner: (H,) the same of `alike`.
        family_owner: (G,) which family a column of `family` and `trend` belongs to.
        families: the decisions of each.
        family_of: decision -> its family, or -1.
        groups: the decisions of each.
    """

    def __init__(self, space: Mapping[str, CategoricalDistribution]) -> None:
        sizes = [len(d.choices) for d in space.values()]
        self.decisions = len(sizes)
        self.free = [d for d, size in enumerate(sizes) if size > 1]
        correlations = [_correlation(d.choices) for d in space.values()]
        self._main = [_factor(_centred(c)) for c in correlations]
        self._alike = [_factor(c) for c in correlations]
        self.families = _families(space)
        self.groups = [[d for d in group if sizes[d] > 1] for group in _groups(list(space))]
        self.groups = [group for group in self.groups if len(group) > 1]
        self.family_of = [-1] * self.decisions
        for number, family in enumerate(self.families):
            for decision in family:
                self.family_of[decision] = number
        self.main_owner = torch.tensor(np.repeat(np.arange(self.decisions), [t.shape[1] for t in self._main]))
        self.alike_owner = torch.tensor(np.repeat(np.arange(self.decisions), [t.shape[1] for t in self._alike]))
        distributions = list(space.values())
        self._shared = [_shared([distributions[d].choices for d in family]) for family in self.families]
        widths = [tables[0].shape[1] for tables in self._shared]
        self.family_owner = torch.tensor(np.repeat(np.arange(len(self.families)), widths))

    def __call__(self, indices: npt.NDArray[np.int64]) -> Coded:
        """(N, D) indices -> their features."""
        columns = [table[indices[:, d]] for d, table in enumerate(self._main)]
        none = np.zeros((len(indices), 0))
        sums, trends = [none], [none]
        for family, tables in zip(self.families, self._shared, strict=True):
            members = np.stack([table[indices[:, d]] for d, table in zip(family, tables, strict=True)])
            place = np.linspace(-1, 1, len(family))
            place = place / np.sqrt((place**2).mean())
            sums.append(members.sum(axis=0) / np.sqrt(len(family)))
            trends.append((members * place[:, None, None]).sum(axis=0) / np.sqrt(len(family)))
        alike = [table[indices[:, d]] for d, table in enumerate(self._alike)]
        parts = (columns, sums, trends, alike, [none])
        return Coded(*(torch.from_numpy(np.concatenate(part, axis=1)) for part in parts))


def is_number(choice: Any) -> bool:
    """Whether a choice is a quantity; True and False are none."""
    return type(choice) in (int, float)


def _shared(choices: Sequence[Sequence[Any]]) -> list[Table]:
    """For each member of a family (C, rank), as `main`, such that equal choices of two members have equal rows."""
    every = list({repr(choice): choice for own in choices for choice in own}.values())
    if all(is_number(choice) for choice in every):
        every.sort()
    rows = {repr(choice): row for choice, row in zip(every, _factor(_centred(_correlation(every))), strict=True)}
    return [np.stack([rows[repr(choice)] for choice in own]) for own in choices]


def _correlation(choices: Sequence[Any]) -> Table:
    """(C, C): how far the effects of two choices are thought to be the same."""
    count = len(choices)
    if count < 3 or not all(is_number(choice) for choice in choices):
        return np.eye(count)
    place = np.argsort(np.argsort(np.array(choices, float), kind="stable"), kind="stable") / (count - 1)
    near = np.exp(-((place[:, None] - place) ** 2))
    correlation: Table = (1 - NEIGHBOURS) * np.eye(count) + NEIGHBOURS * near
    return correlation


def _centred(correlation: Table) -> Table:
    """Of effects that add up to 0 over the choices, 1 on average on the diagonal."""
    count = len(correlation)
    if count == 1:
        return np.zeros((1, 1))
    away: Table = correlation - correlation.mean(axis=0) - correlation.mean(axis=1)[:, None] + correlation.mean()
    away /= np.diag(away).mean()
    return away


def _factor(correlation: Table) -> Table:
    """(C, rank) whose products of rows are `correlation`."""
    values, vectors = np.linalg.eigh(correlation)
    positive = values > 1e-9
    factor: Table = vectors[:, positive] * np.sqrt(values[positive])
    return factor


def _families(space: Mapping[str, CategoricalDistribution]) -> list[list[int]]:
    """Decisions with a choice, by what their names have but for numbers; see `_belongs`."""
    choices = [tuple(map(repr, distribution.choices)) for distribution in space.values()]
    families_by_name: dict[str, list[list[int]]] = {}
    for decision, name in enumerate(space):
        if len(choices[decision]) < 2:
            continue
        alike = families_by_name.setdefault(re.sub(r"\d+", "#", name), [])
        for family in alike:
            if all(_belongs(choices[decision], choices[member]) for member in family):
                family.append(decision)
                break
        else:
            alike.append([decision])
    return [family for families in families_by_name.values() for family in families if len(family) > 1]


def _belongs(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether all choices of one are choices of the other, and most of the other's are its own."""
    fewer, more = sorted((set(one), set(other)), key=len)
    return fewer <= more and 2 * len(fewer) > len(more)


def _groups(names: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for decision, name in enumerate(names):
        if match := re.match(r"(.*\d)\D", name):
            groups.setdefault(match.group(1), []).append(decision)
    return list(groups.values())
