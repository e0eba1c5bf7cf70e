"""The report's tables as HTML. `escape` handles every text that may come from a user."""

from collections.abc import Iterable, Sequence

from mnas.evaluate.evaluation import accuracy_noise
from mnas.latency.latency import Latency
from mnas.pages.page import escape
from mnas.report.devices import SharingCost, counted, sharing_costs
from mnas.report.facts import Facts, Result
from mnas.report.sections import accuracy_text, latency_text, origin_text, spread, together
from mnas.shortlist.table import agreement, meaning
from mnas.study import TrialRecord
from mnas.study.limits import LIMITS, Limit
from mnas.study.results import NOT_TRAINED

REASONS = 50
CLASSES = 50
"""Largest number of rows in a table of classes."""
SOURCES_MEAN = (
    "Latencies are measured in this search, cached (measured in an earlier one on the same device), or predicted."
)


def _table(name: str, head: Iterable[str], rows: Iterable[str], kind: str = "numbers", scroll: str = "scroll") -> str:
    """Return a table of rows (HTML) under a head (HTML)."""
    cells = "".join(f"<th>{h}</th>" for h in head)
    return (
        f'<div class="{scroll}"><table class="{kind}" id="{name}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(cells: Iterable[str], kind: str = "") -> str:
    return f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _mb(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 1e6:.2f}"


def _kind(facts: Facts) -> str:
    return "numbers dense" if len(facts.targets_ms) > 1 else "numbers"


def _latency_heads(facts: Facts) -> list[str]:
    """Return one column, or one for each of several devices and one for the combined latency."""
    several = list(facts.targets_ms) if len(facts.targets_ms) > 1 else []
    return [*(escape(device) for device in several), "of T"] if several else ["latency"]


def _latency_cells(facts: Facts, latency: Latency, latencies: Iterable[Latency]) -> list[str]:
    if len(facts.targets_ms) < 2:
        return [latency_text(latency)]
    assert facts.target_ms is not None
    return [*map(latency_text, latencies), f"{latency.latency_ms / facts.target_ms:.2f}"]


def front_table(facts: Facts) -> str:
    """Return the Pareto front, fastest first, and the models that it is compared with."""
    best = facts.chosen
    rewards = ["reward"] if len(facts.goals_ms) < 2 else [f"reward {t:g} ms" for t in facts.goals_ms]
    rows = [
        _row(
            [
                f"{escape(c.label)}{origin_text(c)}",
                *([str(c.input_size)] if facts.has_sizes else []),
                accuracy_text(c),
                *_latency_cells(facts, c.latency, c.latencies.values()),
                *(f"{o.reward(c.accuracy, c.latency_ms):.4f}" for o in facts.objectives),
                f"{c.params / 1e6:.2f}M",
                f"{c.macs / 1e6:,.1f}M",
                _mb(c.size_bytes or None),
                _mb(c.peak_memory_bytes),
            ],
            " ".join(kind for kind, is_it in (("best", c in best), ("reference", bool(c.reference))) if is_it),
        )
        for c in facts.front
    ]
    rows += _reference_rows(facts)
    if not rows:
        return ""
    size = ["input px"] if facts.has_sizes else []
    head = (
        "trial",
        *size,
        facts.metric_name,
        *_latency_heads(facts),
        *rewards,
        "params",
        "MACs",
        "file MB",
        "memory MB",
    )
    untrained = any(reference.error == NOT_TRAINED for reference in facts.references)
    how = "measured but not trained" if untrained else "measured and trained like the candidates"
    of_t = f" The column &quot;of T&quot; contains {escape(together(facts))}." if together(facts) else ""
    return (
        f"{_table('front', head, rows, _kind(facts))}<figcaption>Brackets contain 95 % confidence intervals. "
        f"Rows in italics are reference networks, {how}; those that are not on the "
        f"front are below it. {SOURCES_MEAN}{of_t} Memory is the runtime's peak while it loads the model and runs it "
        "once, or – if no device reports it.</figcaption>"
    )


def parents_table(facts: Facts) -> str:
    """Return every candidate with known weights, fastest first, with the accuracy at each fidelity."""
    trials = [trial for trial in facts.trials if trial.parent and trial.latency]
    if not trials:
        return ""
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.latency_ms or 0.0):
        assert trial.latency is not None
        scores = [
            "–" if evaluation is None else f"{evaluation.score(facts.metric):.2%}"
            for evaluation in (trial.features, trial.evaluation)
        ]
        why = str(trial.skipped or trial.error or "")
        cells = (escape(trial.label), escape(trial.parent), str(trial.input_size), latency_text(trial.latency), *scores)
        rows.append(_row([*cells, escape(why)]))
    epochs = max((trial.evaluation.epochs for trial in trials if trial.evaluation), default=0)
    tuned = f"fine-tuned, epochs: {epochs}" if epochs else "fine-tuned"
    cuts = any(trial.features and trial.features.fidelity == "inherited" for trial in trials)
    cheap = "untrained" if cuts else "frozen features"
    head = ("trial", "network", "input px", "latency", cheap, tuned, "left out because")
    why = (
        f"The {facts.metric_name} of a network as it is cut from its parent, with solved weights, takes seconds;"
        if cuts
        else f"The {facts.metric_name} of a linear classifier on the frozen features takes seconds;"
    )
    return (
        f"{_table('parents', head, rows)}<figcaption>{why} it decides, with the latency, which candidates are "
        "fine-tuned.</figcaption>"
    )


