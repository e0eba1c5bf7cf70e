"""`mnas proxy-check`: find the cheapest proxy task that ranks architectures like a long training."""

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mnas.cli.console import Steps, make_console
from mnas.proxycheck.settings import ProxyCheckSettings


@dataclass(frozen=True, kw_only=True)
class ProxyCheckCommand:
    """Find the cheapest proxy task (short training) that ranks architectures like a long training. mnas trains the same
    architectures in both ways. The same command resumes an interrupted check, also with more architectures, seeds or
    proxy tasks."""

    settings: Annotated[ProxyCheckSettings, Parameter(name="*")]
    """Check."""

    def run(self) -> None:
        """Run the missing trainings, and print the result."""
        from mnas.cli.progress import counting  # torch and optuna take seconds to import; help does not need them
        from mnas.cli.proxy_table import print_check
        from mnas.proxycheck.run import run_proxy_check

        console = make_console()
        command = shlex.join(["mnas", *sys.argv[1:]])
        with Steps(console) as steps:
            try:
                check = run_proxy_check(
                    self.settings,
                    say=steps.say,
                    progress=steps.step,
                    counting=lambda total: counting(steps.console, total),
                    command=command,
                )
            except KeyboardInterrupt:
                steps.say(f"stopped; nothing is lost. To resume: {command}")
                raise
        print_check(console, check)
        console.print(f"results: {self.settings.out}")
