import math
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from synthetic_run import VAL_IMAGES, synthetic_trial

from mnas.arch import Arch
from mnas.objective import pareto_front
from mnas.plot import SYMBOLS
from mnas.report.facts import Update, facts_of, indistinguishable, sampled_shares, thirds, wilson_interval
from mnas.report.figures import figures, histogram, rewards, weights
from mnas.report.html import report_html
from mnas.report.scatter import hover, scatters
from mnas.report.sections import shares
from mnas.study import State, read_run

DONE, FAILED, SKIPPED, RUNNING = "complete", "failed", "skipped", "running"


def test_wilson_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3: 81/263, 15/148, 0/20, 1/29
    for successes, images, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson_interval(successes / images, images) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1.0, 360)[1] == 1.0
    assert wilson_interval(0.4, 0) == (0.4, 0.4)


def test_the_reports_numbers_are_the_studys(make_run):
    run = make_run([DONE] * 14 + [FAILED, SKIPPED, FAILED] + [DONE] * 3 + [RUNNING])
    snapshot = read_run(run)
    facts = facts_of(snapshot)
    done = [t for t in snapshot.trials if t.state == DONE]
    assert [c.number for c in facts.candidates] == [t.number for t in done]
    assert [[c.accuracy, c.latency_ms] for c in facts.candidates] == [list(t.point) for t in done]
    front = [done[i].number for i in pareto_front([(t.accuracy, t.latency_ms) for t in done])]
    assert [c.number for c in facts.front] == front
    assert len(front) >= 2
    assert facts.best.reward == max(t.reward for t in done)
    assert (facts.count(DONE), facts.count(FAILED), facts.count(SKIPPED), facts.count(RUNNING)) == (17, 2, 1, 1)
    assert facts.errors == {"diverged: loss is nan": [14, 16]}
    assert facts.skips == {"latency": [15]}
    assert len(facts.drawn_ms["measured"]) == 20  # skipped and failed trials were measured, the running one not yet
    assert [u.trials for u in facts.updates] == [10, 20]


def test_the_charts_hold_every_candidate_once(make_snapshot):
    facts = facts_of(make_snapshot([DONE] * 12 + [FAILED]))
    named = {trace["name"]: trace for trace in scatters(facts)["scatter"]["data"]}
    points = [p for name in ("trials", "Pareto front") for p in zip(named[name]["x"], named[name]["y"], strict=True)]
    assert sorted(points) == sorted((c.latency_ms, c.accuracy) for c in facts.candidates)
    assert named["mobilenetv2"]["y"] == [0.84]
    best = rewards(facts)["data"][1]["y"]
    assert best == [max(c.reward for c in facts.candidates[: i + 1]) for i in range(12)]
    hover = named["Pareto front"]["hovertext"][0]
    first = facts.front[0]
    for text in (f"trial {first.number}<", f"{first.params:,} params", *first.arch.block_strings):
        assert text in hover


def test_entropies_are_summed_over_a_block():
    update = Update(
        trials=1,
        hypervolume=0.0,
        diagnostics={"entropy_per_decision": {"block1.op": 1.0, "block1.kernel": 0.5, "block2.op": 0.25}},
    )
    assert update.block_entropies == {"block1": 1.5, "block2": 0.25}
    assert Update(trials=1, hypervolume=0.0, diagnostics={}).block_entropies == {}


def test_only_faster_models_within_the_noise_are_indistinguishable(make_snapshot):
    facts = facts_of(make_snapshot([DONE] * 40))
    best = facts.best
    close = indistinguishable(best, facts.front)
    for candidate in facts.front:
        p, q = candidate.accuracy, best.accuracy
        noise = 1.96 * math.sqrt(2 * q * (1 - q) / VAL_IMAGES)
        assert (candidate in close) == (candidate.latency_ms < best.latency_ms and q - p < noise)


