"""The report's tables, cards and bars as HTML. Everything that may come from a user passes through `escape`."""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from optuna.trial import TrialState

from mnas.report.diagram import arch_svg
from mnas.report.facts import Candidate, Facts, indistinguishable, sampled_shares, thirds
from mnas.shortlist.table import agreement, meaning

DRAWINGS = 12
"""At most so many architectures are drawn: each is 8 kB, and a reader compares no more."""

REASONS = 50
SHARE_COLOURS = ("#f2b880", "#9ad6b0", "#9cc3f0", "#bda8ea", "#f0a3a3", "#9fd8df", "#e3d48a", "#c5ccd4")


def escape(value: object) -> str:
    """`value` as text that HTML reads as nothing but text, in attributes too."""
    return html.escape(str(value), quote=True)


def section(title: str, *parts: str, kind: str = "") -> str:
    """A card with a heading (plain text) over parts (HTML); nothing if all parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f'<section class="{kind}"><h2>{escape(title)}</h2>\n{body}\n</section>' if body else ""


def chart(name: str, caption: str, *, tall: bool = False) -> str:
    """The place of a figure of figures.py, and its caption (plain text)."""
    return f'<div class="chart{" tall" if tall else ""}" id="{name}"></div><figcaption>{escape(caption)}</figcaption>'


def accuracy_text(candidate: Candidate) -> str:
    """`93.33 % [90.3, 95.5]`."""
    return f"{candidate.accuracy:.2%} [{100 * candidate.accuracy_low:.1f}, {100 * candidate.accuracy_high:.1f}]"


def latency_text(low_high: Candidate) -> str:
    """`1.234 ms [1.221, 1.247]`."""
    return f"{low_high.latency_ms:#.4g} ms [{low_high.low_ms:#.4g}, {low_high.high_ms:#.4g}]"


def tiles(facts: Facts) -> str:
    """The run in six numbers."""
    best = facts.best
    counts = {state: facts.count(state) for state in TrialState}
    others = [
        f"{counts[state]} {word}"
        for state, word in (
            (TrialState.PRUNED, "skipped"),
            (TrialState.FAIL, "failed"),
            (TrialState.RUNNING, "running"),
        )
        if counts[state]
    ]
    shown = [
        (
            f"{best.accuracy:.2%}" if best else "–",
            f"accuracy of the best (trial {best.number})" if best else "accuracy",
        ),
        (f"{best.latency_ms:#.3g} ms" if best else "–", "its latency"),
        (f"{facts.target_ms:#.3g} ms" if facts.target_ms else "–", "target latency T"),
        (f"{best.reward:.4f}" if best else "–", "highest reward"),
        (str(len(facts.front)), "models on the Pareto front"),
        (str(counts[TrialState.COMPLETE]), ", ".join(["trials complete", *others])),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(text)}</span></div>' for n, text in shown)
        + "</div>"
    )


def advice(facts: Facts) -> str:
    """Which model to take, and why."""
    best = facts.best
    if best is None:
        return "<p>No candidate has been trained yet.</p>"
    target = f", {best.latency_ms / facts.target_ms:.2f} T" if facts.target_ms else ""
    form = facts.attributes.get("objective", {}).get("form", "")
    lines = [
        f"<p><b>Take trial {best.number}</b>: it has the highest {escape(form)} reward ({best.reward:.4f}), with "
        f"accuracy {accuracy_text(best)} and latency {latency_text(best)}{target}.</p>"
    ]
    if close := indistinguishable(best, facts.front):
        names = ", ".join(f"{c.number} ({c.accuracy:.2%}, {c.latency_ms:#.3g} ms)" for c in close[:4])
        lines.append(
            f"<p>On {best.val_images:,} validation images the faster {'trials' if len(close) > 1 else 'trial'} {names} "
            "cannot be told from it in accuracy (95 %): take one of them where speed matters more, or compare after "
            "full training.</p>"
        )
    slower = [c for c in facts.front if c.accuracy > best.accuracy]
    if slower:
        top = slower[-1]
        lines.append(
            f"<p>The most accurate is trial {top.number}: {accuracy_text(top)} at {latency_text(top)}, "
            f"{top.latency_ms / best.latency_ms:.2f} times as slow.</p>"
        )
    return "\n".join(lines)


def front_table(facts: Facts) -> str:
    """The Pareto front, fastest first, and the models that it is compared with."""
    rows = [
        f'<tr class="{"best" if c is facts.best else ""}"><td>{c.number}</td><td>{accuracy_text(c)}</td>'
        f"<td>{latency_text(c)}</td><td>{c.reward:.4f}</td><td>{c.params:,}</td><td>{c.macs / 1e6:,.1f}M</td>"
        f"<td>{c.size_bytes / 1e6:.2f} MB</td></tr>"
        for c in facts.front
    ]
    rows += [
        f'<tr class="reference"><td>{escape(r["name"])}</td>'
        f"<td>{'not trained' if r['accuracy'] is None else format(r['accuracy'], '.2%')}</td>"
        f"<td>{r['latency']['latency_ms']:#.4g} ms [{r['latency']['low_ms']:#.4g}, {r['latency']['high_ms']:#.4g}]</td>"
        f"<td></td><td>{r['params']:,}</td><td>{r['macs'] / 1e6:,.1f}M</td><td></td></tr>"
        for r in facts.references
    ]
    if not rows:
        return ""
    head = "".join(f"<th>{h}</th>" for h in ("trial", "accuracy", "latency", "reward", "params", "MACs", "file"))
    return (
        f'<div class="scroll"><table class="numbers" id="front"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><figcaption>In brackets: 95 % intervals. In italics: reference "
        "models, measured and trained like the candidates.</figcaption>"
    )


def full_table(facts: Facts) -> str:
    """The trials that were trained in full, fastest first, and what they say of the proxy."""
    if not facts.trained:
        return ""
    best = max(facts.trained, key=lambda r: r.reward)
    rows = "".join(
        f'<tr class="{"best" if r is best else ""}"><td>{r.trial}</td><td>{r.proxy_accuracy:.2%}</td>'
        f"<td>{r.accuracy:.2%}</td><td>{'–' if r.test_accuracy is None else format(r.test_accuracy, '.2%')}</td>"
        f"<td>{r.latency_ms:#.4g} ms [{r.low_ms:#.4g}, {r.high_ms:#.4g}]</td><td>{r.reward:.4f}</td>"
        f"<td>{r.params:,}</td><td>{r.macs / 1e6:,.1f}M</td></tr>"
        for r in facts.trained
    )
    names = ("trial", "proxy accuracy", "accuracy", "test accuracy", "latency", "reward", "params", "MACs")
    return (
        f'<div class="scroll"><table class="numbers" id="trained"><thead><tr>{"".join(f"<th>{n}</th>" for n in names)}'
        f"</tr></thead><tbody>{rows}</tbody></table></div><figcaption>Accuracy on the validation images after full "
        "training, and the reward with it; the test images were used for nothing else.</figcaption>"
        f"<p>{escape(meaning(agreement(facts.trained)))}.</p>"
    )


def drawings(facts: Facts) -> str:
    """The front's architectures as block diagrams."""
    if not facts.front or facts.input_size is None:
        return ""
    chosen = _spread(facts.front, facts.best)
    cards = "".join(
        f'<div class="drawing{" best" if c is facts.best else ""}"><b>trial {c.number}</b>'
        f"{' · highest reward' if c is facts.best else ''}<dl><dt>accuracy</dt><dd>{accuracy_text(c)}</dd>"
        f"<dt>latency</dt><dd>{latency_text(c)}</dd><dt>params</dt><dd>{c.params:,}</dd>"
        f"<dt>MACs</dt><dd>{c.macs / 1e6:,.1f}M</dd></dl>{arch_svg(c.arch, facts.input_size)}"
        f"<details><summary class='quiet'>block strings</summary><code>{escape(','.join(c.arch.block_strings))}</code>"
        "</details></div>"
        for c in chosen
    )
    note = f"<p class='quiet'>{len(chosen)} of {len(facts.front)} drawn.</p>" if len(chosen) < len(facts.front) else ""
    return f'{note}<div class="drawings">{cards}</div>'


