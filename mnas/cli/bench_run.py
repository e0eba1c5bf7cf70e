"""What `mnas bench` does: find out which searches are wanted, run those that are missing, compare them."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mnas.bench.cache import Cache
from mnas.bench.comparison import Row, hits
from mnas.bench.contender import Contender, takes_reward
from mnas.bench.parallel import search_all
from mnas.bench.pool import Pool, draw_pool, marks
from mnas.bench.searched import Searched
from mnas.children import MOST_WORKERS
from mnas.cli.bench_output import Outcome, hit_table, progress_table, protocol, reward_table, sampled_table
from mnas.cli.console import make_console
from mnas.controller import named
from mnas.evaluate.benchmark import Benchmark
from mnas.folders import user_cache_dir
from mnas.objective import DEFAULT_WEIGHTS, Objective

if TYPE_CHECKING:
    from mnas.cli.bench import BenchCommand

BATCH = 20
"""Candidates per update of a controller that has no default of its own (the paper's)."""


def run_bench(command: "BenchCommand") -> None:
    """Search, print, write. Raises ValueError for what the user can mend, before anything is searched."""
    console = make_console()
    uses = {name: takes_reward(name) for name in command.names}  # says now which do not exist
    benchmark = command.source.load()
    for name in command.names:
        if name not in named.CONTROLLERS:  # and which cannot be made
            objective = _objective("soft", 1.0) if uses[name] else None
            size = batch_size_of(name)
            trial = Contender(controller=name, candidates_per_update=size, seed=0, objective=objective)
            trial.sampler(benchmark.space)
    for note in benchmark.notes:
        console.print(note)
    pool = draw_pool(benchmark)
    console.print(protocol(benchmark, pool, command.target_quantile))
    wanted = _Wanted(command, uses)
    found = _search(console, benchmark, pool, wanted)
    rows = [wanted.row(found, name, form, pool.target(command.target_quantile)) for name, form in wanted.shown]
    reached = [
        hits(wanted.row(found, name, form, target), quantile, target)
        for name in command.names
        for form in command.forms
        for quantile in command.quantiles
        for target in [pool.target(quantile)]
    ]
    looks = marks(command.trials)
    console.print(progress_table(rows, pool, looks), reward_table(rows, looks), sampled_table(rows))
    if reached:
        console.print(hit_table(reached))
    outcome = Outcome(benchmark, pool, command.target_quantile, command.trials, tuple(rows), tuple(reached))
    if outcome.missing:
        console.print(f"not in this space, so not in the picture: {', '.join(outcome.missing)}")
    written = outcome.write(command.out)
    console.print(f"{command.out}: {', '.join(written)}")


def batch_size_of(controller: str) -> int:
    """Candidates per update where nobody says: the controller's own default, or the paper's."""
    own: dict[str, int] = getattr(named, "CANDIDATES_PER_UPDATE", {})
    return own.get(controller, BATCH)


@dataclass(frozen=True)
class _Wanted:
    """Which searches a command needs."""

    command: "BenchCommand"
    uses: dict[str, bool]
    """Controller -> whether it maximises a reward."""

    @property
    def shown(self) -> list[tuple[str, str]]:
        """(controller, form of the reward) of each row: one, where the form makes no difference to the controller."""
        forms = self.command.forms
        return [(name, form) for name in self.command.names for form in (forms if self.uses[name] else forms[:1])]

    def contenders(self, name: str, form: str, target: float) -> list[Contender]:
        """By seed."""
        size = self.command.candidates_per_update
        return [
            Contender(
                controller=name,
                candidates_per_update=batch_size_of(name) if size == "auto" else size,
                seed=seed,
                objective=_objective(form, target) if self.uses[name] else None,
            )
            for seed in range(self.command.seeds)
        ]

    def row(self, found: dict[Contender, Searched], name: str, form: str, target: float) -> Row:
        """What came out, judged by that reward."""
        label = f"{name}, {form}" if len(self.command.forms) > 1 else name
        searches = tuple(found[contender] for contender in self.contenders(name, form, target))
        return Row(label, _objective(form, target), searches)

    def all(self, pool: Pool) -> list[Contender]:
        """Seed after seed, so that of an interrupted bench all controllers have some."""
        targets = [pool.target(q) for q in (self.command.target_quantile, *self.command.quantiles)]
        return [
            contender
            for target in targets
            for seeds in zip(*(self.contenders(name, form, target) for name, form in self.shown), strict=True)
            for contender in seeds
        ]


def _search(console: Console, benchmark: Benchmark, pool: Pool, wanted: _Wanted) -> dict[Contender, Searched]:
    command, contenders = wanted.command, wanted.all(pool)
    total, done = len(set(contenders)), 0

    def on_done(contender: Contender, searched: Searched, cached: bool) -> None:
        nonlocal done
        done += 1
        form = f", {contender.objective.form}" if contender.objective and len(command.forms) > 1 else ""
        source = "from the cache" if cached else f"{searched.ms.mean():.1f} CPU ms a trial"
        ratio = pool.ratio(searched.accuracies, searched.costs)
        line = f"{contender.controller}{form}, seed {contender.seed}: hypervolume {ratio:.3f}, {source}"
        console.print(f"[{done}/{total}] {line}")

    return search_all(
        benchmark,
        contenders,
        command.trials,
        workers=min(os.cpu_count() or 1, MOST_WORKERS) if command.workers == "auto" else command.workers,
        cache=Cache(user_cache_dir() / "bench", benchmark),
        on_done=on_done,
    )


def _objective(form: Any, target: float) -> Objective:
    alpha, beta = DEFAULT_WEIGHTS[form]
    return Objective(form=form, target_latency_ms=target, alpha=alpha, beta=beta)
