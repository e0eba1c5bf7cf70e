"""`mnas bench`: compare controllers on a benchmark, each with several seeds, in tables and figures."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mnas.bench.settings import BenchSettings
from mnas.cli.console import make_console, say


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Compare controllers on a benchmark by hypervolume and best reward, each the mean over seeds with its 95 %
    confidence interval. Finished searches are cached, and the same command resumes an interrupted comparison."""

    settings: Annotated[BenchSettings, Parameter(name="*")]
    """Comparison."""

    def run(self) -> None:
        """Run the missing searches, print the tables, and write the page, the figures and the numbers."""
        from mnas.bench.run import run_bench  # takes seconds to import; help does not need it
        from mnas.cli.bench_tables import tables
        from mnas.report.bench import write_bench

        console = make_console()
        try:
            result = run_bench(self.settings, console.print)
        except KeyboardInterrupt:
            say("stopped; finished searches are cached, and the same command resumes")
            raise
        for table in tables(result):
            console.print(table)
        if result.missing:
            console.print(f"not in this search space, and therefore not in the figure: {', '.join(result.missing)}")
        files = write_bench(result, self.settings.out)
        console.print(f"{self.settings.out}: {', '.join(files)}")