def test_shares_count_blocks():
    rng = random.Random(3)
    trials = [synthetic_trial(n, DONE, rng) for n in range(7)]
    sampled = sampled_shares(trials)
    blocks = [b for t in trials for b in t.arch.blocks]
    assert sampled["kernel"]["3x3"] == sum(b.kernel == 3 for b in blocks) / len(blocks)
    assert sampled["operation"].get("mbconv6", 0) == sum(b.expansion == 6 for b in blocks) / len(blocks)
    assert all(math.isclose(sum(choice.values()), 1) for choice in sampled.values())
    assert [(name, len(part)) for name, part in thirds(trials).items()] == [("0–1", 2), ("2–3", 2), ("4–6", 3)]
    assert list(thirds(trials[:2])) == ["0–1"]
    assert thirds([]) == {}
    assert sampled_shares([]) == {}


def test_shares_of_universal_inverted_bottlenecks():
    strings = (
        "r1_k3_s22_e12_i16_o16,r1_k0_s11_e4.5_o16_uib,r2_a5_k3_s11_e12_o16_uib,r10_k3_s11_e4_o16_uib,"
        "r1_k1_s11_e1_o8_conv"
    )
    sampled = sampled_shares([SimpleNamespace(arch=Arch.from_block_strings(strings))])
    assert list(sampled["operation"]) == ["conv", "mbconv12", "uib4", "uib4.5", "uib12"]
    assert sampled["kernel"] == {"1x1": 0.2, "3x3": 0.6, "none": 0.2}
    assert sampled["start kernel"] == {"5x5": 1 / 3, "none": 2 / 3}
    assert list(sampled["layers"]) == ["1", "2", "10"]


def test_a_part_of_the_search_may_lack_a_decision(make_snapshot):
    facts = facts_of(make_snapshot([DONE] * 3))
    uib = Arch.from_block_strings("r1_a3_k3_s22_e4_i16_o16_uib")
    with_uib = replace(facts, trials=[*facts.trials[:2], replace(facts.trials[2], arch=uib)])
    assert shares(with_uib).count("start kernel") == 1


def test_a_search_that_ended_says_so_though_its_process_still_holds_the_lock(make_snapshot):
    import filelock

    snapshot = make_snapshot([DONE], status="finished")
    with filelock.FileLock(snapshot.path / "lock"):
        assert facts_of(snapshot).state.status == "finished"
    assert facts_of(make_snapshot([DONE], name="killed")).state.status == "interrupted"


def test_charts_come_only_with_something_to_show(make_snapshot):
    def drawn(states: list[State], **options: object) -> set[str]:
        return set(figures(facts_of(make_snapshot(states, **options))))

    assert drawn([], name="nothing", set_up=False) == set()
    assert drawn([], name="empty") == {"scatter"}  # the reference networks
    assert drawn([RUNNING] * 3, name="running") == {"scatter"}
    assert drawn([FAILED] * 10, name="failed") == {"scatter", "histogram", "hypervolume", "entropy", "updates"}
    plain = {"scatter", "histogram", "reward", "hypervolume"}
    assert drawn([DONE] * 10, name="random", controller="random") == plain
    assert drawn([DONE] * 10, name="ppo") == plain | {"entropy", "updates"}
    learnt = {"weights-accuracy", "weights-latency", "fit"}
    assert drawn([DONE] * 10, name="surrogate", controller="surrogate") == plain | learnt


def test_what_the_surrogate_has_learnt_is_the_last_updates(make_snapshot):
    charts = figures(facts_of(make_snapshot([DONE] * 30, controller="surrogate")))
    [table] = charts["weights-latency"]["data"]
    assert (table["y"], table["x"][:2]) == ([f"block{i}" for i in range(1, 8)], ["op", "kernel"])
    flat = [weight for row in table["z"] for weight in row]
    assert flat == [0.2 * (i % 11) for i in range(42)]
    accuracy, latency = charts["fit"]["data"]
    assert (accuracy["x"], accuracy["y"]) == ([10, 20, 30], [0.0, 0.1, 0.2])
    assert latency["y"] == pytest.approx([0.2, 0.3, 0.4])
    names = weights({"normal.pair1.op1": 1.0, "reduction.op1": 2.0, "depth": 3.0})["data"][0]
    assert (names["y"], names["x"]) == (["normal.pair1", "reduction", ""], ["op1", "depth"])
    assert names["z"] == [[1.0, None], [2.0, None], [None, 3.0]]