def _reference_rows(facts: Facts) -> list[str]:
    """Return the rows of references that are not on the front."""
    on_front = {c.reference for c in facts.front}
    return [_reference_row(facts, r) for r in facts.references if r.reference not in on_front]


def _reference_row(facts: Facts, reference: TrialRecord) -> str:
    assert reference.latency is not None
    scored = next((c for c in facts.compared if c.reference == reference.reference), None)
    accuracy = "not trained" if reference.accuracy is None else f"{reference.accuracy:.2%}"
    latencies = reference.latencies.values()
    cells = [
        escape(reference.label),
        *([str(reference.input_size)] if facts.has_sizes else []),
        accuracy_text(scored) if scored else accuracy,
        *_latency_cells(facts, reference.latency, latencies),
        *_rewards(facts, scored),
        f"{reference.params / 1e6:.2f}M",
        f"{reference.macs / 1e6:,.1f}M",
        "",
        _mb(max((x.peak_memory_bytes for x in latencies if x.peak_memory_bytes), default=None)),
    ]
    return _row(cells, "reference")


def _rewards(facts: Facts, candidate: Result | None) -> list[str]:
    """Return the reward for each target; empty cells for a network without one."""
    if candidate is None:
        return [""] * max(1, len(facts.goals_ms))
    return [f"{o.reward(candidate.accuracy, candidate.latency_ms):.4f}" for o in facts.objectives]


def full_table(facts: Facts) -> str:
    """Return the fully trained trials, fastest first, with the agreement between proxy and full accuracy."""
    if not facts.trained:
        return ""
    best = max(facts.trained, key=lambda r: r.reward)
    candidates = {c.label: c for c in facts.results}
    rows = [
        _row(
            [
                escape(r.label),
                f"{r.proxy_accuracy:.2%}",
                f"{r.accuracy:.2%}",
                "–" if r.test_accuracy is None else f"{r.test_accuracy:.2%}",
                *_latency_cells(facts, candidates[r.label].latency, candidates[r.label].latencies.values()),
                f"{r.reward:.4f}",
                f"{r.params:,}",
                f"{r.macs / 1e6:,.1f}M",
            ],
            "best" if r is best else "",
        )
        for r in facts.trained
    ]
    head = ("trial", "proxy accuracy", "accuracy", "test accuracy", *_latency_heads(facts), "reward", "params", "MACs")
    return (
        f"{_table('trained', head, rows, _kind(facts))}<figcaption>Accuracy is measured on the validation images "
        "after full training, and the reward uses it. The test images served no other purpose.</figcaption>"
        f"<p>{escape(meaning(agreement(facts.trained)))}</p>"
    )


def recall_table(facts: Facts) -> str:
    """Return the table of the front's recall for each class, the lowest recall first."""
    counts = facts.val_counts
    front = [c for c in facts.front if c.right and len(c.right) == len(counts) == len(facts.classes)]
    if not front:
        return ""
    columns = spread(front, facts.best)
    recalls = {c.label: _recalls(c, counts) for c in columns}
    order = sorted((i for i, count in enumerate(counts) if count), key=lambda i: min(r[i] for r in recalls.values()))
    rows = [
        _row(
            [
                escape(facts.classes[i]),
                f"{counts[i]:,}",
                f"{counts[i] / sum(counts):.1%}",
                *(f"{recall[i]:.1%}" for recall in recalls.values()),
            ]
        )
        for i in order[:CLASSES]
    ]
    means = (f"{sum(recall[i] for i in order) / len(order):.1%}" for recall in recalls.values())
    balanced = [_row(["<i>mean of the classes</i>", "", "", *means])]
    head = ("class", "images", "share", *(escape(c.title) for c in columns))
    lowest = f" The table lists the {CLASSES} lowest of {len(order)} classes." if len(order) > CLASSES else ""
    return (
        f"{_table('recall', head, [*balanced, *rows], scroll='scroll high')}<figcaption>Recall is the share of a "
        "class's validation images that the model recognises; a class that it never predicts has 0 %."
        f"{lowest} The mean over all classes is the balanced accuracy.</figcaption>"
    )


def _recalls(candidate: Result, counts: Sequence[int]) -> list[float]:
    """Return the recall of each class over all repeats; 0 for a class without images."""
    repeats = max(1, len(candidate.accuracies))
    return [right / (repeats * count) if count else 0.0 for right, count in zip(candidate.right, counts, strict=True)]


