"""The report's charts as Plotly figures in plain dicts, ready for JSON: {"data": [...], "layout": {...}}.

Colours of text and grid are the page's business (page.js), so that a chart follows the reader's light or dark theme.
Text that comes from users is escaped here: Plotly reads hover text and labels as a small HTML.
"""

import html
import math
from typing import Any

from mnas.report.facts import Candidate, Facts

Figure = dict[str, Any]

BLUE, RED, GREEN, GREY, VIOLET, AMBER = "#3b7dd8", "#d9482b", "#2f9e64", "#8793a3", "#8663c7", "#d98c1f"
REFERENCE_COLOURS = (GREEN, AMBER, VIOLET)
LEGEND_BELOW = {"orientation": "h", "y": -0.3, "yanchor": "top"}
BLOCK_COLOURS = (BLUE, RED, GREEN, VIOLET, AMBER, "#1f9aa8", "#c2478f", GREY)


def figures(facts: Facts) -> dict[str, Figure]:
    """element id -> figure; only those for which there is something to show."""
    charts: dict[str, Figure] = {}
    if facts.candidates or facts.references:
        charts["scatter"] = scatter(facts)
    if facts.measured_ms:
        charts["histogram"] = histogram(facts)
    if facts.candidates:
        charts["reward"] = rewards(facts)
    if facts.updates:
        charts["hypervolume"] = hypervolumes(facts)
    if any(u.block_entropies for u in facts.updates):
        charts["entropy"] = entropies(facts)
    if any("kl" in u.diagnostics for u in facts.updates):
        charts["updates"] = update_sizes(facts)
    if len(facts.trained) > 1:
        charts["full"] = full_against_proxy(facts)
    return charts


def _escape(text: object) -> str:
    return html.escape(str(text), quote=False)


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True, "zeroline": False, **more}


def _layout(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"xaxis": x, "yaxis": y, "margin": {"l": 48, "r": 12, "t": 34, "b": 44}, **more}


def _target_line(target_ms: float | None) -> dict[str, Any]:
    """A vertical line at T with its label."""
    if target_ms is None:
        return {}
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    return {
        "shapes": [{"type": "line", "x0": target_ms, "x1": target_ms, "y0": 0, "y1": 1, "yref": "paper", "line": line}],
        "annotations": [
            {
                "x": target_ms,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "text": f"T = {target_ms:#.3g} ms",
                "showarrow": False,
            }
        ],
    }


def _hover(candidate: Candidate) -> str:
    """What a trial's tooltip says."""
    c = candidate
    lines = [
        f"<b>trial {c.number}</b>" + ("" if c.same_as is None else f" (same network as {c.same_as})"),
        f"accuracy {c.accuracy:.2%} [{c.accuracy_low:.2%}, {c.accuracy_high:.2%}]",
        f"latency {c.latency_ms:#.4g} ms [{c.low_ms:#.4g}, {c.high_ms:#.4g}]",
        f"reward {c.reward:.4f}",
        f"{c.params:,} params, {c.macs / 1e6:,.1f}M MACs",
    ]
    if len(c.accuracies) > 1:
        lines.insert(2, "repeats " + ", ".join(f"{a:.2%}" for a in c.accuracies))
    return "<br>".join([*lines, *(_escape(s) for s in c.arch.block_strings)])


def _places(candidates: tuple[Candidate, ...]) -> dict[str, list[float]]:
    return {"x": [c.latency_ms for c in candidates], "y": [c.accuracy for c in candidates]}


def _bars(candidates: tuple[Candidate, ...], colour: str, thickness: float) -> dict[str, Any]:
    """95 % intervals of both coordinates."""

    def bar(high: list[float], low: list[float]) -> dict[str, Any]:
        kind = {"type": "data", "symmetric": False, "color": colour, "thickness": thickness, "width": 0}
        return {**kind, "array": [round(v, 6) for v in high], "arrayminus": [round(v, 6) for v in low]}

    return {
        "error_x": bar([c.high_ms - c.latency_ms for c in candidates], [c.latency_ms - c.low_ms for c in candidates]),
        "error_y": bar(
            [c.accuracy_high - c.accuracy for c in candidates], [c.accuracy - c.accuracy_low for c in candidates]
        ),
    }


