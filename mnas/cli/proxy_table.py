"""The table that `mnas proxy-check` prints, and its recommendation."""

import math

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.proxycheck.check import ProxyCheck, recommendation, score_text


def print_check(console: Console, check: ProxyCheck) -> None:
    """Print the table, and which setting to take."""
    table = Table(
        *("epochs", "images", "px", "tau against reference", "tau between seeds", "accuracy", "std of seeds"),
        *("seconds", "of reference"),
        box=box.SIMPLE,
    )
    rows = [
        *zip(check.settings, check.agreements, check.seconds, strict=False),
        (check.reference, check.itself, check.seconds[-1]),
    ]
    recommended = check.recommended
    for setting, agreement, seconds in rows:
        reference = setting is check.reference
        table.add_row(
            str(setting.epochs),
            f"{setting.image_share:.0%}",
            str(setting.input_size),
            "reference" if reference else score_text(agreement.tau),
            score_text(agreement.tau_between_seeds),
            f"{agreement.mean_accuracy:.4f}",
            "-" if math.isnan(agreement.accuracy_std) else f"{agreement.accuracy_std:.4f}",
            f"{seconds:.2f}",
            f"{seconds / check.seconds[-1]:.1%}",
            style="bold" if setting is recommended else "",
        )
    console.print(table)
    console.print(
        f"tau: of one training, against the mean of {check.seeds} of {check.reference.epochs} epochs; in brackets 95 % "
        f"intervals, by drawing the {len(check.archs)} architectures again",
    )
    if check.failed:
        console.print(f"{check.failed} trainings failed; where one did, its architecture does not count")
    for line in recommendation(check):
        console.print(line)
