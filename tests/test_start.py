"""A search that begins with named networks and with the trials of earlier runs."""

import dataclasses
import math
import shutil

import pytest
from optuna import load_study
from test_search import Listener, facts
from toy import latency_of, toy_calibrations, toy_config, toy_plan, toy_problem, toy_space

from mnas.arch import Arch
from mnas.controller.closed import ClosedBatches
from mnas.controller.named import CONTROLLERS
from mnas.search.candidate import trial_seed
from mnas.search.loop import search
from mnas.search.start import initial_trials, read_start
from mnas.space.candidates import CandidateSpace
from mnas.study import DIRECTIONS, Beginning, Origin, RunError, count_imported, front_of, open_run, read_run


def searched(path, *, start=(), config=None, problem=None, reference_ms=1.0, hours=1.0, **plan):
    """Return a finished run of the toy problem that started from `start`."""
    problem, plan, config = problem or toy_problem(), toy_plan(hours=hours, **plan), config or toy_config()
    watcher = Listener()

    def begin():
        members, histories = read_start(list(map(str, start)), problem.space.space, config, path)
        calibrations = histories[0].calibrations if histories else toy_calibrations(reference_ms)
        trials = list(initial_trials(members, histories, problem, plan))
        return Beginning(trials=trials, attributes={"calibrations": calibrations})

    with open_run(path, config, begin) as run:
        search(run, problem, plan, watcher)
    return read_run(path), watcher


def frozen_trials(path):
    """Return the trials as Optuna reads them."""
    return load_study(study_name="mnas", storage=f"sqlite:///{path / 'study.db'}").get_trials()


def member_json(path, arch):
    path.write_text(arch.to_json())
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A run of sixteen trials, whose last batch is incomplete."""
    run, _ = searched(tmp_path_factory.mktemp("old") / "run", trials=16, seed=3)
    assert {t.state for t in run.trials} == {"complete", "skipped", "failed"}
    return run


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run of more than a hundred trials of the larger space, without skips."""
    problem = toy_problem(layers=(0, 1))
    run, _ = searched(
        tmp_path_factory.mktemp("large") / "run", config=toy_config(space=problem.space.space.to_dict()),
        problem=problem,
        controller="random", trials=132, latency_limit=math.inf,
    )  # fmt: skip
    return run


def searched_from_large(path, large, controller):
    """Search for twelve more trials."""
    problem = toy_problem(layers=(0, 1))
    run, _ = searched(
        path, start=[large.path], config=toy_config(space=problem.space.space.to_dict()), problem=problem,
        controller=controller, trials=12, latency_limit=math.inf,
    )  # fmt: skip
    return run


