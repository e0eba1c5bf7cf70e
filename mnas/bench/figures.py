"""Charts of a bench as Plotly figures: progress, the paper's Figure 2 and its Figure 6."""

from collections.abc import Mapping, Sequence
from typing import Any

from mnas.bench.comparison import ControllerSearches, curve_points, front_of, shares
from mnas.bench.pool import Interval, Pool
from mnas.evaluate.benchmark import Benchmark
from mnas.plot import AMBER, BLUE, GREEN, GREY, LEGEND_BELOW, RED, VIOLET, Figure, axis, escape, layout_of

COLOURS = (BLUE, RED, GREEN, VIOLET, AMBER, "#1f9aa8", "#c2478f", "#5b6875")
EDGES = [round(0.1 * i, 1) for i in range(5, 31)]
"""Edges of the histogram of costs, in targets; the outermost bars include costs beyond."""


def figures(
    benchmark: Benchmark, pool: Pool, rows: Sequence[ControllerSearches], named: Mapping[str, tuple[float, float]]
) -> dict[str, Figure]:
    """Return the figures by element id.

    Args:
        benchmark: benchmark, for its name and its cost's unit.
        pool: random members that hypervolumes are relative to.
        rows: searches to compare.
        named: name -> (accuracy, cost) of named networks in the benchmark.
    """
    trials = min(len(s.costs) for row in rows for s in row.searches)
    points = curve_points(trials)
    return {
        "hypervolume": _progress(rows, points, "hypervolume / that of the pool", lambda r, n: r.hypervolume(pool, n)),
        "reward": _progress(rows, points, "best reward", lambda r, n: r.best_reward(n)),
        "front": front_figure(benchmark, pool, rows, named),
        "histogram": histogram(rows),
    }


def _progress(rows: Sequence[ControllerSearches], points: Sequence[int], title: str, value: Any) -> Figure:
    data = []
    for index, row in enumerate(rows):
        intervals: list[Interval] = [value(row, n) for n in points]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(row.name),
                "x": list(points),
                "y": [i.mean for i in intervals],
                "error_y": {
                    "type": "data",
                    "array": [i.half for i in intervals],
                    "color": COLOURS[index % len(COLOURS)],
                    "thickness": 0.8,
                    "width": 0,
                },
                "line": {"color": COLOURS[index % len(COLOURS)], "width": 2},
                "marker": {"size": 4},
            }
        )
    layout = layout_of(
        axis("trials", type="log", tickvals=[10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]),
        axis(title),
        legend=LEGEND_BELOW,
    )
    return {"data": data, "layout": layout}


def front_figure(
    benchmark: Benchmark, pool: Pool, rows: Sequence[ControllerSearches], named: Mapping[str, tuple[float, float]]
) -> Figure:
    """Return accuracy against cost of the fronts (the paper's Figure 2), and of named networks."""
    data: list[dict[str, Any]] = [_steps("random pool", pool.front, GREY)]
    for index, row in enumerate(rows):
        data.append(_steps(row.name, front_of(row.median_search(pool)), COLOURS[index % len(COLOURS)]))
    for name, (accuracy, cost) in named.items():
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(name),
                "x": [cost],
                "y": [accuracy],
                "marker": {"size": 12, "symbol": "diamond", "color": "#1f2933"},
            }
        )
    layout = layout_of(
        axis(f"cost ({escape(benchmark.cost_unit)})"), axis("accuracy", tickformat=".1%"), legend=LEGEND_BELOW
    )
    return {"data": data, "layout": layout}


def _steps(name: str, front: Sequence[tuple[float, float]], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": [cost for _, cost in front],
        "y": [accuracy for accuracy, _ in front],
        "line": {"shape": "hv", "color": colour, "width": 1.5},
        "marker": {"size": 5, "color": colour},
    }


def histogram(rows: Sequence[ControllerSearches]) -> Figure:
    """Return the share of sampled models by cost, in targets (the paper's Figure 6, below)."""
    data = []
    for index, row in enumerate(rows):
        target = row.objective.target_latency_ms
        shares_of_bins = shares([c / target for s in row.searches for c in s.costs], EDGES)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(row.name),
                "x": EDGES,
                "y": [*shares_of_bins, shares_of_bins[-1]],
                "line": {"shape": "hv", "color": COLOURS[index % len(COLOURS)], "width": 2},
            }
        )
    line = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": GREY, "dash": "dash"},
    }
    layout = layout_of(
        axis("cost / target"), axis("share of trials", tickformat=".0%"), legend=LEGEND_BELOW, shapes=[line]
    )
    return {"data": data, "layout": layout}
