"""`mnas search`: search from a data set and this machine to a Pareto front of models, exported as LiteRT files."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mnas.cli.console import make_console
from mnas.search.settings import SearchSettings, defaults_with

if TYPE_CHECKING:
    from mnas.search.run_search import SearchResult


@dataclass(frozen=True, kw_only=True)
class SearchCommand:
    """Search for image models with the best trade-off between accuracy and latency. The same command resumes an
    interrupted search."""

    settings: SearchSettings
    """Settings of the search."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return option -> default where the given options change it. Raises ValueError for an unknown preset."""
        return defaults_with(given)

    def run(self) -> None:
        """Search, or resume; then export the front and print the recommendation."""
        search_and_conclude(self.settings, make_console())


def search_and_conclude(settings: SearchSettings, console: Console) -> "SearchResult":
    """Search, print the conclusion, and return the result. Raises RunError where a model could not be exported."""
    from mnas.cli.conclusion import conclude  # torch and optuna take seconds to import; help does not need them
    from mnas.cli.progress import watching
    from mnas.search.run_search import run_search
    from mnas.study import RunError

    command = shlex.join(["mnas", *sys.argv[1:]])
    try:
        with watching(console) as watcher:
            result = run_search(settings, watcher, command)
    except KeyboardInterrupt:
        if (settings.run / "study.db").exists():
            console.print(f"stopped; nothing is lost. To resume: {command}")
        raise
    conclude(console, result.run, result.reason, result.objectives, result.dataset)
    if result.failed_exports:
        folder = result.run.path / "front"
        failures = "; ".join(f"{folder / label}: {reason}" for label, reason in result.failed_exports.items())
        raise RunError(
            f"{len(result.failed_exports)} model(s) could not be exported ({failures}); all others are exported, and "
            "the same command retries"
        )
    return result