def scatter(facts: Facts) -> Figure:
    """Accuracy against latency: every complete trial, the front, the reference models, T."""
    on_front = {c.number for c in facts.front}
    others = tuple(c for c in facts.candidates if c.number not in on_front)
    data: list[dict[str, Any]] = []
    if others:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trials",
                **_places(others),
                **_bars(others, "rgba(135,147,163,0.28)", 1),
                "hovertext": [_hover(c) for c in others],
                "hoverinfo": "text",
                "marker": {
                    "size": 7,
                    "color": [c.number for c in others],
                    "colorscale": [[0, "#a9c8ef"], [0.5, BLUE], [1, "#7b3fd1"]],
                    "colorbar": {"title": {"text": "trial", "side": "top"}, "thickness": 10, "len": 0.5},
                    "showscale": len(others) > 1,
                },
            }
        )
    if facts.front:
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "Pareto front",
                **_places(facts.front),
                **_bars(facts.front, "rgba(217,72,43,0.55)", 1.25),
                "hovertext": [_hover(c) for c in facts.front],
                "hoverinfo": "text",
                "line": {"shape": "hv", "color": RED, "width": 1.75},
                "marker": {"size": 9, "color": RED},
            }
        )
    if facts.best:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "highest reward",
                **_places((facts.best,)),
                "hoverinfo": "skip",
                "marker": {"size": 18, "symbol": "circle-open", "color": RED, "line": {"width": 2.5}},
            }
        )
    foot = min((c.accuracy for c in facts.candidates), default=0.0)
    data += [_reference(r, REFERENCE_COLOURS[i % 3], foot) for i, r in enumerate(facts.references)]
    layout = _layout(
        _axis("latency (ms), measured on the device"),
        _axis("accuracy on held-out images", tickformat=".0%"),
        hovermode="closest",
        legend={**LEGEND_BELOW, "y": -0.2},
        **_target_line(facts.target_ms),
    )
    return {"data": data, "layout": layout}


def _reference(reference: dict[str, Any], colour: str, foot: float) -> dict[str, Any]:
    """A diamond; hollow, and at the height of the lowest candidate (`foot`), where the model's training failed."""
    latency, accuracy = reference["latency"], reference["accuracy"]
    scored = "not trained" if accuracy is None else f"accuracy {accuracy:.2%}"
    text = [
        f"<b>{_escape(reference['name'])}</b> (reference)",
        scored,
        f"latency {latency['latency_ms']:#.4g} ms [{latency['low_ms']:#.4g}, {latency['high_ms']:#.4g}]",
        f"{reference['params']:,} params, {reference['macs'] / 1e6:,.1f}M MACs",
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _escape(reference["name"]),
        "x": [latency["latency_ms"]],
        "y": [foot if accuracy is None else accuracy],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [latency["high_ms"] - latency["latency_ms"]],
            "arrayminus": [latency["latency_ms"] - latency["low_ms"]],
            "color": colour,
            "thickness": 1.25,
            "width": 0,
        },
        "hovertext": ["<br>".join(text)],
        "hoverinfo": "text",
        "marker": {"size": 12, "symbol": "diamond-open" if accuracy is None else "diamond", "color": colour},
    }


def histogram(facts: Facts) -> Figure:
    """How many of the measured architectures have which latency, against T (the paper's Figure 6, below)."""
    bars = {"type": "histogram", "x": facts.measured_ms, "nbinsx": 40, "name": "architectures"}
    bars |= {"marker": {"color": BLUE, "opacity": 0.8}, "hovertemplate": "%{x} ms: %{y}<extra></extra>"}
    layout = _layout(
        _axis("latency (ms)"), _axis("architectures"), bargap=0.06, showlegend=False, **_target_line(facts.target_ms)
    )
    return {"data": [bars], "layout": layout}


