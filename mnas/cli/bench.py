"""`mnas bench`: controllers on a benchmark, each with several seeds, in tables and pictures."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from mnas.bench.cache import Cache
from mnas.bench.comparison import Row, hits
from mnas.bench.contender import Contender, takes_reward
from mnas.bench.parallel import search_all
from mnas.bench.pool import Pool, draw_pool, marks
from mnas.bench.searched import Searched
from mnas.cli.bench_output import Outcome, hit_table, progress_table, protocol, reward_table
from mnas.cli.benchmark import BenchmarkOptions
from mnas.cli.console import make_console
from mnas.controller import named
from mnas.evaluate.benchmark import Benchmark
from mnas.folders import user_cache_dir
from mnas.objective import DEFAULT_WEIGHTS, Objective

Auto = Literal["auto"]
BATCH = 20
"""Candidates per update of a controller that has no default of its own (the paper's)."""


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Compare controllers on a benchmark: hypervolume and best reward after so many trials, mean and 95 % interval over
    seeds. Searches are kept in the cache folder: an interrupted bench goes on."""

    source: tyro.conf.OmitArgPrefixes[BenchmarkOptions]
    """The benchmark."""

    controllers: str = "random,evolution,ppo"
    """Names with commas: of mnas search (all: every one), or module:factory (optuna.samplers:TPESampler), which returns
    an Optuna sampler and is given what it takes of space, seed, reward and batch_size."""
    seeds: int = 5
    """Searches of each controller, with seeds 0, 1, ..."""
    trials: int = 500
    """Of each search."""
    reward: str = "soft"
    """soft, hard, absolute or weighted-sum, or several with commas: each gets rows of its own."""
    candidates_per_update: int | Auto = "auto"
    """Candidates drawn from the same state; auto: the controller's own default, else the paper's 20."""
    target_quantile: float = 0.4
    """The target T: the cost that this share of random members stays below."""
    target_quantiles: str = ""
    """Also say how far from T the model with the best reward lies, for each of these (0.1,0.2,0.4,0.8)."""
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
        for form in self.forms:
            if form not in DEFAULT_WEIGHTS:
                raise ValueError(f"reward must be one of {', '.join(DEFAULT_WEIGHTS)}, but got {form!r}")
        for quantile in (self.target_quantile, *self.quantiles):
            if not 0 < quantile < 1:
                raise ValueError(f"a target's quantile must be between 0 and 1, but got {quantile:g}")

    @property
    def forms(self) -> tuple[str, ...]:
        """Of the reward."""
        return _different("reward", self.reward)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the controllers."""
        return tuple(named.CONTROLLERS) if self.controllers == "all" else _different("controllers", self.controllers)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Of the targets for hit rates."""
        if not self.target_quantiles:
            return ()
        try:
            return tuple(float(part) for part in _different("target quantiles", self.target_quantiles))
        except ValueError:
            raise ValueError(
                f"target quantiles must be numbers with commas (0.1,0.4,0.8), but got {self.target_quantiles!r}"
            ) from None

    def run(self) -> None:
        """Run what is missing, print tables, write page, pictures and numbers."""
        console = make_console()
        uses = {name: takes_reward(name) for name in self.names}  # says now which do not exist
        benchmark = self.source.load()
        for name in self.names:
            if name not in named.CONTROLLERS:
                self._contender(name, 0, None if not uses[name] else _objective("soft", 1.0)).sampler(benchmark.space)
        for note in benchmark.notes:
            console.print(note, highlight=False, markup=False)
        pool = draw_pool(benchmark)
        target = pool.target(self.target_quantile)
        console.print(protocol(benchmark, pool, self.target_quantile), highlight=False, markup=False)
        found = self._search(console, benchmark, pool, uses)
        rows = [self._row(found, name, form, target, uses) for name in self.names for form in self._forms(name, uses)]
        reached = [
            hits(self._row(found, name, form, at, uses), quantile, at)
            for name in self.names
            for form in self._forms(name, uses, all_of_them=True)
            for quantile in self.quantiles
            for at in [pool.target(quantile)]
        ]
        looks = marks(self.trials)
        console.print(progress_table(rows, pool, looks), reward_table(rows, looks))
        if reached:
            console.print(hit_table(reached))
        outcome = Outcome(benchmark, pool, self.target_quantile, self.trials, tuple(rows), tuple(reached))
        if outcome.missing:
            console.print(f"not in this space, so not in the picture: {', '.join(outcome.missing)}", highlight=False)
        written = outcome.write(self.out)
        console.print(f"{self.out}: {', '.join(written)}", highlight=False, markup=False)

    def _forms(self, name: str, uses: dict[str, bool], *, all_of_them: bool = False) -> tuple[str, ...]:
        """The forms of the reward for which a controller has rows: one, if it makes no difference to it."""
        return self.forms if uses[name] or all_of_them else self.forms[:1]

    def _contender(self, name: str, seed: int, objective: Objective | None) -> Contender:
        size = self.candidates_per_update
        if size == "auto":
            size = batch_size_of(name)
        return Contender(controller=name, candidates_per_update=size, seed=seed, objective=objective)

    def _contenders(self, name: str, form: str, target: float, uses: dict[str, bool]) -> list[Contender]:
        objective = _objective(form, target) if uses[name] else None
        return [self._contender(name, seed, objective) for seed in range(self.seeds)]

    def _search(
        self, console: Console, benchmark: Benchmark, pool: Pool, uses: dict[str, bool]
    ) -> dict[Contender, Searched]:
        """All that is to be known, seed after seed, so that what is done first are searches of all controllers."""
        targets = [pool.target(q) for q in (self.target_quantile, *self.quantiles)]
        wanted = [
            contender
            for target in targets
            for group in zip(
                *(self._contenders(n, f, target, uses) for n in self.names for f in self._forms(n, uses)), strict=True
            )
            for contender in group
        ]
        total, done = len(set(wanted)), 0

        def on_done(contender: Contender, searched: Searched, cached: bool) -> None:
            nonlocal done
            done += 1
            form = f", {contender.objective.form}" if contender.objective and len(self.forms) > 1 else ""
            source = "from the cache" if cached else f"{searched.ms.mean():.1f} CPU ms a trial"
            ratio = pool.ratio(searched.accuracies, searched.costs)
            line = f"{contender.controller}{form}, seed {contender.seed}: hypervolume {ratio:.3f}, {source}"
            console.print(f"[{done}/{total}] {line}", highlight=False, markup=False)

        return search_all(
            benchmark,
            wanted,
            self.trials,
            workers=(os.cpu_count() or 1) if self.workers == "auto" else self.workers,
            cache=Cache(user_cache_dir() / "bench", benchmark),
            on_done=on_done,
        )

    def _row(self, found: dict[Contender, Searched], name: str, form: str, target: float, uses: dict[str, bool]) -> Row:
        several = len(self.forms) > 1
        searches = tuple(found[c] for c in self._contenders(name, form, target, uses))
        return Row(f"{name}, {form}" if several else name, _objective(form, target), searches)


def batch_size_of(controller: str) -> int:
    """Candidates per update where nobody says: the controller's own default, or the paper's."""
    own: dict[str, int] = getattr(named, "CANDIDATES_PER_UPDATE", {})
    return own.get(controller, BATCH)


def _different(what: str, text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise ValueError(f"{what} must be one, or several different ones with commas, but got {text!r}")
    return parts


def _objective(form: Any, target: float) -> Objective:
    alpha, beta = DEFAULT_WEIGHTS[form]
    return Objective(form=form, target_latency_ms=target, alpha=alpha, beta=beta)
