"""`mnas bench`: controllers on a benchmark, each with several seeds, in tables and pictures."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mnas.bench.settings import BenchSettings
from mnas.cli.console import make_console, say


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Compare controllers on a benchmark: hypervolume and best reward after so many trials, mean and 95 % interval over
    seeds. Searches are kept in the cache folder: an interrupted bench goes on."""

    settings: Annotated[BenchSettings, Parameter(name="*")]
    """The comparison."""

    def run(self) -> None:
        """Run what is missing, print tables, write page, pictures and numbers."""
        from mnas.bench.run import run_bench  # imported here, as it takes seconds and the help does not need it
        from mnas.cli.bench_tables import tables
        from mnas.report.bench import write_bench

        console = make_console()
        try:
            result = run_bench(self.settings, console.print)
        except KeyboardInterrupt:
            say("stopped; searches that are done are kept: the same command goes on")
            raise
        for table in tables(result):
            console.print(table)
        if result.missing:
            console.print(f"not in this space, so not in the picture: {', '.join(result.missing)}")
        files = write_bench(result, self.settings.out)
        console.print(f"{self.settings.out}: {', '.join(files)}")
