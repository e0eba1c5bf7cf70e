"""A search space as plain data: ordered categorical decisions, and which network each combination of them is."""

import abc
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from optuna.distributions import CategoricalDistribution

from mnas.architecture import Architecture
from mnas.cell_arch import CellSkeleton
from mnas.space.skeleton import Skeleton

Choice = str | int | float


@dataclass(frozen=True)
class Decision:
    """One choice that a controller makes."""

    name: str
    """`block3.kernel`."""
    choices: tuple[Choice, ...]


@dataclass(frozen=True, kw_only=True)
class Space(abc.ABC):
    """What can be searched. A member is written as one index into `choices` for each decision, in order.

    Several index vectors can be one network, where choices make no difference; `encode` gives the first of them.
    """

    name: str
    skeleton: Skeleton | CellSkeleton
    """What all members have in common."""

    @property
    @abc.abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions, in the order in which a controller makes them."""

    @property
    @abc.abstractmethod
    def distinct(self) -> int:
        """How many different networks there are, by fingerprint."""

    @property
    def distinct_is_exact(self) -> bool:
        """Whether `distinct` is their number, and not only an upper bound of it."""
        return True

    @property
    @abc.abstractmethod
    def reference_skeleton(self) -> Skeleton:
        """What the reference model, MobileNetV2, is built on: of the members' output stride and about their width."""

    @abc.abstractmethod
    def decode(self, indices: Sequence[int]) -> Architecture:
        """The network of an index vector, in its canonical form. Raises ValueError where an index is none."""

    @abc.abstractmethod
    def encode(self, arch: Architecture) -> tuple[int, ...]:
        """The canonical index vector of `arch`: `decode` of it is `arch.canonical()`; of equal choices, the first.

        Raises ValueError, naming block and field, where `arch` is not in the space.
        """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values, equal after a round trip through JSON; `mnas.space.named.space_from_dict` reads them."""

    @property
    def size(self) -> int:
        """How many index vectors there are."""
        return math.prod(len(d.choices) for d in self.decisions)

    @functools.cached_property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Decision name -> Optuna distribution, in the order of the decisions."""
        return {d.name: CategoricalDistribution(d.choices) for d in self.decisions}

    def contains(self, arch: Architecture) -> bool:
        """Whether some index vector is `arch`."""
        try:
            self.encode(arch)
        except ValueError:
            return False
        return True

    def check_indices(self, indices: Sequence[int]) -> None:
        """Raise ValueError unless there is one index for each decision, and each is an index of its choices."""
        if len(indices) != len(self.decisions):
            raise ValueError(f"{self.name} has {len(self.decisions)} decisions, but got {len(indices)} indices")
        for decision, index in zip(self.decisions, indices, strict=True):
            if not 0 <= index < len(decision.choices):
                raise ValueError(f"{decision.name} must be from 0 to {len(decision.choices) - 1}, but got {index!r}")

    def params(self, indices: Sequence[int]) -> dict[str, Choice]:
        """Decision name -> choice, as in an Optuna trial. Raises ValueError where an index is none."""
        self.check_indices(indices)
        return {d.name: d.choices[i] for d, i in zip(self.decisions, indices, strict=True)}

    def indices(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """The inverse of `params`. Raises ValueError where a decision is missing, unknown, or not among its choices."""
        if set(params) != {d.name for d in self.decisions}:
            raise ValueError(f"parameters must be the decisions of space {self.name}, but got {', '.join(params)}")
        for decision in self.decisions:
            if params[decision.name] not in decision.choices:
                raise ValueError(
                    f"{decision.name} must be one of {', '.join(map(str, decision.choices))}, "
                    f"but got {params[decision.name]!r}"
                )
        return tuple(d.choices.index(params[d.name]) for d in self.decisions)

    def scaled(self, width_multiplier: float) -> Self:
        """The same choices on `skeleton.scaled`; raises ValueError as that does."""
        return replace(self, skeleton=self.skeleton.scaled(width_multiplier)) if width_multiplier != 1 else self

    def with_output_stride(self, output_stride: int) -> Self:
        """The same choices on `skeleton.with_output_stride`; raises ValueError as that does."""
        return replace(self, skeleton=self.skeleton.with_output_stride(output_stride))
