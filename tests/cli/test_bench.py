"""`mnas bench`: tables, page, figures and numbers of a small benchmark; resuming, and bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mnas
from mnas.bench.cache import Cache
from mnas.bench.contender import Contender
from mnas.bench.pool import draw_pool
from mnas.bench.searched import run_search
from mnas.bench.settings import BenchSettings
from mnas.bench.source import BenchmarkOptions
from mnas.cli.main import run
from mnas.controller.named import candidates_per_update
from mnas.objective import Objective
from tests.bench.bench_toy import toy_benchmark, write_table
from tests.cli.test_bad_input import complaint


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "toy.csv")


def bench(*options: str) -> list[str]:
    """Return the command line; later options override earlier ones."""
    return ["bench", "--benchmark", "table", "--path", "toy.csv", "--trials", "40", "--workers", "1", *options]


def test_a_bench_from_end_to_end(tmp_path, capsys):
    options = ["--controllers", "random,evolution", "--seeds", "2", "--target-quantiles", "0.2,0.6"]
    assert run(bench(*options)) == 0
    text = capsys.readouterr().out
    assert "toy.csv: 72 rows, 5 decisions" in text
    assert "complete: all 72 combinations have a row, so values are looked up" in text
    assert "[8/8]" in text  # random sees no target: 2 searches; evolution has 2 for each of 3
    assert "CPU ms per trial" in text

    numbers = json.loads((tmp_path / "bench" / "toy.json").read_text())
    benchmark = toy_benchmark(tmp_path)
    pool = draw_pool(benchmark)
    assert numbers["target"] == pool.target(0.4)
    objective = Objective(form="soft", target_latency_ms=pool.target(0.4), alpha=-0.07, beta=-0.07)
    for row, given in zip(numbers["rows"], (None, objective), strict=True):
        searches = [
            run_search(
                benchmark, Contender(controller=row["name"], candidates_per_update=20, seed=s, objective=given), 40
            )
            for s in (0, 1)
        ]
        ratios = [pool.ratio(s.accuracies, s.costs) for s in searches]
        assert row["hypervolume"]["40"][0] == pytest.approx(sum(ratios) / 2)
        half = 12.7062047 * abs(ratios[0] - ratios[1]) / 2  # t(0.975, 1); the standard error of two is half their range
        assert row["hypervolume"]["40"][1] == pytest.approx(half)
        best = [max(objective.reward(a, c) for a, c in zip(s.accuracies, s.costs, strict=True)) for s in searches]
        assert row["best_reward"]["40"][0] == pytest.approx(sum(best) / 2)
        by_seed = row["by_seed"]
        assert by_seed["seeds"] == [0, 1]
        assert (by_seed["hypervolume"]["40"], by_seed["best_reward"]["40"]) == (ratios, best)
        assert sum(by_seed["ms_per_trial"]) / 2 == pytest.approx(row["ms_per_trial"])
    assert numbers["version"] == mnas.__version__
    assert (numbers["settings"]["path"], numbers["settings"]["controllers"]) == ("toy.csv", "random,evolution")
    repeated = mnas.bench(**numbers["settings"] | {"out": "again"})
    assert json.loads((tmp_path / "again" / "toy.json").read_text())["rows"] == numbers["rows"]
    assert [row.name for row in repeated.rows] == ["random", "evolution"]
    assert [(h["name"], h["quantile"]) for h in numbers["hits"]] == [
        ("random", 0.2),
        ("random", 0.6),
        ("evolution", 0.2),
        ("evolution", 0.6),
    ]

    page = (tmp_path / "bench" / "toy.html").read_text()
    for name in ("hypervolume", "front", "reward", "histogram"):
        assert f'id="{name}"' in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert (tmp_path / "bench" / "toy.svg").read_text().startswith("<svg")

    # a second run uses the cache and has the same result; a search missing from the cache runs again
    assert run(bench(*options)) == 0
    assert capsys.readouterr().out.count(", cached") == 8
    assert json.loads((tmp_path / "bench" / "toy.json").read_text()) == numbers
    next((tmp_path / "cache" / "mnas" / "bench").iterdir()).unlink()
    assert run(bench(*options)) == 0
    assert capsys.readouterr().out.count(", cached") == 7


def test_one_seed_and_a_custom_sampler(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "import optuna\ndef sampler(space, seed):\n    return optuna.samplers.RandomSampler(seed=seed)\n"
    )
    assert run(bench("--controllers", "own:sampler", "--seeds", "1", "--reward", "hard,soft")) == 0
    numbers = json.loads((tmp_path / "bench" / "toy.json").read_text())
    assert [row["name"] for row in numbers["rows"]] == ["own:sampler, hard"]  # it sees no reward: one row
    assert numbers["rows"][0]["hypervolume"]["40"][1] is None


def test_a_bench_after_an_edit_of_an_imported_module_searches_again(tmp_path, capsys):
    (tmp_path / "wrap.py").write_text("from cooled import Cooled\ndef make(seed):\n    return Cooled(seed=seed)\n")
    own = "from optuna.samplers import RandomSampler\nclass Cooled(RandomSampler):\n    pass\n"
    (tmp_path / "cooled.py").write_text(own)
    options = ["--controllers", "wrap:make", "--seeds", "1", "--trials", "10"]
    for cached in (0, 1):
        assert run(bench(*options)) == 0
        assert capsys.readouterr().out.count(", cached") == cached
    (tmp_path / "cooled.py").write_text(
        own + "    def sample_independent(self, *given):\n        return given[3].choices[0]\n"
    )
    assert run(bench(*options)) == 0
    assert ", cached" not in capsys.readouterr().out
    numbers = json.loads((tmp_path / "bench" / "toy.json").read_text())
    assert numbers["rows"][0]["hypervolume"]["10"][0] == 0  # the edited sampler proposes one small network


@pytest.mark.slow
def test_a_killed_bench_resumes(tmp_path):
    options = bench("--controllers", "random", "--seeds", "10", "--trials", "100")
    command = [sys.executable, "-m", "mnas.cli.main", *options]
    token = f"MNAS_TEST={tmp_path}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MNAS_TEST": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[2/10]"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    kept = len(list((tmp_path / "cache" / "mnas" / "bench").glob("*.npz")))
    assert 2 <= kept < 10
    deadline = time.monotonic() + 30
    while _alive(token) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(token)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.count(", cached") == kept
    assert "[10/10]" in text


def _alive(token: str) -> list[str]:
    """Return the processes that have `token` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_every_controller_has_a_batch_size():
    assert candidates_per_update("ppo") == 20
    assert candidates_per_update("optuna.samplers:TPESampler") == 20


