"""The report's charts as Plotly figures in plain dicts, ready for JSON (plot.py); scatter.py makes the main one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mnas.latency.latency import Source
from mnas.plot import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    LEGEND_BELOW,
    RED,
    SYMBOLS,
    VIOLET,
    Figure,
    axis,
    escape,
    layout_of,
    target_lines,
)
from mnas.report.facts import Facts, Update
from mnas.report.scatter import latency_title, scatters

BLOCK_COLOURS = (BLUE, RED, GREEN, VIOLET, AMBER, "#1f9aa8", "#c2478f", GREY)
SOURCE_COLOURS: dict[Source, str] = {"measured": BLUE, "cached": GREEN, "predicted": GREY}


def figures(facts: Facts) -> dict[str, Figure]:
    """Return element id -> figure, for the figures that have data.

    The selector of `scatter` chooses from `scatter-1`, `scatter-2`, ...
    """
    charts: dict[str, Figure] = {}
    if facts.candidates or facts.references:
        charts |= scatters(facts)
    if facts.drawn_ms:
        charts["histogram"] = histogram(facts)
    if facts.candidates:
        charts["reward"] = rewards(facts)
    if facts.updates:
        charts["hypervolume"] = hypervolumes(facts)
    if any(u.block_entropies for u in facts.updates):
        charts["entropy"] = entropies(facts)
    if learnt := [u for u in facts.updates if u.models]:
        charts |= {f"weights-{name}": weights(model["weights"]) for name, model in learnt[-1].models.items()}
        charts["fit"] = fits(learnt)
    if any("kl" in u.diagnostics for u in facts.updates):
        charts["updates"] = update_sizes(facts)
    if len(facts.trained) > 1:
        charts["full"] = full_against_proxy(facts)
    return charts


def histogram(facts: Facts) -> Figure:
    """Return the histogram of latencies, against T (the paper's Figure 6, below)."""
    latencies = facts.drawn_ms
    data = [
        {
            "type": "histogram",
            "x": values_ms,
            "nbinsx": 40,
            "name": source,
            "marker": {"color": SOURCE_COLOURS[source], "opacity": 0.8},
            "hovertemplate": f"%{{x}} ms: %{{y}} {source}<extra></extra>",
        }
        for source, values_ms in latencies.items()
    ]
    layout = layout_of(
        axis(latency_title(facts)),
        axis("architectures"),
        bargap=0.06,
        barmode="stack",
        showlegend=len(latencies) > 1,
        legend=LEGEND_BELOW,
        **target_lines(*facts.goals_ms),
    )
    return {"data": data, "layout": layout}


def rewards(facts: Facts) -> Figure:
    """Return the reward of each trial, and the best so far."""
    title = f"reward for T = {facts.goals_ms[0]:.3g} ms" if len(facts.goals_ms) > 1 else "reward"
    numbers = [c.number for c in facts.candidates]
    best, running = -math.inf, []
    for candidate in facts.candidates:
        best = max(best, candidate.reward)
        running.append(best)
    imported = sum(c.number < facts.imported for c in facts.candidates)
    parts = {"imported": facts.candidates[:imported], "trial": facts.candidates[imported:]}
    data = [
        *(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [c.number for c in part],
                "y": [c.reward for c in part],
                "text": [c.source for c in part],
                "marker": {
                    "size": 5,
                    "color": BLUE if name == "trial" else GREY,
                    "opacity": 0.55,
                    "symbol": [SYMBOLS[c.source] for c in part],
                },
                "hovertemplate": "trial %{x}: reward %{y:.4f}, latency %{text}<extra></extra>",
            }
            for name, part in parts.items()
            if part
        ),
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
    return {"data": data, "layout": layout_of(axis("trial"), axis(title), legend=LEGEND_BELOW)}


def _line(name: str, x: list[int], y: list[float | None], colour: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2},
        "marker": {"size": 4},
        **more,
    }


def hypervolumes(facts: Facts) -> Figure:
    """Return the front's hypervolume after each update."""
    line = _line("hypervolume", [u.trials for u in facts.updates], [u.hypervolume for u in facts.updates], GREEN)
    layout = layout_of(axis("finished trials"), axis("hypervolume (accuracy × ms)"), showlegend=False)
    return {"data": [line], "layout": layout}


