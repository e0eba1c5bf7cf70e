"""Devices in a search: several, none available, limits on size and memory, and predicted latencies."""

from dataclasses import replace

import pytest
from test_search import facts, run_search
from toy import latency_of, measure, number_of, toy_problem, toy_space

from mnas.latency.fleet.fleet import Measured
from mnas.latency.latency import UnitError
from mnas.latency.prediction.predictor import WIDEST
from mnas.objective import Objective, Sharing
from mnas.study import front_of, read_run
from mnas.study.limits import Skip

TARGETS = {"phone": 2.0, "board": 40.0}


def on_two(arch):
    """A device that is about twenty times slower and ranks networks differently."""
    phone = latency_of(arch)
    ms = 20 + number_of(arch.fingerprint[::-1]) % 20
    return {"phone": phone, "board": replace(phone, low_ms=0.9 * ms, latency_ms=1.0 * ms, high_ms=1.1 * ms)}


def measure_on_two(candidates):
    for number, candidate in candidates.items():
        yield number, Measured(latencies=on_two(candidate.arch), size_bytes=1000)


def two_devices(**weights):
    sharing = Sharing(targets_ms=TARGETS, weights=weights)
    objective = Objective(form="soft", target_latency_ms=2.0, alpha=-0.07, beta=-0.07)
    return toy_problem(measure=measure_on_two, sharing=sharing, objective=objective)


def test_the_worst_multiple_of_a_devices_target_decides(tmp_path):
    run, _, _ = run_search(tmp_path / "run", two_devices())
    complete = [t for t in run.trials if t.state == "complete"]
    assert complete
    decided = set()
    for trial in complete:
        told = {name: latency.latency_ms for name, latency in trial.latencies.items()}
        assert list(told) == ["phone", "board"]
        multiples = {name: told[name] / TARGETS[name] for name in told}
        decided.add(max(multiples, key=multiples.get))
        assert trial.latency_ms == pytest.approx(2.0 * max(multiples.values()))
        assert trial.latency.latency_ms == trial.latency_ms
        low_ms, high_ms = trial.latency.low_ms, trial.latency.high_ms
        assert low_ms < trial.latency_ms < high_ms
    assert decided == {"phone", "board"}


def test_weights_take_the_mean_of_the_multiples(tmp_path):
    run, _, _ = run_search(tmp_path / "run", two_devices(phone=1.0, board=3.0))
    trial = next(t for t in run.trials if t.state == "complete")
    told = {name: latency.latency_ms for name, latency in trial.latencies.items()}
    assert trial.latency_ms == pytest.approx(2.0 * (told["phone"] / 2 + 3 * told["board"] / 40) / 4)


def test_one_device_is_not_rounded_by_its_target():
    assert Sharing(targets_ms={"phone": 0.3}, weights={}).latency_ms({"phone": 0.1}) == 0.1


@pytest.mark.parametrize(
    ("sharing", "words"),
    [
        (
            {"targets_ms": {"phone": 0.0}, "weights": {}},
            "--target-latency-ms must be greater than 0 on phone, but got 0.0",
        ),
        (
            {"targets_ms": TARGETS, "weights": {"phone": 1.0}},
            "--device-weights must weight each of phone, board, but got phone",
        ),
        (
            {"targets_ms": TARGETS, "weights": {"phone": 1.0, "board": -1.0}},
            "--device-weights must be greater than 0, but got phone=1,board=-1",
        ),
    ],
)
def test_invalid_sharing_is_rejected(sharing, words):
    with pytest.raises(ValueError, match=words):
        Sharing(**sharing)


def test_a_search_stops_without_devices_and_resumes_later(tmp_path):
    calls = []

    def fails_once(archs):
        for outcome in measure(archs):
            calls.append(outcome)
            if len(calls) == 12:  # in the middle of the second batch
                raise UnitError("phone: no answer within 120 s")
            yield outcome

    with pytest.raises(UnitError, match="no answer"):
        run_search(tmp_path / "run", toy_problem(measure=fails_once))
    stored = read_run(tmp_path / "run")
    assert (stored.state.status, stored.state.reason) == ("stopped", "phone: no answer within 120 s")
    assert any(t.state == "running" for t in stored.trials)
    again, reason, _ = run_search(tmp_path / "run", toy_problem(measure=fails_once))
    whole, _, _ = run_search(tmp_path / "whole")
    assert reason == "trials"
    assert facts(again) == facts(whole)


