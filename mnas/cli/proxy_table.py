"""The table that `mnas proxy-check` prints, and its recommendation."""

import math

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.proxycheck.agreement import ProxyAgreement
from mnas.proxycheck.check import ProxyCheck, recommendation, score_text
from mnas.proxycheck.plan import Setting


def print_check(console: Console, check: ProxyCheck) -> None:
    """Print the table, what its columns mean, and the recommendation."""
    console.print(_table(check))
    console.print(
        f"tau: Kendall's rank correlation of one training with the mean of {check.seeds} reference training(s) of "
        f"{check.reference.epochs} epochs, with its 95 % confidence interval (bootstrap over the {len(check.archs)} "
        "architectures)",
    )
    if check.failed:
        console.print(
            f"{check.failed} training(s) failed; each tau excludes the architectures with a failed training in its "
            "setting or in the reference",
        )
    for line in recommendation(check):
        console.print(line)


def _table(check: ProxyCheck) -> Table:
    """Return the table of settings, with the recommended one in bold and the reference last."""
    table = Table(
        *("epochs", "images", "input size", "tau with reference", "tau between seeds", "accuracy", "std of seeds"),
        *("seconds", "of reference time"),
        box=box.SIMPLE,
    )
    *settings_s, reference_s = check.seconds
    recommended = check.recommended
    for setting, agreement, train_s in zip(check.settings, check.agreements, settings_s, strict=True):
        tau = score_text(agreement.tau)
        style = "bold" if setting is recommended else ""
        table.add_row(*_cells(setting, agreement, tau, train_s, reference_s), style=style)
    table.add_row(*_cells(check.reference, check.itself, "reference", reference_s, reference_s))
    return table


def _cells(setting: Setting, agreement: ProxyAgreement, tau: str, train_s: float, reference_s: float) -> list[str]:
    return [
        str(setting.epochs),
        f"{setting.image_share:.0%}",
        str(setting.input_size),
        tau,
        score_text(agreement.tau_between_seeds),
        f"{agreement.mean_accuracy:.4f}",
        "-" if math.isnan(agreement.accuracy_std) else f"{agreement.accuracy_std:.4f}",
        f"{train_s:.2f}",
        f"{train_s / reference_s:.1%}",
    ]