def entropies(facts: Facts) -> Figure:
    """Return the controller's entropy per block after each update."""
    updates = [u for u in facts.updates if u.block_entropies]
    x = [u.trials for u in updates]
    data = [
        _line(block, x, [u.block_entropies.get(block) for u in updates], BLOCK_COLOURS[i % len(BLOCK_COLOURS)])
        for i, block in enumerate(updates[0].block_entropies)
    ]
    layout = layout_of(axis("finished trials"), axis("entropy (nats)", rangemode="tozero"), legend=LEGEND_BELOW)
    return {"data": data, "layout": layout}


def weights(of_decisions: Mapping[str, float]) -> Figure:
    """Return the importance of each decision in a surrogate's model: a row per block, a column per decision."""
    parts = [name.rpartition(".") for name in of_decisions]
    rows, columns = (list(dict.fromkeys(each)) for each in ([p[0] for p in parts], [p[2] for p in parts]))
    table = [[of_decisions.get(f"{row}.{column}" if row else column) for column in columns] for row in rows]
    cells = {
        "type": "heatmap",
        "x": [escape(column) for column in columns],
        "y": [escape(row) for row in rows],
        "z": table,
        "zmin": 0,
        "colorscale": [[0, "rgba(59,125,216,0)"], [1, BLUE]],
        "texttemplate": "%{z:.1f}",
        "hovertemplate": "%{y} %{x}: %{z:.2f}<extra></extra>",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
    }
    grid = {"showgrid": False, "ticks": ""}
    return {"data": [cells], "layout": layout_of(axis("", **grid), axis("", autorange="reversed", **grid))}


def fits(updates: Sequence[Update]) -> Figure:
    """Return the R² with which a surrogate's models predict each trial from all others, after each update."""
    x = [u.trials for u in updates]
    data = [
        _line(name, x, [u.models[name]["left_out_r2"] for u in updates], colour)
        for name, colour in (("accuracy", RED), ("latency", BLUE))
    ]
    return {
        "data": data,
        "layout": layout_of(axis("finished trials"), axis("R² on left-out trials"), legend=LEGEND_BELOW),
    }


def update_sizes(facts: Facts) -> Figure:
    """Return the size of each update of the policy: KL divergence, and the share of clipped probability ratios."""
    updates = [u for u in facts.updates if "kl" in u.diagnostics]
    x = [u.trials for u in updates]
    data = [
        _line("KL", x, [u.diagnostics["kl"] for u in updates], BLUE),
        _line("clip fraction", x, [u.diagnostics.get("clip_fraction") for u in updates], AMBER, yaxis="y2"),
    ]
    second = axis("clip fraction", overlaying="y", side="right", showgrid=False, rangemode="tozero")
    first = axis("KL (nats)", rangemode="tozero")
    layout = layout_of(axis("finished trials"), first, yaxis2=second, legend=LEGEND_BELOW)
    return {"data": data, "layout": layout}


def full_against_proxy(facts: Facts) -> Figure:
    """Return full against proxy accuracy of each trained model, with the line on which both are equal."""
    proxy, full = [r.proxy_accuracy for r in facts.trained], [r.accuracy for r in facts.trained]
    ends = [min(proxy + full), max(proxy + full)]
    equal = {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends, "hoverinfo": "skip"}
    models = {
        "type": "scatter",
        "mode": "markers+text",
        "name": "trials",
        "x": proxy,
        "y": full,
        "text": [escape(r.label) for r in facts.trained],
        "textposition": "top center",
        "hovertemplate": "trial %{text}: proxy %{x:.2%}, full %{y:.2%}<extra></extra>",
        "marker": {"size": 9, "color": RED},
    }
    layout = layout_of(
        axis("proxy accuracy", tickformat=".0%"), axis("accuracy after full training", tickformat=".0%"),
        showlegend=False,
    )  # fmt: skip
    return {"data": [{**equal, "line": {"color": GREY, "width": 1.5, "dash": "dash"}}, models], "layout": layout}
