"""A search space as plain data: ordered categorical decisions, and the network of each combination."""

import abc
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from optuna.distributions import CategoricalDistribution

from mnas.architecture import Architecture
from mnas.cell_arch import CellSkeleton
from mnas.require import require_number
from mnas.space.skeleton import Skeleton

Choice = str | int | float


@dataclass(frozen=True)
class Decision:
    """One choice that a controller makes."""

    name: str
    """Name, such as `block3.kernel`."""
    choices: tuple[Choice, ...]


@dataclass(frozen=True, kw_only=True)
class Space(abc.ABC):
    """A set of networks to search. A member is encoded as one index into `choices` for each decision, in order.

    Several index vectors may encode the same network; `encode` returns the first of them.
    """

    name: str
    skeleton: Skeleton | CellSkeleton
    """Fixed part that all members share."""

    @property
    @abc.abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions, in the order in which a controller makes them."""

    @property
    @abc.abstractmethod
    def distinct(self) -> int:
        """Number of different networks, by fingerprint."""

    @property
    def distinct_is_exact(self) -> bool:
        """Whether `distinct` is exact, not just an upper bound."""
        return True

    @property
    @abc.abstractmethod
    def reference_skeleton(self) -> Skeleton:
        """Skeleton of the reference model, MobileNetV2, with the members' output stride and about their width."""

    @abc.abstractmethod
    def decode(self, indices: Sequence[int]) -> Architecture:
        """Return the network of an index vector, in canonical form. Raises ValueError for an invalid index."""

    @abc.abstractmethod
    def encode(self, arch: Architecture) -> tuple[int, ...]:
        """Return the first index vector that `decode` maps to `arch.canonical()`.

        Raises ValueError, naming block and field, if `arch` is not in the space.
        """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the space as JSON-able values, from which `mnas.space.named.space_from_dict` restores it."""

    @property
    def size(self) -> int:
        """Number of index vectors."""
        return math.prod(len(d.choices) for d in self.decisions)

    @functools.cached_property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Return decision name -> Optuna distribution, in the order of the decisions."""
        return {d.name: CategoricalDistribution(d.choices) for d in self.decisions}

    def contains(self, arch: Architecture) -> bool:
        """Return whether `arch` is in the space."""
        try:
            self.encode(arch)
        except ValueError:
            return False
        return True

    def check_indices(self, indices: Sequence[int]) -> None:
        """Raise ValueError unless `indices` has one valid index for each decision."""
        require_indices(self.name, self.decisions, indices)

    def params(self, indices: Sequence[int]) -> dict[str, Choice]:
        """Return decision name -> choice, as in an Optuna trial. Raises ValueError for an invalid index."""
        return params_of(self.name, self.decisions, indices)

    def indices(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the index vector of `params`. Raises ValueError if a decision is missing, unknown, or out of range."""
        return indices_of(f"space {self.name}", self.decisions, params)

    def scaled(self, width_multiplier: float) -> Self:
        """Return the same choices on `skeleton.scaled`. Raises ValueError unless the multiplier is from 0.01 to 100."""
        require_number("--width", width_multiplier, 0.01, 100)
        return replace(self, skeleton=self.skeleton.scaled(width_multiplier)) if width_multiplier != 1 else self

    def with_output_stride(self, output_stride: int) -> Self:
        """Return the same choices on `skeleton.with_output_stride`. Raises its ValueErrors."""
        return replace(self, skeleton=self.skeleton.with_output_stride(output_stride))


def require_indices(name: str, decisions: Sequence[Decision], indices: Sequence[int]) -> None:
    """Raise ValueError unless `indices` has one valid index for each decision; `name` is the space's, for errors."""
    if len(indices) != len(decisions):
        raise ValueError(f"{name} has {len(decisions)} decisions, but got {len(indices)} indices")
    for decision, index in zip(decisions, indices, strict=True):
        if not 0 <= index < len(decision.choices):
            raise ValueError(f"{decision.name} must be from 0 to {len(decision.choices) - 1}, but got {index!r}")


def params_of(name: str, decisions: Sequence[Decision], indices: Sequence[int]) -> dict[str, Choice]:
    """Return decision name -> choice. Raises ValueError for an invalid index."""
    require_indices(name, decisions, indices)
    return {d.name: d.choices[i] for d, i in zip(decisions, indices, strict=True)}


def indices_of(name: str, decisions: Sequence[Decision], params: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the index vector of `params`. Raises ValueError if a decision is missing, unknown, or out of range."""
    if set(params) != {d.name for d in decisions}:
        raise ValueError(f"parameters must be the decisions of {name}, but got {', '.join(params)}")
    for decision in decisions:
        if params[decision.name] not in decision.choices:
            raise ValueError(
                f"{decision.name} must be one of {', '.join(map(str, decision.choices))}, "
                f"but got {params[decision.name]!r}"
            )
    return tuple(d.choices.index(params[d.name]) for d in decisions)
