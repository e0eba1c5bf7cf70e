"""The range of latencies that a space reaches, from its smallest and largest members, determined before a search."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.candidate import Candidate
from mnas.latency.latency import Latency, MeasurementError
from mnas.nn.cost import cost
from mnas.search.problem import Problem
from mnas.space.candidates import CandidateSpace
from mnas.space.space import Space


@dataclass(frozen=True, kw_only=True)
class End:
    """The smallest or the largest member of a space."""

    arch: Architecture
    latencies: Mapping[str, Latency]
    """Device -> latency; empty where no device can run the member."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able."""
        latencies = {device: latency.to_dict() for device, latency in self.latencies.items()}
        return {"arch": self.arch.to_dict(), "latencies": latencies}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Range of latencies of the candidates, as far as MACs identify the fastest and the slowest."""

    smallest: End
    largest: End

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able."""
        return {"smallest": self.smallest.to_dict(), "largest": self.largest.to_dict()}

    def text(self, device: str) -> str:
        """Return the range in words: `0.31 ms (0.30-0.32) to 12.4 ms (12.2-12.6)`."""
        return f"{_text(self.smallest.latencies.get(device))} to {_text(self.largest.latencies.get(device))}"

    def require(self, device: str, targets_ms: Sequence[float], *, slower: bool = True) -> None:
        """Raise ValueError, with the range, where a target is outside it by more than the uncertainty of its ends.

        Args:
            device: name of the device.
            targets_ms: targets in milliseconds.
            slower: whether a target above the range is outside it; not so where every network is worth a look.
        """
        fastest, slowest = self.smallest.latencies.get(device), self.largest.latencies.get(device)
        for target_ms in targets_ms:
            if (fastest and target_ms < fastest.low_ms) or (slower and slowest and target_ms > slowest.high_ms):
                raise ValueError(
                    f"--target-latency-ms must be in the latency range of the space, but got {target_ms:g} ms; on "
                    f"{device} its networks take {self.text(device)}"
                )


def _text(latency: Latency | None) -> str:
    if latency is None:
        return "too large to run"
    source = ", predicted" if latency.source == "predicted" else ""
    return f"{latency.latency_ms:.3g} ms ({latency.low_ms:.3g}-{latency.high_ms:.3g}{source})"


def find_reach(problem: Problem) -> Reach:
    """Return the range of latencies from the space's smallest and largest members, measured or predicted.

    Raises:
        UnitError: see `problem.measure`.
    """
    ends = dict(enumerate(extreme_candidates(problem.space, problem.num_classes)))
    latencies: dict[int, Mapping[str, Latency]] = {}
    if problem.predict is not None:
        latencies = {number: problem.predict(candidate.arch) for number, candidate in ends.items()}
    else:
        for number, outcome in problem.measure(ends):
            latencies[number] = {} if isinstance(outcome, MeasurementError) else outcome.latencies
    smallest, largest = (End(arch=one.arch, latencies=latencies[number]) for number, one in ends.items())
    return Reach(smallest=smallest, largest=largest)


def extreme_candidates(space: CandidateSpace, num_classes: int) -> tuple[Candidate, Candidate]:
    """Return the candidates with the fewest and the most multiply-accumulates."""
    first, last = space.input_sizes[0], space.input_sizes[-1]
    ends = [*space.of_parents(), *space.smallest_cuts()]
    if space.space is not None:
        small, _ = extremes(space.space, first, num_classes)
        _, large = extremes(space.space, last, num_classes)
        ends += [Candidate(arch=small, input_size=first), Candidate(arch=large, input_size=last)]
    ends.sort(key=lambda one: cost(one.arch, one.input_size, num_classes).macs)
    return ends[0], ends[-1]


def extremes(space: Space, input_size: int, num_classes: int) -> tuple[Architecture, Architecture]:
    """Return the members with the fewest and the most multiply-accumulates, by coordinate search over the decisions."""

    def work(indices: Sequence[int]) -> tuple[int, int, int, int]:
        """Return MACs, parameters, pools and additions; the last two break ties, as they cost time but few MACs."""
        arch = space.decode(indices)
        whole = cost(arch, input_size, num_classes)
        skips = Counter(layer.skip for layer in arch.layers) if isinstance(arch, Arch) else Counter[str]()
        return whole.macs, whole.params, skips["pool"], skips["identity"]

    def extreme(sign: int) -> Architecture:
        indices = [0] * len(space.decisions)
        for _ in range(3):
            before = list(indices)
            for place, decision in enumerate(space.decisions):
                ranked = {i: work([*indices[:place], i, *indices[place + 1 :]]) for i in range(len(decision.choices))}
                indices[place] = max(ranked, key=lambda i: tuple(sign * value for value in ranked[i]))
            if indices == before:
                break
        return space.decode(indices)

    return extreme(-1), extreme(1)
