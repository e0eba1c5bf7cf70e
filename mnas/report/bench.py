"""Write the page, the pictures and the numbers of a bench as files."""

import json
from pathlib import Path

from mnas.atomic import write_atomic
from mnas.bench.figures import figures
from mnas.bench.result import BenchResult
from mnas.bench.svg import svg
from mnas.pages.page import escape, section
from mnas.report.page import page
from mnas.report.sections import chart


def write_bench(result: BenchResult, folder: Path) -> list[str]:
    """Write page, pictures and numbers into `folder`, and return the names of the files. Raises OSError."""
    name = result.benchmark.name
    charts = figures(result.benchmark, result.pool, result.rows, result.networks)
    files = {
        f"{name}.html": page(f"bench on {name}", _body(result), charts),
        f"{name}.svg": svg([charts["hypervolume"], charts["front"]]),
        f"{name}-rewards.svg": svg([charts["reward"], charts["histogram"]]),
        f"{name}.json": json.dumps(result.to_dict(), indent=1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        write_atomic(folder / file, content)
    return list(files)


def _body(result: BenchResult) -> list[str]:
    notes = "".join(f"<p class='quiet'>{escape(line)}</p>" for line in (*result.benchmark.notes, result.protocol))
    mean = "Mean over seeds. Bars are 95 % confidence intervals."
    fronts = f"Front of each controller after {result.trials:,} trials, for the seed with the median hypervolume."
    figure6 = "All trials of all seeds. Compare with Figure 6 of the paper."
    return [
        f"<header><h1>bench on {escape(result.benchmark.name)}</h1></header>{notes}",
        section("Hypervolume", chart("hypervolume", f"{mean} A value of 1 is that of the random pool's front.")),
        section("Accuracy against cost", chart("front", fronts, tall=True)),
        section("Best reward", chart("reward", mean)),
        section("Cost of sampled networks", chart("histogram", figure6)),
    ]