def test_skips_are_counted_by_the_limit_that_they_are_over(make_snapshot):
    snapshot = make_snapshot([SKIPPED] * 10 + [FAILED])
    facts = facts_of(snapshot)
    assert facts.skips == {"latency": [0, 2, 5, 7], "size": [1, 4, 6, 9], "memory": [3, 8]}
    assert facts.errors == {"diverged: loss is nan": [10]}
    text = report_html(snapshot)
    table = re.search(r'<table class="" id="reasons">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<td>(skipped|failed)</td><td>(\d+)</td><td>([^<]*)</td>", table)
    assert rows == [
        ("skipped", "4", "latency over --latency-limit (3 T)"),
        ("skipped", "4", "file size over --max-size-mb (2.5 MB)"),
        ("skipped", "2", "memory over --max-memory-mb (40 MB)"),
        ("failed", "1", "diverged: loss is nan"),
    ]
    assert sum(len(v) for v in facts.drawn_ms.values()) == 7  # files over the size limit are not measured


def test_every_latency_says_where_it_comes_from(make_snapshot):
    snapshot = make_snapshot([DONE] * 10, devices=2)
    facts = facts_of(snapshot)
    sources = ["measured", "predicted", "cached", "measured", "measured"] * 2
    assert [c.source for c in facts.candidates] == sources
    assert {source: len(ms) for source, ms in facts.drawn_ms.items()} == {"measured": 6, "cached": 2, "predicted": 2}
    assert [(t["name"], len(t["x"])) for t in histogram(facts)["data"]] == [
        ("measured", 6),
        ("cached", 2),
        ("predicted", 2),
    ]
    for figure in scatters(facts).values():
        named = {trace["name"]: trace for trace in figure["data"]}
        shapes = {}
        for name in ("trials", "Pareto front"):
            trace = named[name]
            for text, symbol in zip(trace["hovertext"], trace["marker"]["symbol"], strict=True):
                shapes[int(re.match(r"<b>trial (\d+)", text)[1])] = symbol
        assert shapes == {number: SYMBOLS[source] for number, source in enumerate(sources)}
        assert {"measured", "cached", "predicted"} <= set(named)  # the legend
    assert rewards(facts)["data"][0]["text"] == sources
    # with one predicted device, the combined latency is predicted
    trial = snapshot.trials[0]
    board = replace(trial.latencies["board"], source="predicted")
    snapshot.trials[0] = replace(trial, latencies={**trial.latencies, "board": board})
    assert facts_of(snapshot).candidates[0].source == "predicted"
    assert facts_of(snapshot).candidates[0].latencies["host"].source == "measured"


def test_the_tooltip_says_what_was_odd(make_snapshot):
    facts = facts_of(make_snapshot([DONE] * 5, devices=2))
    texts = {c.number: hover(c, facts) for c in facts.candidates}
    board = facts.candidates[3].latencies["board"]
    line = f"board {board.latency_ms:#.4g} ms [{board.low_ms:#.4g}, {board.high_ms:#.4g}]"
    assert f"{line} = {board.latency_ms / 30:.2f} T, <i>measured</i> on pi-1<br>" in texts[3]
    assert f"peak memory {board.peak_memory_bytes / 1e6:.2f} MB, {board.energy_mj:.3g} mJ<br>" in texts[3]
    assert "the device was 18% slower than at its calibration<br>" in texts[3]
    assert "62% of the rounds were disturbed<br>" in texts[3]
    assert [number for number, text in texts.items() if "⚠" in text] == [3]
    assert "<i>predicted</i> for pi-1" in texts[1]
    assert texts[1].count("peak memory") == 0
    assert "<i>cached</i> on pi-0" in texts[2]
    assert f"file {facts.candidates[0].size_bytes / 1e6:.2f} MB" in texts[0]