def sharing_table(facts: Facts) -> str:
    """Return the cost of sharing one model for each of several devices."""
    costs = sharing_costs(facts)
    if not costs:
        return ""
    rows = []
    for cost in costs:
        place = [escape(cost.device), f"{cost.target_ms:#.4g} ms"]
        rows.append(
            _row([*place, *_choice("alone", cost.alone, cost.alone_latency, cost.target_ms, cost.alone_reward)])
        )
        shared = _choice("shared", cost.shared, cost.shared_latency, cost.target_ms, cost.shared_reward)
        rows.append(_row(["", "", *shared], "best"))
        rows.append(_row(["", "", *_difference(cost)], "difference"))
    head = ("device", "T", "model", "trial", "accuracy", "latency", "of T", "reward")
    return (
        f"{_table('sharing', head, rows)}<figcaption>Alone is the trained candidate with the highest reward by this "
        "device's own latency and T; a search for that device alone might have found a better one. A difference in "
        "accuracy within chance is not significant for this number of validation images.</figcaption>"
    )


def _choice(name: str, candidate: Result, latency: Latency, target_ms: float, reward: float) -> list[str]:
    return [
        name,
        escape(candidate.label),
        accuracy_text(candidate),
        latency_text(latency),
        f"{latency.latency_ms / target_ms:.2f}",
        f"{reward:.4f}",
    ]


def _difference(cost: SharingCost) -> list[str]:
    """Return the shared model's numbers against those of the best model for the device alone."""
    if cost.alone is cost.shared:
        return ["difference", "", "none (same model)", "", "", f"{0:+.4f}"]
    lost = cost.shared.accuracy - cost.alone.accuracy
    images = cost.alone.val_images
    chance = images and abs(lost) < accuracy_noise(max(cost.alone.accuracy, cost.shared.accuracy), images)
    slower = cost.shared_latency.latency_ms / cost.alone_latency.latency_ms - 1
    return [
        "difference",
        "",
        f"{100 * lost:+.2f} points{', within chance' if chance else ''}",
        f"{slower:+.1%}",
        f"{(cost.shared_latency.latency_ms - cost.alone_latency.latency_ms) / cost.target_ms:+.2f}",
        f"{-cost.reward_lost:+.4f}",
    ]


def devices_table(facts: Facts) -> str:
    """Return the units of each device, with their calibrations and the number of latencies of each kind."""
    rows = []
    for device, units in facts.calibrations.items():
        latencies = [trial.latencies[device] for trial in facts.trials if trial.latencies]
        for unit in units:
            first = unit is units[0]
            rows.append(
                _row(
                    [
                        escape(device) if first else "",
                        f"{facts.targets_ms[device]:#.4g} ms" if first and device in facts.targets_ms else "",
                        escape(unit["unit"]),
                        f"{unit['reference_ms']:#.4g} ms [{unit['low_ms']:#.4g}, {unit['high_ms']:#.4g}]",
                        f"{unit['unit_scale'] - 1:+.1%}" if len(units) > 1 else "",
                        f"{escape(unit['runtime'])}, {unit['threads']} thread{'s' if unit['threads'] > 1 else ''}",
                        "not pinned" if unit["pinned_core"] is None else str(unit["pinned_core"]),
                        f"{unit['session_error']:.2%}",
                        escape(counted([x for x in latencies if x.unit == unit["unit"] and x.source != "predicted"])),
                        escape(counted([x for x in latencies if x.source == "predicted"])) if first else "",
                    ]
                )
            )
    if not rows:
        return ""
    reference = escape(next(iter(facts.calibrations.values()))[0]["reference"])
    head = ("device", "T", "unit", reference, "offset", "runtime", "core", "repeatability", "latencies", "not measured")
    return (
        f"{_table('devices', head, rows, kind='')}<figcaption>All latencies are relative to {reference}. "
        "Offset is the deviation of a unit from all units of its device; latencies are corrected for it. "
        "Repeatability is the standard deviation between sessions of one unit.</figcaption>"
    )


def reasons(facts: Facts) -> str:
    """Return failed trials by error, and skipped ones by limit with its value; the most frequent first."""
    groups = [("failed", error, numbers) for error, numbers in facts.errors.items()]
    groups += [("skipped", _limit_text(facts, limit), numbers) for limit, numbers in facts.skips.items()]
    if not groups:
        return ""
    groups.sort(key=lambda group: -len(group[2]))
    rows = [
        _row([kind, str(len(numbers)), escape(reason), _numbers(numbers)]) for kind, reason, numbers in groups[:REASONS]
    ]
    more = f"<p class='quiet'>and {len(groups) - REASONS} further reasons</p>" if len(groups) > REASONS else ""
    head = ("", "trials", "reason", "numbers")
    return _table("reasons", head, rows, kind="", scroll="scroll high") + more


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")


def _limit_text(facts: Facts, limit: Limit) -> str:
    """Return `file size over --max-size-mb (2.5 MB)`, with the limit's value in this run."""
    kind, value = LIMITS[limit], facts.attributes.get("config", {}).get(LIMITS[limit].setting)
    return f"{kind.group} ({value:g} {kind.setting_unit})" if isinstance(value, int | float) else kind.group
