"""`mnas report`: write a run's report as one HTML file."""

import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mnas.cli.console import say
from mnas.report.html import write_report


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Rewrite a run's report.html from its recorded trials, even while the search is running."""

    run_dir: Annotated[Path, Parameter(name="RUN")] = field(kw_only=False)
    """Folder of the run, such as runs/search."""
    open_browser: Annotated[bool, Parameter(name="--open")] = False
    """Open the report in the browser."""

    def run(self) -> None:
        """Write the report and print its path. Raises the exceptions of `write_report`."""
        path = write_report(self.run_dir)
        say(str(path))
        if self.open_browser:
            webbrowser.open(path.resolve().as_uri())