def _spread(front: Sequence[Candidate], best: Candidate | None) -> list[Candidate]:
    """At most DRAWINGS of the front: its ends, the best, and evenly between."""
    if len(front) <= DRAWINGS:
        return list(front)
    picked = {round(i * (len(front) - 1) / (DRAWINGS - 1)) for i in range(DRAWINGS)}
    if best in front and (place := front.index(best)) not in picked:
        picked.discard(min(picked - {0, len(front) - 1}, key=lambda i: abs(i - place)))
        picked.add(place)
    return [front[i] for i in sorted(picked)]


def shares(facts: Facts) -> str:
    """What was sampled: each choice's share of all blocks, early, in the middle and late."""
    parts = {name: sampled_shares(trials) for name, trials in thirds(facts.trials).items()}
    if not parts:
        return ""
    blocks = []
    for decision in next(iter(parts.values())):
        choices = list(dict.fromkeys(choice for part in parts.values() for choice in part[decision]))
        colour = {choice: SHARE_COLOURS[i % len(SHARE_COLOURS)] for i, choice in enumerate(choices)}
        key = "".join(f'<span><i style="background:{colour[c]}"></i>{escape(c)}</span>' for c in choices)
        rows = "".join(
            f'<div class="share"><span>{escape(name)}</span><div>{_bar(part[decision], colour)}</div></div>'
            for name, part in parts.items()
        )
        blocks.append(f'<div><h3>{escape(decision)}</h3><div class="key">{key}</div>{rows}</div>')
    return f'<div class="shares">{"".join(blocks)}</div>'


