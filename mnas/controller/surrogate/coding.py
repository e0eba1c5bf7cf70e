"""Index vectors as features for a model, from the choices and the names of decisions.

A numeric choice is closer to its neighbours than to others. Decisions with the same choices, or nearly so, and names
that differ in numbers only (`block1.kernel`, `block2.kernel`) are a *family*: they probably have similar effects, the
more so the nearer they are in order. Decisions whose names begin alike up to a number (`block1.kernel`, `block1.op`)
are a *group*: they probably interact. The model learns how much of this is true (`gaussian.py`); names without such
patterns give no families and no groups.
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
"""Share of the similarity of two numeric choices that comes from their distance."""


@dataclass(frozen=True)
class Coded:
    """N index vectors as features; the products of two vectors' features are their similarities."""

    main: Tensor
    """Choice of each decision, 0 on average over the choices; (N, F)."""
    family: Tensor
    """Sum over each family of its decisions' features in `main`; (N, G)."""
    trend: Tensor
    """The same sum with the first decisions against the last; (N, G)."""
    alike: Tensor
    """Choice of each decision, (N, H); the product is 1 for equal ones, less for near ones, about 0 for far ones."""
    beside: Tensor
    """Extra input feature, (N, 0) or (N, 1): another model's prediction, in units of the values that it has seen."""

    def __len__(self) -> int:
        return len(self.main)


class Coding:
    """Coding of the members of `space` (name -> distribution).

    Attributes:
        decisions: number of decisions.
        free: decisions with a choice, in order.
        main_owner: (F,) decision of each column of `main`.
        alike_owner: (H,) decision of each column of `alike`.
        family_owner: (G,) family of each column of `family` and `trend`.
        families: decisions of each family.
        family_of: decision -> its family, or -1.
        groups: decisions of each group.
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
        """Return the features of (N, D) indices."""
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
    """Return whether a choice is a quantity; True and False are none."""
    return type(choice) in (int, float)


def _shared(choices: Sequence[Sequence[Any]]) -> list[Table]:
    """Return a (C, rank) table for each member of a family, as in `main`, with equal rows for equal choices."""
    every = list({repr(choice): choice for own in choices for choice in own}.values())
    if all(is_number(choice) for choice in every):
        every.sort()
    rows = {repr(choice): row for choice, row in zip(every, _factor(_centred(_correlation(every))), strict=True)}
    return [np.stack([rows[repr(choice)] for choice in own]) for own in choices]


def _correlation(choices: Sequence[Any]) -> Table:
    """Return (C, C) the prior correlation of the effects of two choices."""
    count = len(choices)
    if count < 3 or not all(is_number(choice) for choice in choices):
        return np.eye(count)
    place = np.argsort(np.argsort(np.array(choices, float), kind="stable"), kind="stable") / (count - 1)
    near = np.exp(-((place[:, None] - place) ** 2))
    correlation: Table = (1 - NEIGHBOURS) * np.eye(count) + NEIGHBOURS * near
    return correlation


def _centred(correlation: Table) -> Table:
    """Return the correlation of effects that add up to 0 over the choices, 1 on average on the diagonal."""
    count = len(correlation)
    if count == 1:
        return np.zeros((1, 1))
    away: Table = correlation - correlation.mean(axis=0) - correlation.mean(axis=1)[:, None] + correlation.mean()
    away /= np.diag(away).mean()
    return away


def _factor(correlation: Table) -> Table:
    """Return the (C, rank) factor whose products of rows are `correlation`."""
    values, vectors = np.linalg.eigh(correlation)
    positive = values > 1e-9
    factor: Table = vectors[:, positive] * np.sqrt(values[positive])
    return factor


def _families(space: Mapping[str, CategoricalDistribution]) -> list[list[int]]:
    """Return families of decisions with a choice, whose names are equal except for numbers; see `_belongs`."""
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
    """Return whether one has all choices of the other, which has more than half as many."""
    fewer, more = sorted((set(one), set(other)), key=len)
    return fewer <= more and 2 * len(fewer) > len(more)


def _groups(names: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for decision, name in enumerate(names):
        if match := re.match(r"(.*\d)\D", name):
            groups.setdefault(match.group(1), []).append(decision)
    return list(groups.values())
