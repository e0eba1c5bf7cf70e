"""What is searched, and how."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from mnas.architecture import Architecture
from mnas.children import MOST_WORKERS
from mnas.evaluate.evaluation import Metric
from mnas.latency.fleet.fleet import Measured
from mnas.latency.latency import Latency, MeasurementError
from mnas.objective import Objective, Sharing
from mnas.space.space import Space
from mnas.workers import Evaluate

Measure = Callable[[Mapping[int, Architecture]], Generator[tuple[int, Measured | MeasurementError], None, None]]
"""number -> architecture; yields each number with what was found as soon as it is known, in any order. Raises UnitError
where the devices are gone: the search then stops, and can go on later."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, and how a member of it is judged."""

    space: Space
    input_size: int
    num_classes: int
    measure: Measure
    evaluate: Evaluate
    size_bytes: Callable[[Architecture], int]
    """Of the file that ships."""
    references: Mapping[str, Architecture]
    """name -> architecture, measured and trained like the candidates for comparison."""
    objective: Objective
    metric: Metric = "accuracy"
    """The score that the objective takes as a trial's accuracy, and the first of the trial's values."""
    others: tuple[Objective, ...] = ()
    """Further targets that all trials serve too; they differ from `objective` in T alone."""
    sharing: Sharing
    """How the latencies on several devices become the one that the objective takes."""
    predict: Callable[[Architecture], Mapping[str, Latency]] | None = None
    """architecture -> device -> predicted latency. Such a candidate is measured where the prediction is too wide, and
    once it is trained where it may be on the front. None: every candidate is measured."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """One for each target, in the user's order."""
        return (self.objective, *self.others)

    @property
    def slowest_target_ms(self) -> float:
        """The largest T."""
        return max(objective.target_latency_ms for objective in self.objectives)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How it is searched; raises ValueError where a field is out of its range."""

    controller: str
    """A name in `mnas.controller.named.CONTROLLERS`."""
    seed: int
    trials: int
    """How many candidates in all, over all starts of the run; those taken over from other runs do not count."""
    hours: float
    """Stop after so many hours of searching, over all starts of the run."""
    workers: int
    """How many candidates are trained side by side."""
    candidates_per_update: int
    latency_limit: float
    """Candidates slower than this multiple of the target are skipped, not trained."""
    max_size_mb: float
    """Candidates with a larger file are skipped, not even measured."""
    max_memory_mb: float
    """Candidates for which the runtime takes more on any device are skipped, not trained."""
    keep_models_mb: float
    """Cap on the size of models/."""

    def __post_init__(self) -> None:
        for name in ("trials", "workers", "candidates_per_update"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', ' ')} must be 1 or more, but got {getattr(self, name)}")
        if self.workers > MOST_WORKERS:
            raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, but got {self.workers}")
        for name in ("hours", "latency_limit", "max_size_mb", "max_memory_mb", "keep_models_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name.replace('_', ' ')} must be above 0, but got {getattr(self, name)}")
