"""Several devices in a report: the front of each, and the cost of sharing one model."""

import re
from dataclasses import asdict, replace

import pytest
from synthetic_run import DEVICES, OBJECTIVE, VAL_IMAGES, calibration_dict

from mnas.evaluate.evaluation import accuracy_noise
from mnas.objective import pareto_front
from mnas.report.devices import sharing_costs, views
from mnas.report.facts import facts_of
from mnas.report.figures import figures
from mnas.report.html import report_html
from mnas.study import Snapshot

DONE, SKIPPED = "complete", "skipped"


def own_reward(trial, device: str) -> float:
    ms = trial.latencies[device].latency_ms
    return replace(OBJECTIVE, target_latency_ms=DEVICES[device]).reward(trial.accuracy, ms)


def test_each_device_has_its_own_front(make_snapshot):
    snapshot = make_snapshot([DONE] * 40, devices=2)
    facts = facts_of(snapshot)
    together, *alone = views(facts)
    assert (together.front, together.best, together.targets_ms) == (facts.front, (facts.best,), (2.0,))
    assert [view.device for view in alone] == ["host", "board"]
    for view in alone:
        told = [(t.accuracy, t.latencies[view.device].latency_ms) for t in snapshot.trials]
        assert [c.number for c in view.front] == pareto_front(told)
        assert view.targets_ms == (DEVICES[view.device],)
    fronts = [[c.number for c in view.front] for view in (together, *alone)]
    assert fronts[1] != fronts[2]
    charts = figures(facts)
    assert [name for name in charts if name.startswith("scatter")] == ["scatter", "scatter-1", "scatter-2"]
    for view, name in zip((together, *alone), ("scatter", "scatter-1", "scatter-2"), strict=True):
        front = next(trace for trace in charts[name]["data"] if trace["name"] == "Pareto front")
        assert front["x"] == [view.latency(c).latency_ms for c in view.front]
        assert charts[name]["layout"]["shapes"][0]["x0"] == view.targets_ms[0]
    assert "scatter-1" not in figures(facts_of(make_snapshot([DONE] * 3)))


def test_what_sharing_costs_is_the_difference_to_the_best_alone(make_snapshot):
    snapshot = make_snapshot([DONE] * 40 + [SKIPPED], devices=2)
    facts = facts_of(snapshot)
    costs = sharing_costs(facts)
    assert [cost.device for cost in costs] == ["host", "board"]
    done = snapshot.trials[:40]
    for cost in costs:
        rewards = [own_reward(t, cost.device) for t in done]
        assert cost.alone.number == rewards.index(max(rewards))
        assert cost.alone_reward == max(rewards)
        assert cost.shared is facts.best
        assert cost.shared_reward == rewards[facts.best.number]
        assert cost.reward_lost == max(rewards) - rewards[facts.best.number]
    assert [cost.alone is cost.shared for cost in costs] == [True, False]  # so that the table has both kinds
    assert sharing_costs(facts_of(make_snapshot([DONE] * 3))) == []
    assert sharing_costs(facts_of(make_snapshot([SKIPPED] * 3, devices=2))) == []


