"""Run of a bench: makes the missing searches and compares all of them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mnas.bench.cache import Cache
from mnas.bench.comparison import ControllerSearches, hits
from mnas.bench.contender import Contender, takes_reward
from mnas.bench.parallel import search_all
from mnas.bench.pool import Pool, draw_pool
from mnas.bench.result import BenchResult, protocol
from mnas.bench.searched import Searched
from mnas.bench.settings import BenchSettings
from mnas.children import MOST_WORKERS
from mnas.controller.named import CONTROLLERS, candidates_per_update
from mnas.evaluate.benchmark import Benchmark
from mnas.folders import user_cache_dir
from mnas.objective import DEFAULT_WEIGHTS, Objective

Say = Callable[[str], None]


def run_bench(settings: BenchSettings, say: Say) -> BenchResult:
    """Make the searches that are not in the cache, and return the comparison.

    Args:
        say: called with a line for each search, and with the notes of the benchmark before them.

    Raises:
        ValueError: a controller is unknown or cannot be made, the benchmark cannot be read, or a search fails.
        OSError: a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C; the finished searches are in the cache.
    """
    uses_reward = {name: takes_reward(name) for name in settings.names}  # unknown controllers raise first
    benchmark = settings.source.load()
    for name in settings.names:
        if name not in CONTROLLERS:
            _require_sampler(name, benchmark, uses_reward[name])
    for note in benchmark.notes:
        say(note)
    pool = draw_pool(benchmark)
    say(protocol(benchmark, pool, settings.target_quantile))
    wanted = _Wanted(settings, uses_reward)
    searches = _search(benchmark, pool, wanted, say)
    target = pool.target(settings.target_quantile)
    rows = tuple(wanted.row(searches, name, form, target) for name, form in wanted.rows)
    near = tuple(
        hits(wanted.row(searches, name, form, target), quantile, target)
        for name in settings.names
        for form in settings.forms
        for quantile in settings.quantiles
        for target in [pool.target(quantile)]
    )
    return BenchResult(benchmark, pool, settings, rows, near)


def _require_sampler(name: str, benchmark: Benchmark, uses_reward: bool) -> None:
    """Raise ValueError where a `module:factory` makes no sampler."""
    objective = _objective("soft", 1.0) if uses_reward else None
    size = candidates_per_update(name)
    Contender(controller=name, candidates_per_update=size, seed=0, objective=objective).sampler(benchmark.space)


@dataclass(frozen=True)
class _Wanted:
    """Searches that a bench needs."""

    settings: BenchSettings
    uses_reward: dict[str, bool]
    """Controller -> whether it maximises a reward."""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Return (controller, form of the reward) of each row; one row if the form makes no difference to it."""
        forms = self.settings.forms
        return [
            (name, form) for name in self.settings.names for form in (forms if self.uses_reward[name] else forms[:1])
        ]

    def contenders(self, name: str, form: str, target: float) -> list[Contender]:
        """Return the contenders of one row, by seed."""
        size = self.settings.candidates_per_update
        return [
            Contender(
                controller=name,
                candidates_per_update=candidates_per_update(name) if size == "auto" else size,
                seed=seed,
                objective=_objective(form, target) if self.uses_reward[name] else None,
            )
            for seed in range(self.settings.seeds)
        ]

    def row(self, searches: dict[Contender, Searched], name: str, form: str, target: float) -> ControllerSearches:
        """Return the searches of one row, with the reward that scores them."""
        label = f"{name}, {form}" if len(self.settings.forms) > 1 else name
        own = tuple(searches[contender] for contender in self.contenders(name, form, target))
        return ControllerSearches(label, _objective(form, target), own)

    def all(self, pool: Pool) -> list[Contender]:
        """Return all contenders, seed after seed, so that an interrupted bench has some of every controller."""
        targets = [pool.target(q) for q in (self.settings.target_quantile, *self.settings.quantiles)]
        return [
            contender
            for target in targets
            for seeds in zip(*(self.contenders(name, form, target) for name, form in self.rows), strict=True)
            for contender in seeds
        ]


def _search(benchmark: Benchmark, pool: Pool, wanted: _Wanted, say: Say) -> dict[Contender, Searched]:
    settings, contenders = wanted.settings, wanted.all(pool)
    total, done = len(set(contenders)), 0

    def on_done(contender: Contender, searched: Searched, cached: bool) -> None:
        nonlocal done
        done += 1
        form = f", {contender.objective.form}" if contender.objective and len(settings.forms) > 1 else ""
        source = "cached" if cached else f"{searched.ms.mean():.1f} CPU ms per trial"
        ratio = pool.ratio(searched.accuracies, searched.costs)
        line = f"{contender.controller}{form}, seed {contender.seed}: hypervolume {ratio:.3f}, {source}"
        say(f"[{done}/{total}] {line}")

    return search_all(
        benchmark,
        contenders,
        settings.trials,
        workers=min(os.cpu_count() or 1, MOST_WORKERS) if settings.workers == "auto" else settings.workers,
        cache=Cache(user_cache_dir() / "bench", benchmark),
        on_done=on_done,
    )


def _objective(form: Any, target: float) -> Objective:
    alpha, beta = DEFAULT_WEIGHTS[form]
    return Objective(form=form, target_latency_ms=target, alpha=alpha, beta=beta)
