"""Proxy against full accuracy: the table, its file, and the verdict on the proxy task."""

import csv
import dataclasses
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from mnas.objective import Objective
from mnas.shortlist.table import Row, agreement, finished_rows, meaning, table_csv
from mnas.study import RunError, Snapshot, trained_path

sys.path.append(str(Path(__file__).parent.parent / "report"))
from synthetic_run import synthetic_snapshot


def row(trial: int, proxy_accuracy: float, accuracy: float, test_accuracy: float | None = None) -> Row:
    return Row(
        trial=trial,
        proxy_accuracy=proxy_accuracy,
        accuracy=accuracy,
        test_accuracy=test_accuracy,
        latency_ms=1.5,
        low_ms=1.4,
        high_ms=1.6,
        source="measured",
        params=1000,
        macs=2000,
        reward=0.5,
    )


def rows(pairs) -> list[Row]:
    return [row(i, *pair) for i, pair in enumerate(pairs)]


def test_rank_correlation_against_its_definition():
    found = agreement(rows([(0.5, 0.6), (0.6, 0.7), (0.7, 0.9), (0.8, 0.8), (0.9, 0.95)]))
    assert (found.models, found.pairs, found.concordant) == (5, 10, 9)
    assert found.kendall == pytest.approx((9 - 1) / 10)
    assert found.spearman == pytest.approx(1 - 6 * 2 / (5 * 24))
    # of 5! = 120 orders, 1 has no inversion and 4 have one; as many are reversed
    assert found.p == pytest.approx(2 * (1 + 4) / 120)


def test_equal_accuracies_make_no_pair():
    found = agreement(rows([(0.5, 0.6), (0.5, 0.7), (0.7, 0.7)]))
    assert (found.pairs, found.concordant) == (1, 1)
    same = agreement(rows([(0.5, 0.6), (0.5, 0.7)]))
    assert math.isnan(same.kendall)
    assert math.isnan(same.spearman)
    assert "do not differ in proxy or full accuracy" in meaning(same)
    assert "needs at least two fully trained models" in meaning(agreement([]))


@pytest.mark.parametrize(
    ("full", "words"),
    [
        ([1, 2, 3, 4], r"in 6 of 6 pairs \(Kendall's tau 1.00, p = 0.083; .*too few models to judge"),
        ([2, 5, 1, 4, 3, 6], "This may be chance, so choose by the full accuracies"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "in 0 of 28 pairs .* reverses the order"),
        ([1, 2, 3, 4, 5, 6, 8, 7], "in 27 of 28 pairs .* can be trusted"),
        ([4, 1, 2, 3, 7, 5, 6, 8], r"in 23 of 28 pairs .* can be trusted"),
        ([7, 1, 2, 3, 4, 6, 5, 10, 9, 8], r"in 35 of 45 pairs .* more than chance, but"),
    ],
)
def test_what_it_means(full, words):

    text = meaning(agreement(rows([(i / 10, f / 10) for i, f in enumerate(full)])))
    assert re.search(words, text), text
    assert "\n" not in text


def finish(run: Snapshot, number: int, **result: object) -> None:
    folder = trained_path(run.path, number)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))


def test_rows_are_what_is_finished(tmp_path):
    run = synthetic_snapshot(tmp_path, ["complete"] * 3 + ["failed"])
    assert finished_rows(run) == []
    finish(run, 0, accuracy=0.9, test_accuracy=None)
    finish(run, 2, accuracy=0.8, test_accuracy=0.75)
    trained_path(run.path, 1).mkdir()  # started but not finished
    found = {r.trial: r for r in finished_rows(run)}
    assert sorted(found) == [0, 2]
    trial = run.trials[2]
    assert (found[2].proxy_accuracy, found[2].latency_ms) == tuple(trial.point)
    assert (found[2].accuracy, found[2].test_accuracy, found[0].test_accuracy) == (0.8, 0.75, None)
    assert found[2].reward == Objective(**run.attributes["objective"]).reward(0.8, trial.latency_ms)
    assert [r.latency_ms for r in finished_rows(run)] == sorted(r.latency_ms for r in found.values())

    table = list(csv.DictReader(io.StringIO(table_csv(finished_rows(run)))))
    assert {int(r["trial"]): r["test_accuracy"] for r in table} == {0: "", 2: "0.75"}
    assert {float(r["latency_ms"]) for r in table} == {r.latency_ms for r in found.values()}

    (trained_path(run.path, 0) / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"0/result\.json is not the result of a training .*; remove it, and use mnas"):
        finished_rows(run)


def test_the_table_says_where_latencies_were_not_measured():
    from mnas.cli.shortlist import shortlist_table

    found = rows([(0.5, 0.6), (0.6, 0.7)])
    assert "source" not in [str(column.header) for column in shortlist_table(found).columns]
    mixed = [found[0], dataclasses.replace(found[1], source="predicted")]
    table = shortlist_table(mixed)
    (source,) = [column for column in table.columns if column.header == "source"]
    assert list(source.cells) == ["measured", "predicted"]
    assert [len(list(column.cells)) for column in table.columns] == [2] * len(table.columns)