def _bar(share: dict[str, float], colour: dict[str, str]) -> str:
    return "".join(
        f'<i style="width:{100 * value:.2f}%;background:{colour[choice]}" title="{escape(choice)}: {value:.1%}">'
        f"{f'{value:.0%}' if value >= 0.1 else ''}</i>"
        for choice, value in share.items()
    )


def reasons(facts: Facts) -> str:
    """Failed and skipped trials, by reason."""
    groups = list(facts.reasons.items())
    if not groups:
        return ""
    rows = "".join(
        f'<tr><td>{kind}</td><td>{len(numbers)}</td><td class="value">{escape(reason)}</td>'
        f"<td>{', '.join(map(str, numbers[:20]))}{', …' if len(numbers) > 20 else ''}</td></tr>"
        for (kind, reason), numbers in groups[:REASONS]
    )
    left = f"<p class='quiet'>and {len(groups) - REASONS} further reasons</p>" if len(groups) > REASONS else ""
    return (
        '<div class="scroll high"><table id="reasons"><thead><tr><th></th><th>trials</th><th>reason</th>'
        f"<th>numbers</th></tr></thead><tbody>{rows}</tbody></table></div>{left}"
    )


def provenance(facts: Facts) -> str:
    """Where the numbers come from: data, device, versions, seed, command, configuration."""
    groups = {name: facts.attributes.get(name) for name in ("provenance", "objective", "calibration", "config")}
    tables = [
        f'<h3>{name}</h3><div class="scroll high"><table><tbody>'
        + "".join(f'<tr><th>{escape(k)}</th><td class="value">{escape(v)}</td></tr>' for k, v in _flat(values))
        + "</tbody></table></div>"
        for name, values in groups.items()
        if values
    ]
    return "".join(tables)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted names; lists stay JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def subtitle(parts: Iterable[object]) -> str:
    """Parts that are known, joined by dots."""
    return " · ".join(escape(p) for p in parts if p)
