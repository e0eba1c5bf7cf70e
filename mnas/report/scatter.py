"""Draw accuracy against latency, the report's main chart, for each of several devices and for all together."""

from typing import Any

from mnas.latency.latency import SOURCES, Latency, Source
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
from mnas.report.devices import View, views, warnings
from mnas.report.facts import Facts, Result
from mnas.study import TrialRecord

REFERENCE_COLOURS = (GREEN, AMBER, VIOLET)
SHADES = [[0, "#a9c8ef"], [0.5, BLUE], [1, "#7b3fd1"]]


def scatters(facts: Facts) -> dict[str, Figure]:
    """Return `scatter` for the latency that counts and `scatter-1`, ... for each of several devices alone."""
    return {f"scatter-{i}" if i else "scatter": scatter(facts, view) for i, view in enumerate(views(facts))}


def scatter(facts: Facts, view: View) -> Figure:
    """Return every complete trial, the front, the reference networks, and T, by one view's latency."""
    on_front = {c.number for c in view.front}
    others = tuple(c for c in view.candidates if c.number not in on_front and not c.reference)
    foot = min((c.accuracy for c in view.candidates), default=0.0)
    data = [
        *([_trials(facts, view, others)] if others else []),
        *([_front(facts, view)] if view.front else []),
        *_rings(facts, view),
        *(_reference(r, view, REFERENCE_COLOURS[i % 3], foot) for i, r in enumerate(facts.references)),
        *_key(view),
    ]
    layout = layout_of(
        axis(f"latency on {escape(view.device)} (ms)" if view.device else latency_title(facts)),
        axis(f"{facts.metric_name} on held-out images", tickformat=".0%"),
        hovermode="closest",
        legend={**LEGEND_BELOW, "y": -0.2},
        **target_lines(*view.targets_ms),
    )
    return {"data": data, "layout": layout}


def latency_title(facts: Facts) -> str:
    """Return the title of an axis for the latency that counts."""
    if len(facts.targets_ms) < 2:
        return "latency on the device (ms)"
    return f"combined latency of all devices (ms on {escape(next(iter(facts.targets_ms)))})"


def _trials(facts: Facts, view: View, candidates: tuple[Result, ...]) -> dict[str, Any]:
    """Return the trials that are not on the front; later ones are darker."""
    candidates = tuple(sorted(candidates, key=lambda c: SOURCES.index(_source(view, c))))  # the legend shows the first
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        **_points(facts, view, candidates, "rgba(135,147,163,0.28)", 1),
        "marker": {
            "size": 7,
            "symbol": _symbols(view, candidates),
            "color": [c.number for c in candidates],
            "colorscale": SHADES,
            "colorbar": {"title": {"text": "trial", "side": "top"}, "thickness": 10, "len": 0.5},
            "showscale": len(candidates) > 1,
        },
    }


def _front(facts: Facts, view: View) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "Pareto front",
        **_points(facts, view, view.front, "rgba(217,72,43,0.55)", 1.25),
        "line": {"shape": "hv", "color": RED, "width": 1.75},
        "marker": {"size": 9, "symbol": _symbols(view, view.front), "color": RED},
    }


def _rings(facts: Facts, view: View) -> list[dict[str, Any]]:
    """Return rings around the highest reward and, on one of several devices, around the shared model."""
    wanted = [("best for this device" if view.device else "highest reward", view.best, RED, 18)]
    if view.device:
        wanted.append(("best for all devices", tuple(facts.chosen), BLUE, 24))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            **_places(view, candidates),
            "hoverinfo": "skip",
            "marker": {"size": size, "symbol": "circle-open", "color": colour, "line": {"width": 2.5}},
        }
        for name, candidates, colour, size in wanted
        if candidates
    ]


def _points(facts: Facts, view: View, candidates: tuple[Result, ...], colour: str, thickness: float) -> dict[str, Any]:
    """Return places, 95 % intervals of both coordinates, and tooltips."""

    def bar(high: list[float], low: list[float]) -> dict[str, Any]:
        kind = {"type": "data", "symmetric": False, "color": colour, "thickness": thickness, "width": 0}
        return {**kind, "array": [round(v, 6) for v in high], "arrayminus": [round(v, 6) for v in low]}

    latencies = [view.latency(c) for c in candidates]
    return {
        **_places(view, candidates),
        "error_x": bar([x.high_ms - x.latency_ms for x in latencies], [x.latency_ms - x.low_ms for x in latencies]),
        "error_y": bar(
            [c.accuracy_high - c.accuracy for c in candidates], [c.accuracy - c.accuracy_low for c in candidates]
        ),
        "hovertext": [hover(c, facts) for c in candidates],
        "hoverinfo": "text",
    }


