"""`mnas.bench`: compare controllers on a benchmark, from Python."""

from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, quiet_optuna, silence
from mnas.bench.result import BenchResult
from mnas.bench.run import run_bench
from mnas.bench.settings import BenchSettings
from mnas.report.bench import write_bench
from mnas.settings import from_options, signature_of


@names_keywords
def bench(*, say: Say = silence, **options: Any) -> BenchResult:
    """Compare controllers on a benchmark, with whole searches in seconds and several seeds per controller.

    Searches are cached, so the same call resumes an interrupted bench. A script needs the usual
    `if __name__ == "__main__":`.

    Args:
        say: function that receives a line of text for each search, such as `print`.
        options: options of `mnas bench --help-all`, with underscores: `benchmark`, `path`, `controllers`, `trials`, ...
            The page, the pictures and the numbers are written only if `out` is given.

    Returns:
        The comparison: `rows` with the searches of each controller, and all numbers as plain values (`to_dict()`).

    Raises:
        ValueError: an option is unknown or out of range, the benchmark cannot be read, or a controller fails.

    Examples:
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
