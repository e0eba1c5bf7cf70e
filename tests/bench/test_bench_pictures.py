"""The figures of a bench, on the page and as SVG."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mnas.bench.comparison import ControllerSearches, front_of
from mnas.bench.figures import EDGES, figures
from mnas.bench.pool import draw_pool
from mnas.bench.svg import svg
from mnas.objective import Objective
from tests.bench.bench_toy import rows, toy_benchmark
from tests.bench.test_bench_pool import searched


@pytest.fixture
def made(tmp_path):
    benchmark = toy_benchmark(tmp_path)
    pool = draw_pool(benchmark)
    objective = Objective(form="soft", target_latency_ms=pool.target(0.4), alpha=-0.07, beta=-0.07)
    points = [(row[5], row[6]) for row in rows()]
    rng = np.random.default_rng(0)
    searches = [searched([points[i] for i in rng.permutation(72)[:60]]) for _ in range(3)]
    names = ["random", "<b>&"]
    compared = [ControllerSearches(name, objective, tuple(searches)) for name in names]
    return figures(benchmark, pool, compared, {"efficientnet-b0": (0.7, 5.0)}), compared, pool


def test_figures_contain_the_numbers(made):
    charts, compared, pool = made
    curve = charts["hypervolume"]["data"][0]
    assert curve["x"][-1] == 60
    assert curve["y"][-1] == compared[0].hypervolume(pool, 60).mean
    assert curve["error_y"]["array"][0] == compared[0].hypervolume(pool, 10).half
    assert charts["reward"]["data"][0]["y"][-1] == compared[0].best_reward(60).mean
    names = [trace["name"] for trace in charts["front"]["data"]]
    assert names == ["random pool", "random", "&lt;b&gt;&amp;", "efficientnet-b0"]
    front = charts["front"]["data"][1]
    assert list(zip(front["y"], front["x"], strict=True)) == front_of(compared[0].median_search(pool))
    histogram = charts["histogram"]["data"][0]
    assert histogram["x"] == EDGES
    assert sum(histogram["y"][:-1]) == pytest.approx(1)


def test_the_svg_is_well_formed_and_shows_all(made):
    charts = made[0]
    root = ET.fromstring(svg([charts["hypervolume"], charts["front"]]))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "efficientnet-b0" in texts
    assert "<b>&" in texts
    assert "cost (cost)" in texts
    width, height = float(root.get("width")), float(root.get("height"))
    for path in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(path.get("cx")) <= width
        assert 0 <= float(path.get("cy")) <= height
    ET.fromstring(svg([charts["reward"], charts["histogram"]]))
