"""Settings of `mnas bench`: the controllers to compare, the benchmark and the rewards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnas.bench.source import BenchmarkOptions
from mnas.children import MOST_WORKERS
from mnas.objective import DEFAULT_WEIGHTS

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """A comparison of controllers. Raises ValueError where a field is out of its range."""

    source: BenchmarkOptions
    """The benchmark."""

    controllers: str = "random,evolution,ppo,surrogate"
    """Controllers of mnas search (all: every one), or module:factory (optuna.samplers:TPESampler), separated by commas.
    A factory returns an Optuna sampler; it gets those of space, seed, reward and batch_size that it takes."""
    seeds: int = 5
    """Searches of each controller, with seeds 0, 1, ..."""
    trials: int = 500
    """Number of trials of each search."""
    reward: str = "soft"
    """target, soft, hard, absolute or weighted-sum, or several with commas: each gets rows of its own."""
    candidates_per_update: int | Auto = "auto"
    """Candidates drawn from the same state; auto: the controller's own default, else the paper's 20."""
    target_quantile: float = 0.4
    """The target T: the cost that this share of random members stays below."""
    target_quantiles: str = ""
    """Quantiles (0.1,0.2,0.4,0.8) for which the distance from T of the model with the best reward is printed too."""
    workers: int | Auto = "auto"
    """Searches side by side, a process of one thread each; auto: one for each core."""
    out: Path = Path("bench")
    """Folder for the page (HTML), the pictures (SVG) and the numbers (JSON)."""

    def __post_init__(self) -> None:
        for name in ("seeds", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, but got {getattr(self, name)}")
        for name in ("workers", "candidates_per_update"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ValueError(f"{name.replace('_', ' ')} must be 1 or more, or auto, but got {value}")
        if self.workers != "auto" and self.workers > MOST_WORKERS:
            raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, or auto, but got {self.workers}")
        for form in self.forms:
            if form not in DEFAULT_WEIGHTS:
                raise ValueError(f"reward must be one of {', '.join(DEFAULT_WEIGHTS)}, but got {form!r}")
        there = next(path for path in (self.out, *self.out.parents, Path()) if path.exists())
        if not there.is_dir():
            inside = "" if there == self.out else f"{self.out} in "
            raise ValueError(f"out must be a folder, but got {inside}the file {there}")
        for quantile in (self.target_quantile, *self.quantiles):
            if not 0 < quantile < 1:
                raise ValueError(f"a target's quantile must be between 0 and 1, but got {quantile:g}")

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of the reward."""
        return _different("reward", self.reward)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the controllers."""
        if self.controllers == "all":
            from mnas.controller.named import CONTROLLERS

            return tuple(CONTROLLERS)
        return _different("controllers", self.controllers)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Quantiles of the targets that hit rates are for."""
        if not self.target_quantiles:
            return ()
        try:
            return tuple(float(part) for part in _different("target quantiles", self.target_quantiles))
        except ValueError:
            raise ValueError(
                f"target quantiles must be numbers with commas (0.1,0.4,0.8), but got {self.target_quantiles!r}"
            ) from None


def _different(what: str, text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise ValueError(f"{what} must be one, or several different ones with commas, but got {text!r}")
    return parts