def _places(view: View, candidates: tuple[Result, ...]) -> dict[str, list[float]]:
    return {"x": [view.latency(c).latency_ms for c in candidates], "y": [c.accuracy for c in candidates]}


def _symbols(view: View, candidates: tuple[Result, ...]) -> list[str]:
    return ["diamond" if c.reference else SYMBOLS[_source(view, c)] for c in candidates]


def _source(view: View, candidate: Result) -> Source:
    return view.latency(candidate).source if view.device else candidate.source


def _key(view: View) -> list[dict[str, Any]]:
    """Return entries of the legend for the shapes, unless all latencies are measured."""
    used = set(_symbols(view, view.candidates)) - {SYMBOLS["measured"], "diamond"}
    sources = [source for source in SOURCES if SYMBOLS[source] in used]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": source,
            "x": [None],
            "y": [None],
            "hoverinfo": "skip",
            "marker": {"size": 9, "symbol": SYMBOLS[source], "color": GREY},
        }
        for source in (["measured", *sources] if sources else [])
    ]


def hover(candidate: Result, facts: Facts) -> str:
    """Return the text of a trial's tooltip."""
    c = candidate
    several = len(c.latencies) > 1
    lines = [
        f"<b>{escape(c.title)}</b>{' (reference)' if c.reference else ''}"
        + (f" ({escape(c.origin)})" if c.origin else "")
        + ("" if c.same_as is None else f" (same network as {c.same_as})"),
        f"{facts.metric_name} {c.accuracy:.2%} [{c.accuracy_low:.2%}, {c.accuracy_high:.2%}]",
    ]
    if len(c.accuracies) > 1:
        lines.append("repeats " + ", ".join(f"{a:.2%}" for a in c.accuracies))
    for device, latency in c.latencies.items():
        target_ms = facts.targets_ms[device] if several else None
        lines += _latency_lines(escape(device) if several else "latency", latency, target_ms)
    lines += [
        f"reward {c.reward:.4f}",
        f"{c.params:,} params, {c.macs / 1e6:,.1f}M MACs, file {c.size_bytes / 1e6:.2f} MB",
    ]
    return "<br>".join([*lines, *(escape(s) for s in c.arch.lines)])


def _latency_lines(name: str, latency: Latency, target_ms: float | None) -> list[str]:
    """Return lines on a device's latency, its source, and other values from the device."""
    share = "" if target_ms is None else f" = {latency.latency_ms / target_ms:.2f} T"
    where = "for" if latency.source == "predicted" else "on"
    lines = [
        f"{name} {latency.latency_ms:#.4g} ms [{latency.low_ms:#.4g}, {latency.high_ms:#.4g}]{share}, "
        f"<i>{latency.source}</i> {where} {escape(latency.unit)}"
    ]
    more = []
    if latency.peak_memory_bytes is not None:
        more.append(f"peak memory {latency.peak_memory_bytes / 1e6:.2f} MB")
    if latency.energy_mj is not None:
        more.append(f"{latency.energy_mj:.3g} mJ")
    return [*lines, *([", ".join(more)] if more else []), *(f"⚠ {warning}" for warning in warnings(latency))]


def _reference(reference: TrialRecord, view: View, colour: str, foot: float) -> dict[str, Any]:
    """Return a diamond; hollow, at the height of the lowest candidate (`foot`), where training failed."""
    latency, accuracy = view.of_reference(reference), reference.accuracy
    scored = "not trained" if accuracy is None else f"accuracy {accuracy:.2%}"
    several = len(reference.latencies) > 1
    text = [f"<b>{escape(reference.label)}</b> (reference)", scored]
    for device, each in reference.latencies.items():
        text += _latency_lines(escape(device) if several else "latency", each, None)
    text.append(f"{reference.params:,} params, {reference.macs / 1e6:,.1f}M MACs")
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(reference.label),
        "x": [latency.latency_ms],
        "y": [foot if accuracy is None else accuracy],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [latency.high_ms - latency.latency_ms],
            "arrayminus": [latency.latency_ms - latency.low_ms],
            "color": colour,
            "thickness": 1.25,
            "width": 0,
        },
        "hovertext": ["<br>".join(text)],
        "hoverinfo": "text",
        "marker": {"size": 12, "symbol": "diamond-open" if accuracy is None else "diamond", "color": colour},
    }
