"""The problem that a search solves, and its plan: controller, limits and workers."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from mnas.architecture import Architecture
from mnas.candidate import Candidate
from mnas.children import MOST_WORKERS
from mnas.evaluate.evaluation import Metric
from mnas.latency.fleet.fleet import Measured
from mnas.latency.latency import Latency, MeasurementError
from mnas.objective import Objective, Sharing
from mnas.require import flag_of
from mnas.space.candidates import CandidateSpace
from mnas.workers import Evaluate

Measure = Callable[[Mapping[int, Candidate]], Generator[tuple[int, Measured | MeasurementError], None, None]]
"""Takes number -> candidate; yields (number, outcome) in any order, each as soon as it is available. Raises
UnitError where no device is available: the search then stops, and can be resumed later."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A search problem: the space, the objective, and the functions that measure and train a candidate."""

    space: CandidateSpace
    num_classes: int
    measure: Measure
    evaluate: Evaluate
    size_bytes: Callable[[Candidate], int]
    """Returns the size of the exported file, in bytes."""
    references: Mapping[str, Candidate]
    """Name -> candidate; references are measured and trained like the candidates, for comparison."""
    trains_references: bool = True
    """Whether the references are trained, and not only measured: there are networks from random weights to compare."""
    objective: Objective
    metric: Metric = "accuracy"
    """Score that the objective takes as a trial's accuracy, and the first of the trial's values."""
    others: tuple[Objective, ...] = ()
    """Objectives of further targets, which share all trials; they differ from `objective` only in T."""
    sharing: Sharing
    """Rule that combines the latencies on several devices into the one that the objective takes."""
    reference_ms: Mapping[str, float] = field(default_factory=dict)
    """Device -> latency of the reference in milliseconds."""
    predict: Callable[[Architecture], Mapping[str, Latency]] | None = None
    """Architecture -> device -> predicted latency. A candidate is still measured where the prediction is too wide, and
    after training where it may be on the front. None: every candidate is measured."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objective of each target, in the user's order."""
        return (self.objective, *self.others)

    @property
    def slowest_target_ms(self) -> float:
        """The largest T, in milliseconds."""
        return max(objective.target_latency_ms for objective in self.objectives)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Controller, limits and workers of a search. Raises ValueError where a field is out of range."""

    controller: str
    """Name in `mnas.controller.named.CONTROLLERS`."""
    seed: int
    trials: int
    """Number of candidates in total, over all starts of the run; imported trials do not count."""
    hours: float
    """Time limit in hours, over all starts of the run."""
    workers: int
    """Number of candidates trained in parallel."""
    candidates_per_update: int
    latency_limit: float
    """Limit on latency, as a multiple of the target; slower candidates are skipped before training."""
    max_size_mb: float
    """Limit on the size of the file, in MB; larger candidates are skipped before they are measured."""
    max_memory_mb: float
    """Limit on the runtime's memory on any device, in MB; candidates that need more are skipped before training."""
    keep_models_mb: float
    """Cap on the size of models/, in MB."""

    def __post_init__(self) -> None:
        for name in ("trials", "workers", "candidates_per_update"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_of(name)} must be 1 or more, but got {getattr(self, name)}")
        if self.workers > MOST_WORKERS:
            raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, but got {self.workers}")
        for name in ("hours", "latency_limit", "max_size_mb", "max_memory_mb", "keep_models_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{flag_of(name)} must be greater than 0, but got {getattr(self, name)}")
