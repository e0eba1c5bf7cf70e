"""What `mnas search` prints at its end: where each latency comes from, what was skipped, what sharing costs."""

import dataclasses
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from mnas.cli.conclusion import conclude
from mnas.cli.console import SafeConsole
from mnas.data.dataset import Dataset, ImageArrays
from mnas.objective import Objective
from mnas.report.devices import sharing_costs
from mnas.report.facts import facts_of
from mnas.report.html import report_html
from mnas.study import Snapshot

sys.path.append(str(Path(__file__).parent.parent / "report"))
from synthetic_run import OBJECTIVE, VAL_IMAGES, synthetic_snapshot

DONE, FAILED, SKIPPED = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED


def dataset() -> Dataset:
    """As many validation images as the synthetic runs have."""
    empty = ImageArrays(images=np.zeros((0, 1, 1, 3), np.uint8), labels=np.zeros(0, np.int64))
    val = ImageArrays(images=np.zeros((VAL_IMAGES, 1, 1, 3), np.uint8), labels=np.zeros(VAL_IMAGES, np.int64))
    one = (1.0, 1.0, 1.0)
    return Dataset(
        name="digits", classes=("cat", "dog"), train=empty, val=val, test=None, mean=one, std=one, input_size=32,
        flip=False, fingerprint="ab" * 8, content="ab" * 32, skipped=(),
    )  # fmt: skip


def concluded(path: Path, states: list[TrialState], **options) -> tuple[Snapshot, str]:
    """A synthetic run, and what is printed at its end."""
    run = synthetic_snapshot(path, states, **options)
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", [OBJECTIVE], dataset())
    return run, out.getvalue()


def rows_of(text: str) -> dict[int, list[str]]:
    """trial -> the other cells of the table."""
    lines = [line.split() for line in text.splitlines() if re.match(r" +\d+ +0\.\d{4}", line)]
    return {int(cells[0]): cells[1:] for cells in lines}


def test_one_device_measured(tmp_path):
    run, text = concluded(tmp_path, [DONE] * 20)
    assert re.search(r"trial +accuracy +latency ms +95 % +of target", text)
    assert {n: row[1] for n, row in rows_of(text).items()} == {t.number: f"{t.values[1]:.3f}" for t in run.front}
    assert "latencies: all measured in this search" in text
    assert "skipped" not in text
    assert "sharing" not in text


def test_several_devices_with_predictions_and_skips(tmp_path):
    run, text = concluded(tmp_path, [DONE] * 40 + [SKIPPED] * 5, devices=2)
    facts = facts_of(run)
    assert re.search(r"trial +accuracy +host ms +board ms +of target", text)
    rows = rows_of(text)
    assert list(rows) == [c.number for c in facts.front]
    for candidate in facts.front:
        sign = {"measured": "", "cached": "*", "predicted": "~"}[candidate.source]
        told = [f"{latency.latency_ms:.3f}{sign}" for latency in candidate.latencies.values()]
        assert rows[candidate.number][1:3] == told
    assert {c.source for c in facts.front} == {"measured", "cached", "predicted"}
    assert "latencies: measured in this search, * measured in an earlier one, ~ predicted" in text
    assert (
        "skipped before training: 2 (latency over --latency-limit), 2 (file size over --max-size-mb), "
        "1 (memory over --max-memory-mb)"
    ) in text
    host, board = sharing_costs(facts)
    assert f"host: sharing costs nothing, trial {host.shared.number} is also the best for it alone" in text
    assert f"board: the best for it alone is trial {board.alone.number} (accuracy {board.alone.accuracy:.4f}, " in text
    assert f"costs it {board.reward_lost:.4f} of reward (accuracy {board.shared.accuracy:.4f}, " in text


@pytest.mark.parametrize("states", [[SKIPPED] * 5, [SKIPPED] * 5 + [FAILED]])
def test_nothing_trained_says_what_was_skipped_and_why(tmp_path, states):
    _, text = concluded(tmp_path, states)
    assert (
        "no candidate was trained to the end: skipped before training: 2 (latency over --latency-limit), "
        "2 (file size over --max-size-mb), 1 (memory over --max-memory-mb); "
        f"{states.count(FAILED)} failed; report: "
    ) in text


def test_a_model_that_is_not_at_the_target_says_why(tmp_path):
    run = synthetic_snapshot(tmp_path, [DONE] * 12)
    front = run.front
    between = (front[0].values[1] + front[1].values[1]) / 2
    assert front[0].values[1] < 0.95 * between < 1.05 * between < front[1].values[1]
    wanted = Objective(form="target", target_latency_ms=between, alpha=-0.1, beta=-1.0)
    near = [t for t in run.trials if 0.95 <= t.values[1] / between <= 1.05]
    nearer = max(near, key=lambda t: wanted.reward(*t.values))
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", [wanted], dataset())
    assert f"take trial {front[0].number}: the best target reward on the front" in out.getvalue()
    assert (
        "it is below the target because nothing was found between them that is more accurate; "
        f"the best at it is trial {nearer.number}, accuracy {nearer.values[0]:.4f} at {nearer.values[1] / between:.2f}"
    ) in out.getvalue()
    page = report_html(Snapshot(run.path, run.attributes | {"objective": dataclasses.asdict(wanted)}, run.trials))
    assert f"nothing was found between them that is more accurate; the best at it is trial {nearer.number} (" in page
