"""The report's cards, drawings and bars as HTML. `escape` handles every text that may come from a user."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.evaluate.baseline import baseline_line, not_above_baseline
from mnas.latency.latency import Latency
from mnas.objective import Objective, best_at_target, why_not_at_target
from mnas.pages.page import escape
from mnas.pages.page import tiles as row_of_tiles
from mnas.report.cell_diagram import drawing
from mnas.report.facts import Facts, Result, indistinguishable, sampled_shares, thirds
from mnas.study import State
from mnas.study.results import Recommendation

DRAWINGS = 12
"""Largest number of drawn architectures: each is 8 kB, and a reader compares no more."""

SHARE_COLOURS = (
    *("#f2b880", "#9ad6b0", "#9cc3f0", "#bda8ea", "#f0a3a3", "#9fd8df", "#e3d48a", "#c5ccd4"),
    *("#d9a679", "#7fbf97", "#7ba7d9", "#a085d1", "#d68585", "#7fc0c8", "#cbb96b"),
)


def chart(name: str, caption: str, *, tall: bool = False) -> str:
    """Return the place of a figure of figures.py, and its caption (plain text)."""
    return f'<div class="chart{" tall" if tall else ""}" id="{name}"></div><figcaption>{escape(caption)}</figcaption>'


def accuracy_text(candidate: Result) -> str:
    """Return `93.33 % [90.3, 95.5]`."""
    return f"{candidate.accuracy:.2%} [{100 * candidate.accuracy_low:.1f}, {100 * candidate.accuracy_high:.1f}]"


def origin_text(candidate: Result) -> str:
    """Return ` (runs/OLD#17)` as HTML for a result that the search did not draw; empty for the others."""
    return f" ({escape(candidate.origin)})" if candidate.origin else ""


def latency_text(latency: Latency) -> str:
    """Return `1.234 ms [1.221, 1.247] measured` as HTML."""
    return (
        f"{latency.latency_ms:#.4g} ms [{latency.low_ms:#.4g}, {latency.high_ms:#.4g}] "
        f'<i class="source {latency.source}">{latency.source}</i>'
    )


def latencies_text(facts: Facts, candidate: Result) -> str:
    """Return the latency on each of several devices as HTML, with the multiple of its T."""
    if len(facts.targets_ms) < 2:
        return ", ".join(map(latency_text, candidate.latencies.values()))
    return " and ".join(
        f"{escape(device)} {latency_text(latency)} ({latency.latency_ms / facts.targets_ms[device]:.2f} T)"
        for device, latency in candidate.latencies.items()
    )


def together(facts: Facts) -> str:
    """Return, as plain text, how several devices' latencies count as one; empty for one device."""
    if len(facts.targets_ms) < 2:
        return ""
    if weights := facts.attributes["sharing"]["weights"]:
        shares = ", ".join(f"{device} {weight:g}" for device, weight in weights.items())
        return f"the mean multiple of the devices' T, weighted {shares}"
    return "the worst multiple of a device's T"


def tiles(facts: Facts) -> str:
    """Return the run in six numbers."""
    best = facts.best
    counts = {state: facts.count(state) for state in get_args(State)}
    others = [f"{counts[state]} {state}" for state in ("skipped", "failed", "running") if counts[state]] + (
        [f"{facts.imported} imported from earlier runs"] if facts.imported else []
    )
    figures = [
        (
            f"{best.accuracy:.2%}" if best else "–",
            f"{facts.metric_name} of the best ({best.title})" if best else facts.metric_name,
        ),
        _latency_tile(facts, best),
        _target_tile(facts),
        (f"{best.reward:.4f}" if best else "–", "highest reward"),
        (str(len(facts.front)), "models on the Pareto front"),
        (str(counts["complete"]), ", ".join(["trials complete", *others])),
    ]
    return row_of_tiles(figures)


def _latency_tile(facts: Facts, best: Result | None) -> tuple[str, str]:
    if best is None:
        return "–", "its latency"
    if len(facts.targets_ms) < 2:
        return f"{best.latency_ms:#.3g} ms", f"its latency, {best.source}"
    assert facts.target_ms is not None
    return f"{best.latency_ms / facts.target_ms:.2f} T", f"its latency, {best.source}: {together(facts)}"


def _target_tile(facts: Facts) -> tuple[str, str]:
    if facts.target_ms is None:
        return "–", "target latency T"
    if len(facts.goals_ms) > 1:
        return str(
            len(facts.goals_ms)
        ), f"targets T that share all trials: {', '.join(f'{t:g}' for t in facts.goals_ms)} ms"
    if len(facts.targets_ms) < 2:
        return f"{facts.target_ms:#.3g} ms", "target latency T"
    listed = ", ".join(f"{device} {target_ms:#.3g} ms" for device, target_ms in facts.targets_ms.items())
    return str(len(facts.targets_ms)), f"devices, with the target latencies T: {listed}"