def test_the_table_says_both_models_and_the_difference(make_snapshot):
    snapshot = make_snapshot([DONE] * 40, devices=2)
    [same, other] = sharing_costs(facts_of(snapshot))
    text = report_html(snapshot)
    table = re.search(r'id="sharing">.*?</table>', text, re.DOTALL)[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr class.*?</tr>", table)]
    assert [row[2] for row in rows] == ["alone", "shared", "difference"] * 2
    assert rows[0][3] == rows[1][3] == str(same.shared.number)
    assert rows[2][4] == "none (same model)"
    assert [rows[3][0], rows[3][1], rows[3][3]] == ["board", "30.00 ms", str(other.alone.number)]
    assert [rows[3][7], rows[4][7]] == [f"{other.alone_reward:.4f}", f"{other.shared_reward:.4f}"]
    accuracy = other.shared.accuracy - other.alone.accuracy
    noise = accuracy_noise(max(other.shared.accuracy, other.alone.accuracy), VAL_IMAGES)
    assert rows[5][4] == f"{100 * accuracy:+.2f} points" + (", within chance" if abs(accuracy) < noise else "")
    assert float(rows[5][7]) == pytest.approx(-other.reward_lost, abs=5e-5)
    for row, latency in ((rows[3], other.alone_latency), (rows[4], other.shared_latency)):
        assert row[5].startswith(f"{latency.latency_ms:#.4g} ms [")
        assert f">{latency.source}</i>" in row[5]
    assert "Cost of sharing one model" not in report_html(make_snapshot([DONE] * 10, name="one"))


def test_the_front_table_has_a_column_for_each_device(make_snapshot):
    snapshot = make_snapshot([DONE] * 20, devices=2)
    facts = facts_of(snapshot)
    table = re.search(r'id="front">.*?</table>', report_html(snapshot), re.DOTALL)[0]
    head = re.findall(r"<th>(.*?)</th>", table)
    assert head == ["trial", "accuracy", "host", "board", "of T", "reward", "params", "MACs", "file MB", "memory MB"]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr class.*?</tr>", table)]
    for row, candidate in zip(rows, facts.front, strict=False):
        assert row[0] == str(candidate.number)
        for cell, latency in zip(row[2:4], candidate.latencies.values(), strict=True):
            assert cell.startswith(f"{latency.latency_ms:#.4g} ms")
            assert cell.endswith(f'<i class="source {latency.source}">{latency.source}</i>')
        worst = max(x.latency_ms / DEVICES[device] for device, x in candidate.latencies.items())
        assert row[4] == f"{worst:.2f}"
        peaks = [x.peak_memory_bytes for x in candidate.latencies.values()]
        assert row[9] == ("–" if peaks == [None, None] else f"{max(peaks) / 1e6:.2f}")
        assert row[8] == f"{candidate.size_bytes / 1e6:.2f}"
    assert [row[0] for row in rows[len(facts.front) :]] == ["mobilenetv2", "mnasnet-a1"]
    assert rows[-1][4] == "1.15"


def test_units_are_listed_with_what_they_measured(make_snapshot):
    snapshot = make_snapshot([DONE] * 20, devices=2)
    table = re.search(r'id="devices">.*?</table>', report_html(snapshot), re.DOTALL)[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr class.*?</tr>", table)]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("host", "2.000 ms", "host"),
        ("board", "30.00 ms", "pi-0"),
        ("", "", "pi-1"),
    ]
    odd = "over 10% off the calibration"
    assert [row[4] for row in rows] == ["", "-1.6%", "+1.6%"]
    assert [row[8] for row in rows] == [
        "12 measured, 4 cached",
        f"6 measured, 2 cached, 2 {odd}, 2 in disturbed rounds",
        f"6 measured, 2 cached, 2 {odd}, 2 in disturbed rounds",
    ]
    assert [row[9] for row in rows] == ["4 predicted", "4 predicted", ""]


def test_a_search_on_two_devices_writes_what_the_report_reads(tmp_path):
    from test_search import run_search
    from test_search_devices import TARGETS, two_devices

    run, _, _ = run_search(tmp_path / "run", two_devices(), trials=12, latency_limit=0.9)
    objective = replace(OBJECTIVE, target_latency_ms=TARGETS["phone"])
    attributes = {**run.attributes, "objective": asdict(objective), "sharing": {"targets_ms": TARGETS, "weights": {}}}
    attributes["calibrations"] = {device: [calibration_dict(device, ms)] for device, ms in TARGETS.items()}
    snapshot = Snapshot(run.path, attributes, run.trials)
    facts = facts_of(snapshot)
    done = [t for t in run.trials if t.state == DONE]
    assert [c.number for c in facts.candidates] == [t.number for t in done]
    for candidate, trial in zip(facts.candidates, done, strict=True):
        multiples = [x.latency_ms / TARGETS[device] for device, x in candidate.latencies.items()]
        assert candidate.latency_ms == trial.latency_ms == pytest.approx(2.0 * max(multiples))
        assert candidate.source == "measured"
    skipped = [t.number for t in run.trials if t.state == SKIPPED]
    assert skipped
    assert facts.skips["latency"] == skipped
    text = report_html(snapshot)
    for cost in sharing_costs(facts):
        assert f"<td>{cost.alone_reward:.4f}</td>" in text
    assert "latency on phone and board, relative to mobilenetv2" in text