def test_a_batch_is_measured_at_once_and_no_network_twice(tmp_path):
    asked = []

    def remembering(archs):
        asked.append([candidate.arch.fingerprint for candidate in archs.values()])
        return measure(archs)

    run, _, _ = run_search(tmp_path / "run", toy_problem(measure=remembering))
    measured = [fingerprint for batch in asked[1:] for fingerprint in batch]  # without the reference
    assert len(measured) == len(set(measured))
    assert set(measured) == {t.fingerprint for t in run.trials}
    assert len(asked) <= 1 + 4  # of 22 trials in batches of 6


def test_large_files_are_not_measured_and_large_memories_not_trained(tmp_path):
    def size_bytes(candidate):
        return number_of(candidate.arch.fingerprint) % 4 * 1_000_000

    def measure_memory(archs):
        for number, measured in measure(archs):
            peak = number_of(archs[number].arch.fingerprint[::-1]) % 3 * 10_000_000
            latency = replace(measured.latencies["host"], peak_memory_bytes=peak)
            yield number, replace(measured, latencies={"host": latency})

    problem = toy_problem(measure=measure_memory, size_bytes=size_bytes)
    run, _, _ = run_search(tmp_path / "run", problem, max_size_mb=2.5, max_memory_mb=15.0, latency_limit=10.0)
    reasons = set()
    for trial in run.trials:
        fingerprint = trial.fingerprint
        large = number_of(fingerprint) % 4 == 3
        hungry = number_of(fingerprint[::-1]) % 3 == 2
        assert trial.size_bytes == number_of(fingerprint) % 4 * 1_000_000
        assert (trial.state == "skipped") == (large or hungry)
        assert (trial.latency is not None) == (not large)
        reasons.add(trial.skipped)
    assert reasons == {
        None,
        Skip(limit="size", value=3.0, bound=2.5),
        Skip(limit="memory", value=20.0, bound=15.0),
    }


def predict(arch):
    """5 % too fast, or so uncertain that it has to be measured."""
    true = latency_of(arch)
    ms = 0.95 * true.latency_ms
    half = 3 * WIDEST if number_of(arch.fingerprint) % 5 == 0 else 0.06
    told = {"low_ms": ms * (1 - half), "latency_ms": ms, "high_ms": ms * (1 + half)}
    return {"host": replace(true, **told, runs=0, rounds=0, source="predicted")}


@pytest.mark.parametrize("workers", [1, 3])
def test_predicted_latencies_are_measured_where_they_matter(tmp_path, workers):
    run, _, _ = run_search(tmp_path / "run", toy_problem(predict=predict), workers=workers)
    sources = {}
    for trial in run.trials:
        if trial.state != "complete":
            continue
        [latency] = trial.latencies.values()
        sources[trial.number] = latency.source
        true_ms = latency_of_trial(trial).latency_ms
        assert trial.latency_ms == pytest.approx(true_ms if latency.source == "measured" else 0.95 * true_ms)
        if number_of(trial.fingerprint) % 5 == 0:
            assert latency.source == "measured"
    assert set(sources.values()) == {"measured", "predicted"}
    assert {sources[t.number] for t in front_of(run.trials)} == {"measured"}
    if workers > 1:  # the order of trainings does not change what is measured
        alone, _, _ = run_search(tmp_path / "alone", toy_problem(predict=predict))
        assert facts(run) == facts(alone)


def test_with_a_limit_on_memory_everything_is_measured(tmp_path):
    run, _, _ = run_search(tmp_path / "run", toy_problem(predict=predict), max_memory_mb=1000.0)
    told = [latency.source for t in run.trials for latency in t.latencies.values()]
    assert set(told) == {"measured"}


def latency_of_trial(trial):
    return latency_of(trial.arch)


def test_a_combined_latency_has_the_less_certain_source():
    from mnas.search.measure import shared_latency

    latencies = {"phone": predict(example())["host"], "board": on_two(example())["board"]}
    sharing = Sharing(targets_ms={"phone": 1000.0, "board": 1.0}, weights={})
    together = shared_latency(sharing, latencies)
    assert (together.source, latencies["board"].source) == ("predicted", "measured")
    assert together.latency_ms == pytest.approx(1000 * latencies["board"].latency_ms)


def example():
    return toy_space().decode([0] * len(toy_space().decisions))
