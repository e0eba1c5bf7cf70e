"""`mnas report`: a run as one HTML file."""

import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mnas.cli.console import say
from mnas.report.html import write_report


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Write a run's report.html anew from its study, also while the search is running."""

    run_dir: Annotated[Path, Parameter(name="RUN")] = field(kw_only=False)
    """The run's directory, such as runs/search."""
    open_browser: Annotated[bool, Parameter(name="--open")] = False
    """Also open it in the browser."""

    def run(self) -> None:
        """Write the file and print its path."""
        path = write_report(self.run_dir)
        say(str(path))
        if self.open_browser:
            webbrowser.open(path.resolve().as_uri())
