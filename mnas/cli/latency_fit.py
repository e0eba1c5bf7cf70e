"""`mnas latency fit`: learn to predict the latency of all members of a space on a device from a sample of them."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.cli.console import make_console
from mnas.latency.prediction.learned import HeldOutScore, kendall_tau
from mnas.latency.prediction.predictor import Predictor
from mnas.measure.fit import LatencyFitSettings, fit_latency
from mnas.nn.cost import cost


@dataclass(frozen=True, kw_only=True)
class LatencyFitCommand:
    """Fit a predictor that estimates the latency of every network in a search space on a device.

    The command measures a sample of the space. Run it again to resume an interrupted fit.
    """

    settings: Annotated[LatencyFitSettings, Parameter(name="*")]
    """Options of the fit."""

    def run(self) -> None:
        """Measure the missing networks, fit and save the predictor, and print its scores."""
        console = make_console()
        with console.status("measuring", spinner="line") as status:
            fit = fit_latency(self.settings, progress=status.update, say=console.print)
        _print_scores(console, fit.predictor)
        console.print(f"predictor saved to {fit.path}")


def _print_scores(console: Console, predictor: Predictor) -> None:
    scores = predictor.learned.held_out
    archs = [predictor.space.decode(sample.indices) for sample in predictor.samples]
    macs = [cost(arch, predictor.input_size, predictor.num_classes).macs for arch in archs]
    table = Table("held-out networks", box=box.SIMPLE)
    for column in ("value", "95 %"):
        table.add_column(column, justify="right")

    def row(name: str, score: HeldOutScore, percent: bool) -> None:
        texts = [f"{100 * v:.1f} %" if percent else f"{v:.3f}" for v in (score.value, score.low, score.high)]
        table.add_row(name, texts[0], f"{texts[1]} to {texts[2]}")

    row("mean error (MAPE)", scores.mape, True)
    row("worst error", scores.worst, True)
    row("Kendall's tau", scores.kendall_tau, False)
    row("Kendall's tau of MACs", kendall_tau(macs, [sample.ratio for sample in predictor.samples]), False)
    console.print(table)
    calibration, parameters = predictor.calibration, predictor.learned.additive.parameters
    console.print(
        f"{scores.networks} networks of {predictor.space.name} at {predictor.input_size} px, each predicted by a fit "
        f"without it; {calibration.device['runtime']}, threads: {calibration.threads}; reference network "
        f"{calibration.reference}: {calibration.reference_ms:.4g} ms; unexplained variation "
        f"{100 * parameters.spreads['noise']:.1f} %",
    )
