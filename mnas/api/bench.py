"""`mnas.bench`: controllers on a benchmark, from Python."""

from typing import Any

from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, quiet_optuna, silence
from mnas.bench.result import BenchResult
from mnas.bench.run import run_bench
from mnas.bench.settings import BenchSettings
from mnas.report.bench import write_bench
from mnas.settings import from_options, signature_of


def bench(*, say: Say = silence, **options: Any) -> BenchResult:
    """Compare controllers on a benchmark: whole searches in seconds, each controller with several seeds.

    The cache folder keeps the searches, so that the same call resumes an interrupted bench. A script needs the usual
    `if __name__ == "__main__":`.

    Args:
        say: takes a line for each search, `print` for example.
        options: those of `mnas bench --help-all`, with underscores: `benchmark`, `path`, `controllers`, `trials`, ...
            The page, the pictures and the numbers are written only where `out` is given.

    Returns:
        The comparison: `rows` with the searches of each controller, and all numbers as plain values (`to_dict()`).

    Raises:
        ValueError: an option that is unknown or out of its range, a benchmark that cannot be read, or a controller
            that fails.

    Example:
        >>> result = mnas.bench(
        ...     benchmark="table", path="toy.csv", controllers="random,evolution", trials=40, seeds=2, workers=1
        ... )
        >>> [row.name for row in result.rows]
        ['random', 'evolution']
        >>> 0 < result.rows[1].hypervolume(result.pool, 40).mean <= 1
        True
    """
    settings = from_options(BenchSettings, joined(options, "controllers", "reward", "target_quantiles", "ignore"))
    with quiet_optuna():
        result = run_bench(settings, say)
    if "out" in options:
        write_bench(result, settings.out)
    return result


bench.__signature__ = signature_of(BenchSettings, returns=BenchResult, more=(SAY,))  # type: ignore[attr-defined]
