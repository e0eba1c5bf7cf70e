"""`mnas.search`: run a search, from Python."""

import inspect
from pathlib import Path
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.run import Run
from mnas.api.saying import quiet_optuna
from mnas.api.watching import Shown, shown_by
from mnas.search.run_search import run_search
from mnas.search.settings import SearchSettings, search_settings
from mnas.settings import signature_of
from mnas.study import RunError

_LISTS = ("input_size", "parent", "start_from", "target_latency_ms", "device")
"""Options that may be numbers or lists."""


@names_keywords
def search(data: str | Path = "", *, watcher: Shown = "auto", **options: Any) -> Run:
    """Search for the image models with the best trade-off of accuracy and latency on a device.

    The same call resumes an unfinished search in `run`; more `trials` continue a finished one. Candidates are trained
    in separate processes, so a script needs the usual `if __name__ == "__main__":`.

    Args:
        data: name or folder of the data set.
        watcher: display of the progress: auto (a bar in a notebook, else nothing), bar, none, or a `Watcher`.
        options: options of `mnas search --help-all`, with underscores: `run`, `trials`, `epochs`, ...; several input
            sizes, parents, networks to start from, targets or devices as a list.

    Returns:
        The run, with its front, its best model, its trials, a plot and a report.

    Raises:
        ValueError: an option is unknown or out of range, images or devices cannot be used, the run has other options,
            or a model on the front could not be exported.
        KeyboardInterrupt: the search was interrupted. It is saved, and the same call resumes it.

    Examples:
        >>> run = mnas.search(
        ...     data="digits", run="runs/digits", trials=4, epochs=1, fewest_steps=1,
        ...     width=0.25, input_size=8, output_stride=8, latency_budget_s=0.1, max_images_per_class=30,
        ... )
        >>> len(run.trials)
        4
        >>> 0 <= run.best.accuracy <= 1
        True
    """
    options |= {"data": data} if data else {}
    settings = search_settings(joined(options, *_LISTS))
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    try:
        with quiet_optuna(), shown_by(watcher) as listener:
            result = run_search(settings, listener, f"mnas.search({arguments})")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; nothing is lost, and the same call resumes {settings.run}") from None
    if result.failed_exports:
        failures = "; ".join(f"{label}: {reason}" for label, reason in result.failed_exports.items())
        raise RunError(f"some models on the front of {settings.run} could not be exported: {failures}")
    return Run(settings.run)


_WATCHER = inspect.Parameter("watcher", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=Shown)
search.__signature__ = signature_of(SearchSettings, returns=Run, more=(_WATCHER,))  # type: ignore[attr-defined]