def test_the_cache_key_includes_the_code(tmp_path, monkeypatch):
    benchmark = toy_benchmark(tmp_path)
    contender = Contender(controller="random", candidates_per_update=20, seed=0, objective=None)
    cache = Cache(tmp_path / "searches", benchmark)
    cache.keep(contender, run_search(benchmark, contender, 5))
    assert cache.load(contender, 5) is not None
    monkeypatch.setattr("mnas.bench.cache.code_version", lambda controller: "another")
    assert Cache(tmp_path / "searches", benchmark).load(contender, 5) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "nasbench"], "--benchmark must be one of accel-nasbench, table, but got 'nasbench'"),
        (["--path", "nowhere.csv"], "mnas: --path must be a file, but nowhere.csv does not exist"),
        (["--benchmark", "accel-nasbench"], "for a CSV or Parquet table, add --benchmark table"),
        (["--benchmark", "accel-nasbench"], "toy.csv cannot be read as anb_dataset_jsons.tar.gz"),
        (["--benchmark", "accel-nasbench", "--device", "pixel"], "mnas: --device must be one of latency_zcu102"),
        (["--accuracy", "top1"], "mnas: --accuracy must be a column of toy.csv (op, kernel, depth, width, free"),
        (["--cost", "nope"], "mnas: --cost must be a column of toy.csv (op, kernel, depth, width, free"),
        (["--ignore", "nope"], "mnas: --ignore must be a column of toy.csv (op, kernel, depth, width, free"),
        (["--cost", "op"], "toy.csv: line 2: op must be a number above 0, but got 'conv'"),
        (["--space", "mnasnet"], "mnas: --space must have a column for each of its decisions in toy.csv (op, kernel, "),
        (["--space", "nowhere"], "--space must be one of mnasnet"),
        (["--controllers", "sarsa"], "--controllers must be one of surrogate"),
        (["--controllers", "random,,ppo"], "--controllers must be different names separated by commas"),
        (["--controllers", "ppo,ppo"], "--controllers must be different names separated by commas"),
        (
            ["--controllers", "nothing:there"],
            "mnas: --controllers nothing:there: module nothing cannot be imported: ModuleNotFoundError",
        ),
        (["--controllers", "nothing:there"], "modules are looked for in the current folder and on the Python path"),
        (
            ["--controllers", "optuna.samplers:GridSampler"],
            "--controllers optuna.samplers:GridSampler: calling GridSampler failed: TypeError",
        ),
        (
            ["--reward", "greedy"],
            "--reward must be one of target, soft, hard, absolute, weighted-sum, but got 'greedy'",
        ),
        (["--seeds", "0"], "--seeds must be 1 or more, but got 0"),
        (["--trials", "0"], "--trials must be 1 or more, but got 0"),
        (["--workers", "0"], "--workers must be 1 or more, or auto, but got 0"),
        (["--candidates-per-update", "0"], "--candidates-per-update must be 1 or more, or auto, but got 0"),
        (["--target-quantile", "1.5"], "--target-quantile must be between 0 and 1, but got 1.5"),
        (["--target-quantiles", "0.1,x"], "--target-quantiles must be different numbers separated by commas"),
        (
            ["--device", "latency_vck190"],
            "--device must not be given with --benchmark table, but got latency_vck190; name the column of costs with",
        ),
        (["--out", "toy.csv"], "--out must be a folder, but got toy.csv, and toy.csv is a file"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, options, message):
    assert message in complaint(capsys, *bench(*options))
    assert not (tmp_path / "bench").exists()


def test_null_costs_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "toy.csv"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].rsplit(",", 1)[0] + ","
    path.write_text("\n".join(lines))
    assert "toy.csv: line 5: cost must be a number above 0, but got nothing" in complaint(capsys, *bench())


def test_options_make_the_settings(tmp_path):
    source = BenchmarkOptions(benchmark="table", path=tmp_path / "toy.csv")
    settings = BenchSettings(source=source, controllers="random, tpe", reward="hard,soft", target_quantiles="0.1,0.8")
    assert settings.names == ("random", "tpe")
    assert settings.forms == ("hard", "soft")
    assert settings.quantiles == (0.1, 0.8)
