"""One search on a benchmark: it repeats, is a prefix of longer ones, and accepts a user's sampler."""

import dataclasses
from pathlib import Path

import numpy as np
import optuna
import pytest

import mnas
from mnas.bench.cache import Cache, code_version
from mnas.bench.contender import Contender, takes_reward
from mnas.bench.searched import Searched, run_search
from mnas.bench.sources import sources_of
from mnas.controller.named import CONTROLLERS, find_controller
from mnas.evaluate.table import read_table
from mnas.objective import Objective
from tests.bench.bench_toy import rows, toy_benchmark

OBJECTIVE = Objective(form="soft", target_latency_ms=10.0, alpha=-0.07, beta=-0.07)


@pytest.fixture
def benchmark_(tmp_path):
    return toy_benchmark(tmp_path)


def contender(name: str, seed: int = 0, size: int = 5) -> Contender:
    objective = OBJECTIVE if takes_reward(name) else None
    return Contender(controller=name, candidates_per_update=size, seed=seed, objective=objective)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_search_is_the_first_part_of_a_longer_one(benchmark_, name):
    short, long = (run_search(benchmark_, contender(name), trials) for trials in (12, 20))
    assert np.array_equal(short.indices, long.indices[:12])
    assert np.array_equal(short.accuracies, long.first(12).accuracies)
    assert short.ms.shape == (12,)
    assert (short.ms > 0).all()
    accuracies, costs = benchmark_.score(long.indices)
    assert np.array_equal(accuracies, long.accuracies)
    assert np.array_equal(costs, long.costs)
    other = run_search(benchmark_, contender(name, seed=1), 12)
    assert not np.array_equal(other.indices, short.indices)


def test_ppo_records_its_entropy_and_finds_more_reward(benchmark_):
    found = run_search(benchmark_, contender("ppo", size=10), 600)
    assert found.entropies.shape == (60,)
    # at first, the entropy is that of uniform choices, ln 72 nats, except for the small initial weights
    assert found.entropies[0] == pytest.approx(np.log(72), rel=0.02)
    assert found.entropies[-1] < 0.8 * found.entropies[0]
    reward = [OBJECTIVE.reward(a, c) for a, c in zip(found.accuracies, found.costs, strict=True)]
    assert np.mean(reward[-100:]) > np.mean(reward[:100]) + 0.02


def test_a_users_sampler_draws_as_in_an_optuna_study(benchmark_):
    found = run_search(benchmark_, contender("optuna.samplers:TPESampler", seed=3), 15)
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.TPESampler(seed=3),
        pruner=optuna.pruners.NopPruner(),
    )
    for number in range(15):
        trial = study.ask(dict(benchmark_.space))
        indices = benchmark_.indices(trial.params)
        assert tuple(found.indices[number]) == indices
        accuracies, costs = benchmark_.score(np.array([indices]))
        study.tell(trial, [float(accuracies[0]), float(costs[0])])


def test_a_sampler_of_mnas_as_a_factory_gets_space_and_reward(benchmark_):
    name = "mnas.controller.evolution:RegularizedEvolutionSampler"
    assert takes_reward(name)
    assert not takes_reward("optuna.samplers:RandomSampler")
    found = run_search(benchmark_, contender(name), 10)
    assert np.array_equal(found.indices, run_search(benchmark_, contender("evolution"), 10).indices)


