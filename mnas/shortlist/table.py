"""What full training made of a run's shortlist, beside what the proxy had said of it."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mnas.evaluate.evaluation import Metric
from mnas.latency.latency import Source
from mnas.objective import Objective
from mnas.readers import read_json
from mnas.study import RunError, Snapshot, needed, trained_path
from mnas.study.results import metric_of, results_of

FILE_NAME = "table.csv"
"""In the run's trained/."""

FEW = 5
"""Models; with four, even the very same order has p = 0.08."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fully trained trial."""

    trial: int | str
    """Its number, or a reference's name."""
    proxy_accuracy: float
    """Of the search, on its validation images."""
    accuracy: float
    """After full training, on the validation images."""
    test_accuracy: float | None
    """On the test images, which nothing was chosen by; None where the data has none."""
    latency_ms: float
    low_ms: float
    """95 % interval."""
    high_ms: float
    source: Source
    """Whether that was measured in this search, is known from an earlier one, or predicted."""
    params: int
    macs: int
    reward: float
    """Of `accuracy` and `latency_ms`."""

    @property
    def label(self) -> str:
        """The part after # in runs/NAME#17."""
        return str(self.trial)

    @property
    def title(self) -> str:
        """`trial 17`, or a reference's name."""
        return f"trial {self.trial}" if self.label.isdecimal() else self.label


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far proxy and full accuracy put models in the same order; NaN where all of either are equal."""

    models: int
    kendall: float
    """tau-b, -1 to 1."""
    p: float
    """How probable a tau as far from 0 is between orders that have nothing to do with each other."""
    spearman: float
    pairs: int
    """Of models that differ in both accuracies."""
    concordant: int
    """Those of them that both put in the same order."""


def finished_rows(run: Snapshot) -> list[Row]:
    """The run's fully trained trials, fastest first.

    Raises:
        RunError: a result is damaged.
    """
    labels = {path.parent.name for path in run.path.glob("trained/*/result.json")}
    metric = metric_of(run.attributes)
    rows = []
    for trial in results_of(run):
        if trial.state == "complete" and trial.label in labels:
            accuracy, test_accuracy = _accuracies(trained_path(run.path, trial.label) / "result.json", metric)
            proxy_accuracy, latency_ms = trial.point
            assert trial.latency is not None
            rows.append(
                Row(
                    trial=trial.number if trial.number >= 0 else trial.label,
                    proxy_accuracy=proxy_accuracy,
                    accuracy=accuracy,
                    test_accuracy=test_accuracy,
                    latency_ms=latency_ms,
                    low_ms=trial.latency.low_ms,
                    high_ms=trial.latency.high_ms,
                    source=trial.source,
                    params=trial.params,
                    macs=trial.macs,
                    reward=Objective(**needed(run.path, run.attributes, "objective")).reward(accuracy, latency_ms),
                )
            )
    return sorted(rows, key=lambda row: (row.latency_ms, row.label))


def _accuracies(path: Path, metric: Metric) -> tuple[float, float | None]:
    """Return the score on validation and on test images, by the search's metric."""
    kind = "" if metric == "accuracy" else "balanced_"
    try:
        result = read_json(path)
        test = result[f"test_{kind}accuracy"]
        return float(result[f"{kind}accuracy"]), None if test is None else float(test)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} must be a training's result, but got {error!r}; remove its folder") from None


def table_csv(rows: Sequence[Row]) -> str:
    """The rows as a file for spreadsheets; no test accuracy is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def agreement(rows: Sequence[Row]) -> Agreement:
    """The rank correlation of proxy and full accuracy."""
    from scipy.stats import kendalltau, spearmanr  # takes a second

    proxy, full = [row.proxy_accuracy for row in rows], [row.accuracy for row in rows]
    signs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in itertools.combinations(zip(proxy, full, strict=True), 2)]
    constant = len(set(proxy)) < 2 or len(set(full)) < 2
    kendall = (math.nan, math.nan) if constant else kendalltau(proxy, full)
    return Agreement(
        models=len(rows),
        kendall=float(kendall[0]),
        p=float(kendall[1]),
        spearman=math.nan if constant else float(spearmanr(proxy, full)[0]),
        pairs=sum(sign != 0 for sign in signs),
        concordant=sum(sign > 0 for sign in signs),
    )


def meaning(ranks: Agreement) -> str:
    """What that says for trusting the proxy, in a sentence or two."""
    if math.isnan(ranks.kendall):
        return (
            f"{ranks.models} model(s) without differences in accuracy have no order, so nothing is known of the proxy"
        )
    fact = (
        f"of two models the proxy put the one first that is better after full training in {ranks.concordant} of "
        f"{ranks.pairs} pairs (Kendall's tau {ranks.kendall:.2f}, p = {ranks.p:.2g}; Spearman {ranks.spearman:.2f}; "
        f"{ranks.models} models)"
    )
    if ranks.models < FEW:
        return f"{fact}; so few models say little of the proxy: train more of them (--top)"
    if ranks.p >= 0.05:
        return f"{fact}; that may be chance: choose by the full accuracies, not by the proxy's"
    if ranks.kendall < 0:
        return f"{fact}: the proxy's order is the wrong way round; search with a longer proxy (--epochs, --repeats)"
    if ranks.concordant < 0.8 * ranks.pairs:
        return f"{fact}; more than chance, but models close to each other have to be trained in full to be compared"
    return f"{fact}: the proxy's order can be trusted, for models like these"