def test_finished_trials_are_imported_and_the_search_continues(tmp_path, old):
    run, watcher = searched(tmp_path / "new", start=[old.path])
    imported = [t for t in old.trials if t.state in ("complete", "skipped")]
    count = len(imported)
    assert count_imported(run.trials) == count
    assert len(run.trials) == count + 22  # --trials are new ones
    for t, before in zip(run.trials, imported, strict=False):
        assert (t.state, t.choices, t.accuracy) == (before.state, before.choices, before.accuracy)
        assert t.origin == Origin(run=str(old.path), trial=before.number)
        assert t.reward == before.reward
        assert t.seed == before.seed
        assert t.latency.ratio == before.latency.ratio
        assert t.latency.source == "cached"
        if t.same_as is not None:
            assert run.trials[t.same_as].fingerprint == t.fingerprint
    assert [(t.same_as is not None) for t in run.trials[:count]] == [(t.same_as is not None) for t in imported]
    # drawn trials take the next numbers; a network that the old run trained is not trained again
    drawn = run.trials[count:]
    assert all(t.seed == trial_seed(1, t.number) for t in drawn)
    assert any((t.same_as if t.same_as is not None else count) < count for t in drawn)
    # the watcher counts only trials of this search
    assert watcher.seen[-1].total == watcher.seen[-1].finished == 22
    first = count // 6
    assert sorted(k for k in run.attributes if k.startswith("update:")) == sorted(
        f"update:{batch}" for batch in range(first, -(-(count + 22) // 6))
    )
    assert run.attributes[f"update:{first}"]["trials"] == (first + 1) * 6


@pytest.mark.parametrize(
    "controller", [pytest.param(c, marks=pytest.mark.slow) if c == "surrogate" else c for c in CONTROLLERS]
)
def test_every_draw_follows_from_the_batches_before_it(tmp_path, old, controller):
    """A new `ClosedBatches` draws the same trials from the stored ones."""
    run, _ = searched(tmp_path / "new", start=[old.path], controller=controller, trials=8)
    imported = count_imported(run.trials)
    space = toy_problem().space
    for number in (imported, imported + 7):
        batches = ClosedBatches(
            controller,
            space.distributions,
            directions=DIRECTIONS,
            seed=1,
            batch_size=6,
            reward=lambda t: toy_problem().objective.reward(*t.values),
            canonical=lambda indices: space.encode(space.decode(indices)),
        )
        drawn = batches.draw(frozen_trials(run.path), number)
        assert drawn.params == run.trials[number].choices


def test_a_controller_learns_from_imported_trials(tmp_path, large):
    """Evolution needs a hundred trials; imported ones suffice for children from the first draw."""
    run = searched_from_large(tmp_path / "new", large, "evolution")
    imported = count_imported(run.trials)
    assert imported >= 106
    for t in run.trials[imported // 6 * 6 + 6 :]:
        parents = run.trials[: t.number // 6 * 6][-100:]
        assert any(sum(t.choices[name] != p.choices[name] for name in t.choices) == 1 for p in parents)


def test_limits_of_this_run_apply_to_imported_trials(tmp_path, old):
    run, _ = searched(tmp_path / "new", start=[old.path], trials=2, latency_limit=0.9)
    for t in run.trials[: count_imported(run.trials)]:
        slow = t.latency.latency_ms > 0.9 * 1.5
        assert (t.state == "skipped") == slow
        assert (t.reward is not None) == (t.state == "complete")
    # trials that the old run skipped for a limit that this run lacks are not imported, as they were never trained
    free, _ = searched(tmp_path / "free", start=[old.path], trials=2, latency_limit=math.inf)
    assert count_imported(free.trials) == sum(t.state == "complete" for t in old.trials)


def test_milliseconds_of_a_second_run_are_rescaled_to_the_first(tmp_path, old):
    other, _ = searched(tmp_path / "other", trials=6, seed=5, reference_ms=2.0)
    run, _ = searched(tmp_path / "new", start=[old.path, other.path], trials=2)
    assert run.attributes["calibrations"] == old.attributes["calibrations"]
    back, _ = searched(tmp_path / "back", start=[other.path, old.path], trials=2, latency_limit=math.inf)
    for t in back.trials[: count_imported(back.trials)]:
        expected = 2.0 * latency_of(t.arch).ratio
        assert t.latency.latency_ms == pytest.approx(expected)
        if t.state == "complete":
            assert t.latency_ms == t.latency.latency_ms
            assert t.reward == toy_problem().objective.reward(*t.point)


def test_one_training_is_imported_once(tmp_path, old):
    """A run that started from another one also contains its trials."""
    child, _ = searched(tmp_path / "child", start=[old.path], trials=6)
    run, _ = searched(tmp_path / "new", start=[old.path, child.path], trials=2)
    origins = [t.origin.run for t in run.trials[: count_imported(run.trials)]]
    own = [t for t in child.trials[count_imported(child.trials) :] if t.state != "failed"]
    assert origins == [str(old.path)] * count_imported(child.trials) + [str(child.path)] * len(own)


def test_weights_of_the_front_are_copied(tmp_path, old):
    run, watcher = searched(tmp_path / "new", start=[old.path], trials=2)
    kept = {p.name for p in (run.path / "models").iterdir()}
    of_trials = {f"{t.number}.safetensors" for t in front_of(run.trials)}
    assert kept - {"mobilenetv2.safetensors"} == of_trials
    for t in front_of(run.trials):
        if t.origin:
            assert run.path.joinpath(f"models/{t.number}.safetensors").read_text() == t.fingerprint
    # an old run without weights does not stop the search
    bare = shutil.copytree(old.path, tmp_path / "bare")
    shutil.rmtree(bare / "models")
    _, watcher = searched(tmp_path / "without", start=[bare], trials=2)
    front = {f"{bare}#{t.number}" for t in front_of(old.trials)}
    [said] = [line for line in watcher.said if line.startswith("no stored weights")]
    assert set(said.removeprefix("no stored weights for the imported trials ").split(", ")) == front


def test_named_networks_are_the_first_trials(tmp_path):
    space = toy_problem().space
    archs = [space.decode(space.indices(space.params([0] * 12))).arch, space.decode([1, 1, *[0] * 10]).arch]
    files = [member_json(tmp_path / f"{i}.json", arch) for i, arch in enumerate(archs)]
    run, _ = searched(tmp_path / "new", start=files, trials=8)
    assert len(run.trials) == 8  # they are among --trials, as they are trained like any other
    for t, arch, file in zip(run.trials, archs, files, strict=False):
        assert t.arch == arch
        assert t.name == str(file)
        assert t.seed == trial_seed(1, t.number)
    plain, _ = searched(tmp_path / "plain", trials=8)
    assert [t.choices for t in run.trials[2:6]] == [t.choices for t in plain.trials[2:6]]  # one batch, drawn alike


def test_named_networks_follow_imported_trials(tmp_path, old):
    file = member_json(tmp_path / "a.json", toy_problem().space.decode([0] * 12).arch)
    run, _ = searched(tmp_path / "new", start=[file, old.path], trials=3)
    imported = count_imported(run.trials)
    assert [t.name for t in run.trials[imported:]] == [str(file), None, None]
    assert len(run.trials) == imported + 3


def test_nsga2_counts_imported_trials(tmp_path, large):
    run = searched_from_large(tmp_path / "new", large, "nsga2")
    imported = count_imported(run.trials)
    assert imported > 56
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in frozen_trials(run.path)]
    assert generations == [0] * imported + [1] * 12


def test_incomparable_runs_are_rejected_with_the_fields(tmp_path, old):
    cases = [
        ({"proxy": {"epochs": 2}}, "proxy.epochs: 1 in that run, 2 now"),
        ({"device": "pixel"}, 'device: "host" in that run, "pixel" now'),
        ({"input_size": 16, "data_content": "larger"}, "input_size: 8 in that run, 16 now$"),
        ({"seed": 2, "data_content": "other images held out"}, "seed: 1 in that run, 2 now$"),
        ({"data_content": "changed"}, 'data_content: "images" in that run, "changed" now$'),
    ]
    for changes, message in cases:
        with pytest.raises(RunError, match=f"space, images, proxy task and device, but .* differs: .*{message}"):
            searched(tmp_path / "new", start=[old.path], config=toy_config(**changes))
        assert not (tmp_path / "new").exists()  # nothing was begun
    # another seed of equal images, another target, another controller make no difference
    run, _ = searched(tmp_path / "new", start=[old.path], config=toy_config(seed=2, controller="tpe"), trials=1)
    assert count_imported(run.trials) > 0
    other = dataclasses.replace(
        toy_problem(), space=CandidateSpace(space=dataclasses.replace(toy_space(), name="other"), input_sizes=(8,))
    )
    with pytest.raises(RunError, match=r'space\.name: "toy" in that run, "other" now'):
        searched(tmp_path / "b", start=[old.path], config=toy_config(space=other.space.space.to_dict()), problem=other)


def test_predicted_latencies_are_not_imported_as_measured(tmp_path):
    old, _ = searched(tmp_path / "old", config=toy_config(latency="predicted"), trials=2)
    with pytest.raises(RunError, match='latency: "predicted" in that run, "measured" now'):
        searched(tmp_path / "new", start=[old.path])
    run, _ = searched(tmp_path / "new", start=[old.path], config=toy_config(latency="predicted"), trials=1)
    assert count_imported(run.trials) > 0


def test_runs_of_different_devices_do_not_mix(tmp_path, old):
    other = toy_calibrations()
    other["host"][0]["device"] = {"cpu": "another"}
    path = shutil.copytree(old.path, tmp_path / "other")
    with open_run(path, toy_config()) as run:
        run.set("calibrations", other)
    with pytest.raises(RunError, match=r'on the same device, but got device\.cpu: "toy" in .*, "another" in '):
        searched(tmp_path / "new", start=[old.path, path])


def test_invalid_names_to_start_from(tmp_path, old):
    with pytest.raises(
        ValueError,
        match=r"^mnasnet-a1 is not in this search space: networks of space toy have 2 blocks, but this one has 7; "
        r"use another --space, or drop it from --start-from$",
    ):
        searched(tmp_path / "new", start=["mnasnet-a1"])
    with pytest.raises(ValueError, match=r"^--start-from: 'nonsense' is not a network; a network must be one of"):
        searched(tmp_path / "new", start=["nonsense"])
    wide = member_json(tmp_path / "wide.json", Arch.from_block_strings("r1_k3_s11_e1_i16_o16,r1_k3_s22_e3_i16_o99"))
    with pytest.raises(ValueError, match=r"wide\.json is not in this search space: "):
        searched(tmp_path / "new", start=[wide])
    file = member_json(tmp_path / "a.json", toy_problem().space.decode([0] * 12).arch)
    with pytest.raises(ValueError, match="must name each network and run once, but got "):
        searched(tmp_path / "new", start=[file, f"{tmp_path}/./a.json"])
    copy = member_json(tmp_path / "b.json", toy_problem().space.decode([0] * 12).arch)
    with pytest.raises(ValueError, match=r"must name different networks, but .*a\.json and .*b\.json are the same"):
        searched(tmp_path / "new", start=[file, copy])
    with pytest.raises(RunError, match=r"but .* is the run of this search"):
        read_start([str(old.path)], toy_problem().space.space, toy_config(), old.path)
    with open_run(tmp_path / "empty", toy_config()):
        pass
    with pytest.raises(RunError, match=r"runs with trained candidates, but .*empty has none"):
        searched(tmp_path / "new", start=[tmp_path / "empty"])
    with (
        open_run(old.path, toy_config()),
        pytest.raises(RunError, match=r"runs that have stopped, but .* is running; wait for it, or stop it"),
    ):
        searched(tmp_path / "new", start=[old.path])
    assert not (tmp_path / "new").exists()


def test_the_old_run_may_change_or_go(tmp_path, old):
    """Imported trials are in the new study from its first moment."""
    copy = shutil.copytree(old.path, tmp_path / "copy")
    whole, _ = searched(tmp_path / "whole", start=[copy], trials=8)
    searched(tmp_path / "parts", start=[copy], trials=3)
    shutil.rmtree(copy)
    parts, _ = searched(tmp_path / "parts", start=[copy], trials=8)
    assert facts(parts) == facts(whole)
