"""`mnas proxy-check`: find the cheapest short training that ranks architectures as a long one does."""

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mnas.cli.console import Steps, make_console
from mnas.proxycheck.settings import ProxyCheckSettings


@dataclass(frozen=True, kw_only=True)
class ProxyCheckCommand:
    """Train a spread of architectures in cheap ways and in a long one, and say which cheap way ranks them as the long
    one does. The same command goes on where it was interrupted, also with more architectures, seeds or ways.
    """

    settings: Annotated[ProxyCheckSettings, Parameter(name="*")]
    """The check."""

    def run(self) -> None:
        """Train what is missing, and print the result."""
        from mnas.cli.progress import counting  # torch and optuna take seconds; the help needs neither
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
                steps.say(f"stopped; nothing is lost. To go on: {command}")
                raise
        print_check(console, check)
        console.print(f"trainings and result: {self.settings.out}")