def advice(facts: Facts) -> str:
    """Return the recommended model for each target, with the reason."""
    under_way = facts.state.status in ("running", "interrupted")
    if not facts.recommended or (under_way and not facts.candidates):
        return "<p>No candidate has been trained yet.</p>"
    pairs = zip(facts.objectives, facts.recommended, strict=True)
    return "\n".join([*(_advice(facts, objective, wanted) for objective, wanted in pairs), *_baseline(facts)])


def _baseline(facts: Facts) -> list[str]:
    """Return the score of guessing, with a warning where the best is not above it; empty without class counts."""
    counts, best = facts.val_counts, facts.best
    if not sum(counts) or best is None or len(counts) != len(facts.classes):
        return []
    line = baseline_line(facts.metric, counts, facts.classes)
    warning = not_above_baseline(facts.metric, counts, best.val_images, best.accuracy)
    return [f"<p>{escape(part[0].upper() + part[1:].removesuffix('.'))}.</p>" for part in (line, warning) if part]


def _advice(facts: Facts, objective: Objective, wanted: Recommendation) -> str:
    best = facts.result(wanted.best.number)
    single = len(facts.targets_ms) == 1
    target = f", {best.latency_ms / objective.target_latency_ms:.2f} T" if single else ""
    take = f"For {objective.target_latency_ms:g} ms take" if len(facts.goals_ms) > 1 else "Take"
    reward = objective.reward(best.accuracy, best.latency_ms)
    lines = [
        f"<p><b>{take} {escape(best.title)}</b>{_why(facts, objective, wanted)} "
        f"({reward:.4f}), with {facts.metric_name} {accuracy_text(best)} and latency {latencies_text(facts, best)}"
        f"{target}.</p>"
    ]
    for reference in wanted.alike:
        same = facts.result(reference.number)
        lines.append(
            f"<p>On {best.val_images:,} validation images, {escape(same.title)}, the reference network, does "
            f"not differ significantly from {escape(best.title)}: {accuracy_text(same)} at "
            f"{latencies_text(facts, same)}.</p>"
        )
    if wanted.is_reference:
        return "\n".join(lines)
    if why := why_not_at_target(best.latency_ms, [c.latency_ms for c in facts.front], objective.target_latency_ms):
        place = best_at_target([(c.accuracy, c.latency_ms) for c in facts.candidates], objective)
        nearer = "" if place is None else _at_target(facts, facts.candidates[place])
        lines.append(f"<p>{why[0].upper()}{why[1:]}{nearer}.</p>")
    if close := indistinguishable(best, facts.front):
        faster = ((escape(c.label), f"{c.accuracy:.2%}, {_short_latency(facts, c)} {c.source}") for c in close[:4])
        names = ", ".join(f"{label} ({what})" for label, what in faster)
        lines.append(
            f"<p>On {best.val_images:,} validation images, the accuracy of the faster "
            f"{'trials' if len(close) > 1 else 'trial'} {names} does not differ significantly (95 %). Take "
            f"{'one of them' if len(close) > 1 else 'it'} if speed matters more, or compare after full training.</p>"
        )
    slower = [c for c in facts.front if c.accuracy > best.accuracy]
    if slower and objective == facts.objectives[-1]:
        top = slower[-1]
        lines.append(
            f"<p>The most accurate is {escape(top.title)}: {accuracy_text(top)} at {latencies_text(facts, top)}, "
            f"{top.latency_ms / best.latency_ms:.2f} times the latency.</p>"
        )
    return "\n".join(lines)


def _why(facts: Facts, objective: Objective, wanted: Recommendation) -> str:
    """Return the clause between the recommended model and its reward, with the reason."""
    form = escape(objective.form)
    if not wanted.is_reference:
        return f": it has the highest {form} reward on the front"
    if wanted.trial is None:
        return f", the reference network: no candidate of the search finished its training; its {form} reward"
    trial = facts.result(wanted.trial.number)
    close = (
        ", a difference that is not significant" if abs(trial.accuracy - wanted.best.point[0]) < wanted.noise else ""
    )
    reward = objective.reward(trial.accuracy, trial.latency_ms)
    return (
        f", the reference network: it is better than every trial of the search. The best is "
        f"{trial.title} ({form} reward {reward:.4f}, {facts.metric_name} {trial.accuracy:.2%} at "
        f"{_short_latency(facts, trial)}{close}). Its numbers: {form} reward"
    )


def _at_target(facts: Facts, candidate: Result) -> str:
    """Return the clause on the best trial at the target, which follows the reason for another choice."""
    numbers = f"{candidate.accuracy:.2%}, {_short_latency(facts, candidate)}"
    return f"; the best trial at the target is {candidate.number} ({numbers})"


def _short_latency(facts: Facts, candidate: Result) -> str:
    if facts.target_ms is None or len(facts.targets_ms) < 2:
        return f"{candidate.latency_ms:#.3g} ms"
    return f"{candidate.latency_ms / facts.target_ms:.2f} T"


