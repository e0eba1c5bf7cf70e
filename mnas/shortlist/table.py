"""The fully trained models of a run with their proxy accuracies: rows, a CSV file, and the agreement of both rankings.

The proxy is the short training by which a search ranks its candidates.
"""

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
from mnas.study import RunError, Snapshot, TrialRecord, needed, trained_path
from mnas.study.results import metric_of, results_of

FILE_NAME = "table.csv"
"""Name of the table in the run's folder trained/."""

FEWEST_MODELS = 5
"""Smallest number of models at which an agreement can be significant: with four, even identical orders have p =
0.08."""

SIGNIFICANT_P = 0.05
"""Value of p from which on chance may explain an agreement."""

TRUSTED_SHARE = 0.8
"""Share of concordant pairs from which on the proxy's ranking is good enough to choose by."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fully trained trial, or a fully trained reference network."""

    trial: int | str
    """Number of the trial, or name of the reference."""
    proxy_accuracy: float
    """Accuracy in the search, on the validation images."""
    accuracy: float
    """Accuracy after full training, on the validation images."""
    test_accuracy: float | None
    """Accuracy after full training on the test images, which no choice uses; None if the data has none."""
    latency_ms: float
    low_ms: float
    """Lower end of the latency's 95 % interval, in ms."""
    high_ms: float
    """Upper end of the latency's 95 % interval, in ms."""
    source: Source
    """Source of the latency: measured in this search, cached from an earlier one, or predicted."""
    params: int
    macs: int
    """Multiply-accumulates per image."""
    reward: float
    """Reward of `accuracy` and `latency_ms` under the run's objective."""

    @property
    def label(self) -> str:
        """Return the model's name within its run: the part after # in runs/NAME#17."""
        return str(self.trial)

    @property
    def title(self) -> str:
        """Return the model's name in a sentence: `trial 17`, or the reference's name."""
        return f"trial {self.trial}" if self.label.isdecimal() else self.label


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of the rankings by proxy and full accuracy. Correlations and p are NaN if either is constant."""

    models: int
    """Number of models."""
    kendall: float
    """Kendall's rank correlation tau-b, from -1 to 1."""
    p: float
    """Probability that two independent rankings give a tau at least as far from 0."""
    spearman: float
    """Spearman's rank correlation, from -1 to 1."""
    pairs: int
    """Number of pairs of models that differ in both accuracies."""
    concordant: int
    """Number of these pairs that both accuracies order alike."""


def finished_rows(run: Snapshot) -> list[Row]:
    """Return the run's fully trained trials and references, fastest first.

    Raises:
        RunError: a result is damaged.
    """
    labels = {path.parent.name for path in run.path.glob("trained/*/result.json")}
    rows = [_row(run, trial) for trial in results_of(run) if trial.state == "complete" and trial.label in labels]
    return sorted(rows, key=lambda row: (row.latency_ms, row.label))


def _row(run: Snapshot, trial: TrialRecord) -> Row:
    result = trained_path(run.path, trial.label) / "result.json"
    accuracy, test_accuracy = _accuracies(result, metric_of(run.attributes))
    proxy_accuracy, latency_ms = trial.point
    assert trial.latency is not None
    return Row(
        trial=trial.number if trial.number >= 0 else trial.label,  # references have numbers below 0
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


def _accuracies(path: Path, metric: Metric) -> tuple[float, float | None]:
    """Return a training's validation and test scores under the search's metric, from its result.json."""
    prefix = "" if metric == "accuracy" else "balanced_"
    try:
        result = read_json(path)
        test = result[f"test_{prefix}accuracy"]
        return float(result[f"{prefix}accuracy"]), None if test is None else float(test)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is not the result of a training ({error!r}); remove it, and use mnas train --top to write it again"
        ) from None


def table_csv(rows: Sequence[Row]) -> str:
    """Return the rows as a CSV file with a header; a missing test accuracy is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def agreement(rows: Sequence[Row]) -> Agreement:
    """Return the rank correlations between proxy and full accuracy."""
    from scipy.stats import kendalltau, spearmanr  # takes a second to import

    proxy, full = [row.proxy_accuracy for row in rows], [row.accuracy for row in rows]
    # positive where both accuracies order a pair alike, 0 where it is tied in one of them
    signs = [(p - q) * (f - g) for (p, f), (q, g) in itertools.combinations(zip(proxy, full, strict=True), 2)]
    kendall = p_value = spearman = math.nan
    if len(set(proxy)) > 1 and len(set(full)) > 1:
        kendall, p_value = kendalltau(proxy, full)
        spearman = spearmanr(proxy, full)[0]
    return Agreement(
        models=len(rows),
        kendall=float(kendall),
        p=float(p_value),
        spearman=float(spearman),
        pairs=sum(sign != 0 for sign in signs),
        concordant=sum(sign > 0 for sign in signs),
    )


def meaning(ranks: Agreement) -> str:
    """Return whole sentences on how far the proxy task can be trusted, and the advice that follows."""
    if math.isnan(ranks.kendall):
        if ranks.models < 2:
            return "Judging the proxy task needs at least two fully trained models; train more with a larger --top."
        return "The models do not differ in proxy or full accuracy, so they cannot show how well the proxy task ranks."
    fact = (
        f"The proxy task and full training agree on the better model in {ranks.concordant} of {ranks.pairs} pairs "
        f"(Kendall's tau {ranks.kendall:.2f}, p = {ranks.p:.2g}; Spearman {ranks.spearman:.2f}; {ranks.models} models)."
    )
    if ranks.models < FEWEST_MODELS:
        return f"{fact} These are too few models to judge the proxy task; train more of them with a larger --top."
    if ranks.p >= SIGNIFICANT_P:
        return f"{fact} This may be chance, so choose by the full accuracies, not by the proxy accuracies."
    if ranks.kendall < 0:
        return f"{fact} The proxy task reverses the order; search with a longer proxy task (--epochs, --repeats)."
    if ranks.concordant < TRUSTED_SHARE * ranks.pairs:
        return f"{fact} This is more than chance, but train models of similar accuracy in full before you choose."
    return f"{fact} The order of the proxy task can be trusted for models like these."
