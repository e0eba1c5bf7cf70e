"""Write the report of a run: one HTML file that needs no server and no network, updated during the search."""

from pathlib import Path
from typing import Any

from mnas.atomic import write_atomic
from mnas.pages.page import escape, header, section, subtitle
from mnas.report import sections, tables
from mnas.report.facts import Facts, facts_of
from mnas.report.figures import figures
from mnas.report.page import page
from mnas.report.sections import chart
from mnas.study import Snapshot, read_run

FILE_NAME = "report.html"

ENDED = {
    "trials": "all trials are done",
    "hours": "the time limit is reached",
    "converged": "the controller has converged",
}
"""Reason for which a search ended -> its explanation."""


def write_report(run: Path) -> Path:
    """Write `run`/report.html from the current content of `run`/study.db, also during a search, and return its path.

    Raises:
        ValueError: `run` is no run, or has another version.
        OSError: the file cannot be written; an older report does not change.
    """
    return write_snapshot_report(read_run(run))


def write_snapshot_report(snapshot: Snapshot) -> Path:
    """Write the report from a run in memory, without reading the database; otherwise like `write_report`."""
    path = snapshot.path / FILE_NAME
    write_atomic(path, report_html(snapshot))
    return path


def report_html(snapshot: Snapshot) -> str:
    """Return the run's page."""
    facts = facts_of(snapshot)
    charts = figures(facts)
    return page(f"{facts.name} ({facts.state.status})", [_header(facts), *_sections(facts, charts)], charts)


def _header(facts: Facts) -> str:
    reason = ENDED.get(facts.state.reason, facts.state.reason)
    state = f"{facts.state.status}: {reason}" if reason else facts.state.status
    objective = facts.attributes.get("objective", {})
    weights = f"α = {objective['alpha']:.4g}, β = {objective['beta']:.4g}" if objective else ""
    line = subtitle(
        [
            _input_of(facts),
            _measured_on(facts),
            f"{objective['form']} reward, {weights}" if objective else "",
        ]
    )
    return f'{header(facts.name, state, facts.state.status)}<p class="quiet">{line}</p>{sections.tiles(facts)}'


def _input_of(facts: Facts) -> str:
    """Return `input 224×224`, or `input 64, 96 or 128 px` where the search chooses the size."""
    if facts.has_sizes:
        sizes = facts.input_sizes
        return f"input {', '.join(map(str, sizes[:-1]))} or {sizes[-1]} px"
    return f"input {facts.input_size}×{facts.input_size}" if facts.input_size else ""


def _measured_on(facts: Facts) -> str:
    """Return `latency on phone and board, relative to mobilenetv2`."""
    if not facts.calibrations:
        return ""
    reference = next(iter(facts.calibrations.values()))[0]["reference"]
    return f"latency on {' and '.join(facts.calibrations)}, relative to {reference}"


def _sections(facts: Facts, charts: dict[str, Any]) -> list[str]:
    scatter = _drawn(
        charts,
        "scatter",
        "Every trained candidate. Hover over a point for its architecture. Bars are 95 % confidence intervals of the "
        "latency, including the calibration, and of the accuracy on the validation images. The shape of a point shows "
        "the source of its latency: disc measured, square cached, ring predicted.",
        tall=True,
    )
    histogram = _drawn(
        charts,
        "histogram",
        "All candidates with a latency, including skipped ones. Compare with Figure 6 of the paper.",
    )
    rewards = _drawn(charts, "reward", "Reward of each trial, and the best so far.")
    volume = _drawn(
        charts,
        "hypervolume",
        "Area below the front, above the accuracy of guessing and up to a latency of 2 T, or twice the largest T.",
    )
    full = _drawn(charts, "full", "Labels are trial numbers. On the dashed line, proxy and full accuracy are equal.")
    shares = sections.shares(facts)
    return [
        section("Recommendation", sections.advice(facts), kind="advice"),
        section("Accuracy against latency", _selector(facts), scatter),
        section("Pareto front", tables.front_table(facts)),
        section("Networks with known weights", tables.parents_table(facts)),
        section("Recall by class", tables.recall_table(facts)),
        section("Cost of sharing one model", tables.sharing_table(facts)),
        section("Full training", tables.full_table(facts), full),
        _pair(section("Reward", rewards), section("Hypervolume", volume)),
        section("Latency of sampled networks", histogram),
        *_learnt(charts),
        section("Sampled choices", shares and "<p class='quiet'>Share of all blocks, by trial number.</p>", shares),
        section("Architectures on the front", sections.drawings(facts)),
        section("Failed and skipped trials", tables.reasons(facts)),
        section("Devices", tables.devices_table(facts)),
        section("Provenance", sections.provenance(facts)),
    ]


def _learnt(charts: dict[str, Any]) -> list[str]:
    """Return the sections on the controller's model: that of a surrogate, or a policy."""
    counts = (
        "Importance of each decision in the surrogate's model of {}. The average over decisions with a choice is 1."
    )
    weights = [
        section(f"What matters for {name}", _drawn(charts, f"weights-{name}", counts.format(name)))
        for name in ("accuracy", "latency")
    ]
    fit = _drawn(
        charts,
        "fit",
        "R² of predicting each trial from all others: 1 is a perfect prediction, 0 is no better than the mean.",
    )
    entropy = _drawn(
        charts, "entropy", "Uncertainty of the controller: entropy of its decisions, summed over each block."
    )
    updates = _drawn(charts, "updates", "Size of each update of the policy, and the share of it that was clipped.")
    return [
        _pair(*weights),
        section("Fit of the surrogate", fit),
        _pair(section("Entropy of the controller", entropy), section("Controller updates", updates)),
    ]


def _drawn(charts: dict[str, Any], name: str, caption: str, *, tall: bool = False) -> str:
    """Return the place of a chart; empty without the chart."""
    return chart(name, caption, tall=tall) if name in charts else ""


def _pair(*cards: str) -> str:
    """Return two cards side by side; one where the other is missing."""
    filled = [card for card in cards if card]
    return f'<div class="pair">{"".join(filled)}</div>' if len(filled) == 2 else "".join(filled)


def _selector(facts: Facts) -> str:
    """Return the selector of the device whose latency the scatter shows; empty with a single device."""
    names = [f"all devices together: {sections.together(facts)}", *facts.targets_ms]
    if len(names) < 3 or not (facts.candidates or facts.references):
        return ""
    options = "".join(
        f'<option value="scatter{f"-{i}" if i else ""}">{escape(name)}</option>' for i, name in enumerate(names)
    )
    return f'<label class="quiet">latency of <select data-chart="scatter">{options}</select></label>'
