"""Settings of `mnas bench`: the controllers to compare, the benchmark and the rewards."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mnas.bench.source import BenchmarkOptions
from mnas.children import MOST_WORKERS
from mnas.objective import DEFAULT_WEIGHTS
from mnas.require import flag_of

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """A comparison of controllers. Raises ValueError where a field is out of range."""

    source: BenchmarkOptions
    """The benchmark."""

    controllers: str = "random,evolution,ppo,surrogate"
    """Controllers, separated by commas: surrogate, ppo, evolution, random, nsga2, tpe, module:factory, or all (all
    named ones). A factory, such as optuna.samplers:TPESampler, returns an Optuna sampler. If it accepts arguments named
    space, seed, reward or batch_size, mnas passes them."""
    seeds: int = 5
    """Number of searches per controller, with seeds 0, 1, ..."""
    trials: int = 500
    """Number of trials per search."""
    reward: str = "soft"
    """Reward: target, soft, hard, absolute or weighted-sum, or several separated by commas. The tables have separate
    rows for each reward."""
    candidates_per_update: int | Auto = "auto"
    """Number of candidates drawn before the controller learns from them; auto: 5 for surrogate, the paper's 20 for all
    others. A sampler from module:factory that is no ClosedBatchSampler learns after every trial instead."""
    target_quantile: float = 0.4
    """Target T as a quantile: the share of random networks that cost less than T."""
    target_quantiles: str = ""
    """Further target quantiles (0.1,0.2,0.4,0.8). For each, mnas prints how far the cost of the model with the best
    reward is from T."""
    workers: int | Auto = "auto"
    """Number of searches in parallel, each in a process of one thread; auto: one per core."""
    out: Path = Path("bench")
    """Folder for the page (HTML), the figures (SVG) and the numbers (JSON); existing files of the same benchmark are
    replaced."""

    def __post_init__(self) -> None:
        for name in ("seeds", "trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, but got {getattr(self, name)}")
        for name in ("workers", "candidates_per_update"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ValueError(f"{flag_of(name)} must be 1 or more, or auto, but got {value}")
        if self.workers != "auto" and self.workers > MOST_WORKERS:
            raise ValueError(f"--workers must be from 1 to {MOST_WORKERS}, or auto, but got {self.workers}")
        for form in self.forms:
            if form not in DEFAULT_WEIGHTS:
                raise ValueError(f"--reward must be one of {', '.join(DEFAULT_WEIGHTS)}, but got {form!r}")
        there = next(path for path in (self.out, *self.out.parents, Path()) if path.exists())
        if not there.is_dir():
            raise ValueError(f"--out must be a folder, but got {self.out}, and {there} is a file")
        for flag, quantiles in (
            ("--target-quantile", (self.target_quantile,)),
            ("--target-quantiles", self.quantiles),
        ):
            for quantile in quantiles:
                if not 0 < quantile < 1:
                    raise ValueError(f"{flag} must be between 0 and 1, but got {quantile:g}")

    @property
    def options(self) -> dict[str, Any]:
        """Options as plain values; `mnas.bench(**options)` repeats the comparison."""
        own = dataclasses.asdict(self)
        values = own.pop("source") | own
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of the reward."""
        return _different("--reward", self.reward)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the controllers."""
        if self.controllers == "all":
            from mnas.controller.named import CONTROLLERS

            return tuple(CONTROLLERS)
        return _different("--controllers", self.controllers)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Quantiles of the targets that hit rates are for."""
        if not self.target_quantiles:
            return ()
        try:
            return tuple(float(part) for part in _different("--target-quantiles", self.target_quantiles))
        except ValueError:
            raise ValueError(
                f"--target-quantiles must be different numbers separated by commas (0.1,0.4,0.8), but got "
                f"{self.target_quantiles!r}"
            ) from None


def _different(flag: str, text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise ValueError(f"{flag} must be different names separated by commas, but got {text!r}")
    return parts