def drawings(facts: Facts) -> str:
    """Return the front's architectures as block diagrams."""
    if not facts.front or facts.input_size is None:
        return ""
    chosen, best = spread(facts.front, facts.best), facts.chosen
    cards = "".join(
        f'<div class="drawing{" best" if c in best else ""}"><b>{escape(c.title)}</b>{origin_text(c)}'
        f"{' · highest reward' if c in best else ''}<dl><dt>{facts.metric_name}</dt><dd>{accuracy_text(c)}</dd>"
        f"{_terms(c)}{_input(c) if facts.has_sizes else ''}<dt>params</dt><dd>{c.params:,}</dd>"
        f"<dt>MACs</dt><dd>{c.macs / 1e6:,.1f}M</dd><dt>file</dt><dd>{_file(c)}</dd></dl>"
        f"{drawing(c.arch, c.input_size or facts.input_size)}{_written(c.arch)}</div>"
        for c in chosen
    )
    note = (
        f"<p class='quiet'>{len(chosen)} of {len(facts.front)} models are drawn.</p>"
        if len(chosen) < len(facts.front)
        else ""
    )
    return f'{note}<div class="drawings">{cards}</div>'


def _input(candidate: Result) -> str:
    return f"<dt>input</dt><dd>{candidate.input_size} px</dd>"


def _file(candidate: Result) -> str:
    """Return the size of the LiteRT file; – where an earlier version did not store it."""
    return f"{candidate.size_bytes / 1e6:.2f} MB" if candidate.size_bytes else "–"


def _written(arch: Architecture) -> str:
    """Return the architecture as text; block strings in it work as a name."""
    if isinstance(arch, Arch):
        title, text = "block strings", escape(",".join(arch.block_strings))
    else:
        title, text = "cells", "<br>".join(map(escape, arch.lines))
    return f"<details><summary class='quiet'>{title}</summary><code>{text}</code></details>"


def _terms(candidate: Result) -> str:
    """Return the latencies below a drawing."""
    several = len(candidate.latencies) > 1
    return "".join(
        f"<dt>{escape(device) if several else 'latency'}</dt><dd>{latency_text(latency)}</dd>"
        for device, latency in candidate.latencies.items()
    )


def spread(front: Sequence[Result], best: Result | None) -> list[Result]:
    """Return at most DRAWINGS members of the front: its ends, the best, and evenly spaced ones."""
    if len(front) <= DRAWINGS:
        return list(front)
    picked = {round(i * (len(front) - 1) / (DRAWINGS - 1)) for i in range(DRAWINGS)}
    if best in front and (place := front.index(best)) not in picked:
        picked.discard(min(picked - {0, len(front) - 1}, key=lambda i: abs(i - place)))
        picked.add(place)
    return [front[i] for i in sorted(picked)]


def shares(facts: Facts) -> str:
    """Return the sampled share of each choice over all blocks, early, midway and late in the search."""
    parts = {name: sampled_shares(trials) for name, trials in thirds(facts.drawn).items()}
    if not parts:
        return ""
    blocks = []
    for decision in dict.fromkeys(decision for part in parts.values() for decision in part):
        of_parts = {name: part.get(decision, {}) for name, part in parts.items()}
        choices = list(dict.fromkeys(choice for part in of_parts.values() for choice in part))
        colour = {choice: SHARE_COLOURS[i % len(SHARE_COLOURS)] for i, choice in enumerate(choices)}
        key = "".join(f'<span><i style="background:{colour[c]}"></i>{escape(c)}</span>' for c in choices)
        rows = "".join(
            f'<div class="share"><span>{escape(name)}</span><div>{_bar(part, colour)}</div></div>'
            for name, part in of_parts.items()
        )
        blocks.append(f'<div><h3>{escape(decision)}</h3><div class="key">{key}</div>{rows}</div>')
    return f'<div class="shares">{"".join(blocks)}</div>'


def _bar(share: dict[str, float], colour: dict[str, str]) -> str:
    return "".join(
        f'<i style="width:{100 * value:.2f}%;background:{colour[choice]}" title="{escape(choice)}: {value:.1%}">'
        f"{f'{value:.0%}' if value >= 0.1 else ''}</i>"
        for choice, value in share.items()
    )


def provenance(facts: Facts) -> str:
    """Return the provenance of the numbers: data, devices, versions, seed, command, calibrations, configuration."""
    groups = {name: facts.attributes.get(name) for name in ("provenance", "objective", "sharing")}
    if len(facts.goals_ms) > 1:
        groups["targets"] = {f"T {number}": f"{t:g} ms" for number, t in enumerate(facts.goals_ms, 1)}
    groups["calibrations"] = {
        device: {unit["unit"]: unit for unit in units} for device, units in facts.calibrations.items()
    }
    groups["imported trials"] = facts.imported_from
    groups["config"] = facts.attributes.get("config")
    tables = [
        f'<h3>{name}</h3><div class="scroll high"><table><tbody>'
        + "".join(f'<tr><th>{escape(k)}</th><td class="value">{escape(v)}</td></tr>' for k, v in _flat(values))
        + "</tbody></table></div>"
        for name, values in groups.items()
        if values
    ]
    return "".join(tables)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested mappings under dotted names; lists stay JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
