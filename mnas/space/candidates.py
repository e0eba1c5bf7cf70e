"""The space of a search: networks of a space or of parents with known weights, at each input size on offer.

A search from scratch at one input size has exactly the decisions of its space. Otherwise `parent` comes first (a parent
by name, or `none` for a network of the space), `input_size` second, then what is cut from a parent, if the search cuts,
and the decisions of the space last. Those that make no difference, as another family's, have their first choices in
what `encode` gives.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from mnas.architecture import Architecture, architecture_from_dict
from mnas.candidate import Candidate
from mnas.readers import require_types
from mnas.require import require_choice
from mnas.space.cuts import count_cuts, cut_arch, decisions_of_cuts, params_of_cut, smallest_cut, uniform_cut
from mnas.space.named import space_from_dict
from mnas.space.space import Decision, Space, indices_of, params_of, require_indices

SCRATCH = "none"
"""Choice of the decision `parent` that stands for a network of the space with random weights."""
STARTING = ((1.0, 1.0), (0.75, 1.0), (0.5, 1.0), (0.75, 0.67), (0.5, 0.67))
"""Width and expansion of the cuts that a search may begin with, as shares of the parent's."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A network with known weights. Raises ValueError for a name that the space needs for itself."""

    name: str
    """Name as the user typed it."""
    arch: Architecture
    """Its architecture, with the padding and batch norm of its weights."""
    digest: str
    """Digest of its weights."""

    def __post_init__(self) -> None:
        if self.name in ("", SCRATCH):
            raise ValueError(f"--parent must name a network other than {SCRATCH!r}, but got {self.name!r}")

    def tuned_weights(self, run: Path) -> Path:
        """Return the file of its fine-tuned weights in the folder of a run that cuts networks from it."""
        return run / "parents" / f"{self.digest[:16]}.safetensors"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_dict` reads them back equal."""
        return {"name": self.name, "arch": self.arch.to_dict(), "digest": self.digest}

    @staticmethod
    def from_dict(values: object) -> "Parent":
        """Return the inverse of `to_dict`. Raises ValueError."""
        if not isinstance(values, dict) or set(values) != {"name", "arch", "digest"}:
            raise ValueError(f"a parent must have a name, an arch and a digest, but got {values!r}")
        require_types(Parent, {name: values[name] for name in ("name", "digest")})
        return Parent(**{**values, "arch": architecture_from_dict(values["arch"])})


@dataclass(frozen=True, kw_only=True)
class CandidateSpace:
    """The candidates of a search. Raises ValueError without any, or where a parent is named twice."""

    space: Space | None
    """Networks to train from random weights; None: only parents."""
    input_sizes: tuple[int, ...]
    """Input sizes on offer in pixels, ascending."""
    parents: tuple[Parent, ...] = ()
    """Networks with known weights."""
    cuts: bool = False
    """Whether smaller networks are cut from the parents; otherwise these are taken whole."""

    def __post_init__(self) -> None:
        if self.space is None and not self.parents:
            raise ValueError("a search must have a space or parents")
        if not self.input_sizes or list(self.input_sizes) != sorted(set(self.input_sizes)):
            raise ValueError(f"input sizes must be different and ascending, but got {self.input_sizes}")
        names = [parent.name for parent in self.parents]
        if len(set(names)) < len(names):
            raise ValueError(f"--parent must name each parent once, but got {','.join(names)}")

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions, in the order in which a controller makes them."""
        own: list[Decision] = []
        if self.parents:
            scratch = () if self.space is None else (SCRATCH,)
            own.append(Decision("parent", (*(parent.name for parent in self.parents), *scratch)))
        if self.parents or len(self.input_sizes) > 1:
            own.append(Decision("input_size", self.input_sizes))
        return (*own, *self._cut_decisions, *(self.space.decisions if self.space else ()))

    @functools.cached_property
    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Return decision name -> Optuna distribution, in the order of the decisions."""
        return {d.name: CategoricalDistribution(d.choices) for d in self.decisions}

    @property
    def size(self) -> int:
        """Number of index vectors."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    @property
    def distinct(self) -> int:
        """Number of different candidates, or an upper bound where that of the space is one."""
        ours = sum(count_cuts(parent.arch) for parent in self.parents) if self.cuts else len(self.parents)
        return (ours + (self.space.distinct if self.space else 0)) * len(self.input_sizes)

    def decode(self, indices: Sequence[int]) -> Candidate:
        """Return the candidate of an index vector, in canonical form. Raises ValueError for an invalid index."""
        require_indices("the search", self.decisions, indices)
        chosen = self.params(indices)
        input_size = int(chosen.get("input_size", self.input_sizes[0]))
        name = chosen.get("parent", SCRATCH)
        if name != SCRATCH:
            parent = self._parents[str(name)]
            arch = cut_arch(parent.arch, chosen) if self.cuts else parent.arch
            return Candidate(arch=arch, input_size=input_size, parent=parent.name)
        assert self.space is not None
        return Candidate(arch=self.space.decode(indices[self._own :]), input_size=input_size)

    def encode(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the first index vector that `decode` maps to the canonical candidate. Raises ValueError."""
        require_choice("input size", candidate.input_size, self.input_sizes)
        if candidate.parent:
            require_choice("parent", candidate.parent, tuple(self._parents))
            network: tuple[int, ...] = (0,) * (len(self.decisions) - self._own)
            cuts = self._cut_indices(self._parents[candidate.parent], candidate.arch)
        elif self.space is None:
            raise ValueError(f"the network must be one of {', '.join(self._parents)} with its weights")
        else:
            network, cuts = self.space.encode(candidate.arch), (0,) * len(self._cut_decisions)
        own = {"parent": candidate.parent or SCRATCH, "input_size": candidate.input_size}
        first = self.decisions[: self._own - len(self._cut_decisions)]
        return (*(d.choices.index(own[d.name]) for d in first), *cuts, *network)

    def params(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return decision name -> choice, as in an Optuna trial. Raises ValueError for an invalid index."""
        return params_of("the search", self.decisions, indices)

    def indices(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the index vector of `params`. Raises ValueError if a decision is missing, unknown, or out of range."""
        return indices_of("the search", self.decisions, params)

    def of_parents(self) -> list[Candidate]:
        """Return every parent at every input size."""
        return [
            Candidate(arch=parent.arch, input_size=size, parent=parent.name)
            for parent in self.parents
            for size in self.input_sizes
        ]

    def starting_cuts(self) -> list[Candidate]:
        """Return plain cuts to begin with, at every input size: the parents whole, narrower and with less expansion."""
        if not self.cuts:
            return self.of_parents()
        chosen = {
            Candidate(
                arch=uniform_cut(parent.arch, width=width, expansion=expansion), input_size=size, parent=parent.name
            ): None
            for parent in self.parents
            for width, expansion in STARTING
            for size in self.input_sizes
        }
        return list(chosen)

    def smallest_cuts(self) -> list[Candidate]:
        """Return the smallest cut of each parent at the smallest input size."""
        return [
            Candidate(arch=smallest_cut(parent.arch), input_size=self.input_sizes[0], parent=parent.name)
            for parent in self.parents
            if self.cuts
        ]

    @functools.cached_property
    def _cut_decisions(self) -> tuple[Decision, ...]:
        return decisions_of_cuts([parent.arch for parent in self.parents]) if self.cuts else ()

    def _cut_indices(self, parent: Parent, arch: Architecture) -> tuple[int, ...]:
        """Return the first choices that cut `arch` from the parent. Raises ValueError if none do."""
        if arch == parent.arch or not self.cuts:
            return (0,) * len(self._cut_decisions)
        chosen = params_of_cut(parent.arch, arch)
        return tuple(d.choices.index(chosen[d.name]) if d.name in chosen else 0 for d in self._cut_decisions)

    @functools.cached_property
    def _parents(self) -> dict[str, Parent]:
        return {parent.name: parent for parent in self.parents}

    @property
    def _own(self) -> int:
        """Number of decisions that are not the space's own."""
        return len(self.decisions) - (len(self.space.decisions) if self.space else 0)

    def to_config(self) -> dict[str, Any]:
        """Return the fields of a run's configuration, JSON-able, from which `candidate_space` restores the space."""
        several = len(self.input_sizes) > 1
        config: dict[str, Any] = {"input_size": list(self.input_sizes) if several else self.input_sizes[0]}
        if self.space is not None:
            config["space"] = self.space.to_dict()
        if self.parents:
            config["parents"] = [parent.to_dict() for parent in self.parents]
        if self.cuts:
            config["cuts"] = True
        return config


def candidate_space(config: Mapping[str, Any]) -> CandidateSpace:
    """Return the space of a run's configuration. Raises ValueError for an invalid field."""
    return CandidateSpace(
        space=space_from_dict(config["space"]) if "space" in config else None,
        input_sizes=input_sizes_of(config),
        parents=tuple(Parent.from_dict(values) for values in config.get("parents", ())),
        cuts=config.get("cuts", False) is True,
    )


def input_sizes_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the input sizes on offer in a run's configuration. Raises ValueError unless they are pixels."""
    stored = config["input_size"]
    sizes = stored if isinstance(stored, list) and stored else [stored]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"input_size must be pixels, but got {stored!r}")
    return tuple(sizes)