SAMPLERS = """
import optuna
def random(space, seed):
    assert list(space) == ["op", "kernel", "depth", "width", "free"]
    return optuna.samplers.RandomSampler(seed=seed)
def none(seed): return None
def broken(seed): raise KeyError("no\\nluck")
def leaves(seed): raise SystemExit(3)
def needs(seed, more): pass
class Fails(optuna.samplers.RandomSampler):
    def sample_independent(self, *arguments): raise RuntimeError("cannot\\ndraw")
class Strange(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        return 9 if (trial.number, name) == (2, "kernel") else distribution.choices[0]
number = 3
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sarsa", "--controllers must be one of surrogate, .*, or module:factory"),
        ("optuna.samplers:", "--controllers must be one of surrogate, .*, or module:factory"),
        (
            "no.such.module:x",
            "^--controllers no.such.module:x: module no.such.module cannot be imported: ModuleNotFoundError",
        ),
        (
            "optuna.samplers:NoSampler",
            "^--controllers optuna.samplers:NoSampler: module optuna.samplers has no attribute NoSampler",
        ),
        ("my_samplers:number", "^--controllers my_samplers:number: number must be callable, but got 3"),
        (
            "my_samplers:none",
            "^--controllers my_samplers:none must return an optuna.samplers.BaseSampler, but got NoneType",
        ),
        ("my_samplers:broken", r"^--controllers my_samplers:broken: calling broken failed: KeyError: 'no\\nluck'"),
        ("my_samplers:leaves", "^--controllers my_samplers:leaves: calling leaves failed: SystemExit: 3"),
        ("my_samplers:needs", "^--controllers my_samplers:needs: calling needs failed: TypeError: .*'more'"),
        ("my_samplers:Fails", "my_samplers:Fails failed at trial 0: RuntimeError: cannot draw"),
        ("my_samplers:Strange", "my_samplers:Strange failed at trial 2: kernel must be one of 3, 5, 7, but got 9$"),
    ],
)
def test_an_invalid_sampler_is_one_line(benchmark_, tmp_path, monkeypatch, name, message):
    (tmp_path / "my_samplers.py").write_text(SAMPLERS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        run_search(benchmark_, contender(name), 3)
    assert "\n" not in str(raised.value)


def test_a_sampler_of_the_current_folder(benchmark_, tmp_path, monkeypatch):
    (tmp_path / "my_samplers.py").write_text(SAMPLERS)
    monkeypatch.chdir(tmp_path)
    assert callable(find_controller("my_samplers:random"))
    found = run_search(benchmark_, contender("my_samplers:random", seed=7), 4)
    plain = run_search(benchmark_, contender("optuna.samplers:RandomSampler", seed=7), 4)
    assert np.array_equal(found.indices, plain.indices)


# The cache


def test_cached_searches_are_found_by_all_that_determines_them(benchmark_, tmp_path):
    cache = Cache(tmp_path / "cache", benchmark_)
    found = run_search(benchmark_, contender("random"), 12)
    assert cache.load(contender("random"), 12) is None
    cache.keep(contender("random"), found)
    again = cache.load(contender("random"), 9)
    assert again is not None
    for name in ("indices", "accuracies", "costs", "ms"):
        assert np.array_equal(getattr(again, name), getattr(found, name)[:9])
    assert cache.load(contender("random"), 13) is None  # it is shorter
    for other in (contender("random", seed=1), contender("random", size=6), contender("tpe")):
        assert cache.load(other, 9) is None
    changed = toy_benchmark(tmp_path)
    assert Cache(tmp_path / "cache", changed).load(contender("random"), 9) is not None  # equal rows
    path = tmp_path / "toy.csv"
    path.write_text(path.read_text().replace(f",{rows()[0][5]},", ",0.75,", 1))
    assert Cache(tmp_path / "cache", read_table(path)).load(contender("random"), 9) is None


def test_a_damaged_search_is_a_cache_miss(benchmark_, tmp_path):
    cache = Cache(tmp_path / "cache", benchmark_)
    cache.keep(contender("random"), run_search(benchmark_, contender("random"), 5))
    [file] = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-30], b"PK\x03\x04"):
        file.write_bytes(damaged)
        assert cache.load(contender("random"), 5) is None
    whole = Searched.from_bytes(content)
    nan, far = whole.costs.copy(), whole.indices.copy()
    nan[2], far[1, 0] = np.nan, 99
    for change in (
        {"costs": nan}, {"accuracies": nan}, {"indices": far}, {"indices": -1 - whole.indices}, {"ms": whole.ms[:3]},
        {"indices": whole.indices[:, :1]}, {"indices": whole.indices.astype(float)}, {"costs": whole.costs.astype(str)},
    ):  # fmt: skip
        file.write_bytes(dataclasses.replace(whole, **change).to_bytes())
        assert cache.load(contender("random"), 5) is None, change
    for at in range(0, len(content), 7):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        found = cache.load(contender("random"), 5)
        assert found is None or np.array_equal(found.costs, whole.costs)
    file.write_bytes(content)
    assert np.array_equal(cache.load(contender("random"), 5).costs, whole.costs)
    with pytest.raises(ValueError, match="not a stored search"):
        Searched.from_bytes(b"")


def test_code_of_other_controllers_does_not_matter():
    root = Path(mnas.__file__).parent
    ppo = {str(file.relative_to(root)) for file in sources_of("mnas.controller.ppo")}
    assert {"controller/ppo.py", "controller/policy.py", "controller/sampler.py"} <= ppo
    assert "controller/evolution.py" not in ppo
    versions = {name: code_version(name) for name in CONTROLLERS}
    assert versions["ppo"] != versions["evolution"]
    assert versions["random"] == versions["nsga2"] == versions["tpe"]  # all in named.py
    assert code_version("optuna.samplers:TPESampler") != versions["tpe"]


def test_edited_modules_of_the_user_are_a_cache_miss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts" / "inner").mkdir(parents=True)
    files = {
        "wrapping.py": "import optuna\nfrom annealing import Sampler\ndef make(seed):\n    return Sampler(seed=seed)\n",
        "annealing.py": "from optuna.samplers import RandomSampler as Sampler\n"
        "def later():\n    import parts.inner.cooling\n",
        "parts/__init__.py": "",
        "parts/inner/__init__.py": "from . import heat\nfrom ..steps import size\n",
        "parts/inner/cooling.py": "",
        "parts/inner/heat.py": "import wrapping\n",
        "parts/steps.py": "size = 1\n",
        "unrelated.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    find_controller("wrapping:make")
    assert {str(file.relative_to(tmp_path)) for file in sources_of("wrapping")} == files.keys() - {"unrelated.py"}
    before = code_version("wrapping:make")
    for name, text in files.items():
        (tmp_path / name).write_text(text + "# edited\n")
        assert (code_version("wrapping:make") == before) == (name == "unrelated.py"), name
        (tmp_path / name).write_text(text)
        assert code_version("wrapping:make") == before


def test_a_users_sampler_depends_on_the_samplers_of_mnas_that_it_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "likeppo.py").write_text("from mnas.controller.ppo import PPOSampler\nmake = PPOSampler\n")
    find_controller("likeppo:make")
    root = Path(mnas.__file__).parent
    assert set(sources_of("likeppo")) == {tmp_path / "likeppo.py", *sources_of("mnas.controller.ppo")}
    assert root / "controller" / "policy.py" in sources_of("likeppo")


def test_code_that_changes_during_a_bench_does_not_move_its_searches(benchmark_, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", benchmark_)
    assert cache.load(contender("random"), 5) is None
    with monkeypatch.context() as patch:
        patch.setattr("mnas.bench.cache.code_version", lambda controller: "edited")
        cache.keep(contender("random"), run_search(benchmark_, contender("random"), 5))
        assert Cache(tmp_path / "cache", benchmark_).load(contender("random"), 5) is None
    assert Cache(tmp_path / "cache", benchmark_).load(contender("random"), 5) is not None