def rewards(facts: Facts) -> Figure:
    """The reward of each trial, and the best so far."""
    numbers = [c.number for c in facts.candidates]
    best, running = -math.inf, []
    for candidate in facts.candidates:
        best = max(best, candidate.reward)
        running.append(best)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "trial",
            "x": numbers,
            "y": [c.reward for c in facts.candidates],
            "marker": {"size": 5, "color": BLUE, "opacity": 0.55},
            "hovertemplate": "trial %{x}: reward %{y:.4f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": numbers,
            "y": running,
            "line": {"shape": "hv", "color": RED, "width": 2},
            "hoverinfo": "skip",
        },
    ]
    return {"data": data, "layout": _layout(_axis("trial"), _axis("reward"), legend=LEGEND_BELOW)}


def _line(name: str, x: list[int], y: list[float | None], colour: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _escape(name),
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2},
        "marker": {"size": 4},
        **more,
    }


def hypervolumes(facts: Facts) -> Figure:
    """The front's hypervolume after each update."""
    line = _line("hypervolume", [u.trials for u in facts.updates], [u.hypervolume for u in facts.updates], GREEN)
    layout = _layout(_axis("finished trials"), _axis("hypervolume (accuracy × ms)"), showlegend=False)
    return {"data": [line], "layout": layout}


def entropies(facts: Facts) -> Figure:
    """The controller's entropy per block after each update."""
    updates = [u for u in facts.updates if u.block_entropies]
    x = [u.trials for u in updates]
    data = [
        _line(block, x, [u.block_entropies.get(block) for u in updates], BLOCK_COLOURS[i % len(BLOCK_COLOURS)])
        for i, block in enumerate(updates[0].block_entropies)
    ]
    layout = _layout(_axis("finished trials"), _axis("entropy (nats)", rangemode="tozero"), legend=LEGEND_BELOW)
    return {"data": data, "layout": layout}


def update_sizes(facts: Facts) -> Figure:
    """How far each update moved the policy: KL divergence, and the share of probability ratios that were clipped."""
    updates = [u for u in facts.updates if "kl" in u.diagnostics]
    x = [u.trials for u in updates]
    data = [
        _line("KL", x, [u.diagnostics["kl"] for u in updates], BLUE),
        _line("clip fraction", x, [u.diagnostics.get("clip_fraction") for u in updates], AMBER, yaxis="y2"),
    ]
    second = _axis("clip fraction", overlaying="y", side="right", showgrid=False, rangemode="tozero")
    first = _axis("KL (nats)", rangemode="tozero")
    layout = _layout(_axis("finished trials"), first, yaxis2=second, legend=LEGEND_BELOW)
    return {"data": data, "layout": layout}


def full_against_proxy(facts: Facts) -> Figure:
    """What full training made of each proxy accuracy, and the line on which both are equal."""
    proxy, full = [r.proxy_accuracy for r in facts.trained], [r.accuracy for r in facts.trained]
    ends = [min(proxy + full), max(proxy + full)]
    equal = {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends, "hoverinfo": "skip"}
    models = {
        "type": "scatter",
        "mode": "markers+text",
        "name": "trials",
        "x": proxy,
        "y": full,
        "text": [str(r.trial) for r in facts.trained],
        "textposition": "top center",
        "hovertemplate": "trial %{text}: proxy %{x:.2%}, full %{y:.2%}<extra></extra>",
        "marker": {"size": 9, "color": RED},
    }
    layout = _layout(
        _axis("proxy accuracy", tickformat=".0%"), _axis("accuracy after full training", tickformat=".0%"),
        showlegend=False,
    )  # fmt: skip
    return {"data": [{**equal, "line": {"color": GREY, "width": 1.5, "dash": "dash"}}, models], "layout": layout}
