"""The tables that `mnas bench` prints."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from mnas.bench.comparison import ControllerSearches, Hits
from mnas.bench.pool import Pool, marks
from mnas.bench.result import BenchResult


def tables(result: BenchResult) -> list[Table]:
    """Return the tables of a bench, in the order in which they are printed."""
    at = marks(result.trials)
    hit_rates = [hit_table(result.hits)] if result.hits else []
    return [
        progress_table(result.rows, result.pool, at),
        reward_table(result.rows, at),
        sampled_table(result.rows),
        *hit_rates,
    ]


def _table(title: str, first: str, rest: Sequence[str]) -> Table:
    table = Table(first, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in rest:
        table.add_column(name, justify="right")
    return table


def progress_table(rows: Sequence[ControllerSearches], pool: Pool, at: Sequence[int]) -> Table:
    """Return the table of hypervolumes, and milliseconds per trial."""
    names = [*map(str, at), "CPU ms per trial"]
    table = _table("hypervolume relative to the pool, by number of trials", "controller", names)
    for row in rows:
        table.add_row(row.name, *(str(row.hypervolume(pool, n)) for n in at), f"{row.ms_per_trial.mean:.1f}")
    return table


def reward_table(rows: Sequence[ControllerSearches], at: Sequence[int]) -> Table:
    """Return the table of best rewards."""
    table = _table("best reward by number of trials", "controller", [str(n) for n in at])
    for row in rows:
        table.add_row(row.name, *(str(row.best_reward(n)) for n in at))
    return table


def sampled_table(rows: Sequence[ControllerSearches]) -> Table:
    """Return the paper's Figure 6 in numbers."""
    names = ["more than 5 % below T", "within 5 % of T", "more than 5 % above T"]
    table = _table("share of trials by cost", "controller", names)
    for row in rows:
        table.add_row(row.name, *(f"{share:.0%}" for share in row.sampled()))
    return table


def hit_table(hits: Sequence[Hits]) -> Table:
    """Return the table of hit rates."""
    table = _table(
        "distance of the best-reward model from the target T",
        "controller",
        ["quantile", "T", "within 5 %", "median", "worst", "on the front: within 5 %", "worst"],
    )
    for h in hits:
        all_trials = (f"{h.share:.0%}", f"{h.median:+.1%}", f"{h.worst:+.1%}")
        on_front = (f"{h.share_on_front:.0%}", f"{h.worst_on_front:+.1%}")
        table.add_row(h.name, f"{h.quantile:g}", f"{h.target:.4g}", *all_trials, *on_front)
    return table
