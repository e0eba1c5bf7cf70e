"""The conclusion of `mnas search`: sources of latencies, skipped candidates, the cost of sharing."""

import dataclasses
import html
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mnas.cli.conclusion import conclude
from mnas.cli.console import SafeConsole
from mnas.data.dataset import Dataset, ImageArrays
from mnas.evaluate.evaluation import effective_images
from mnas.objective import Objective
from mnas.report.devices import sharing_costs
from mnas.report.facts import facts_of
from mnas.report.html import report_html
from mnas.study import Snapshot, State
from mnas.zoo.architectures import reference_arch

sys.path.append(str(Path(__file__).parent.parent / "report"))
from synthetic_run import OBJECTIVE, SPACE, VAL_IMAGES, synthetic_snapshot

DONE, FAILED, SKIPPED = "complete", "failed", "skipped"


def dataset() -> Dataset:
    """Return a data set with as many validation images as the synthetic runs have."""
    empty = ImageArrays(images=np.zeros((0, 1, 1, 3), np.uint8), labels=np.zeros(0, np.int64))
    val = ImageArrays(images=np.zeros((VAL_IMAGES, 1, 1, 3), np.uint8), labels=np.zeros(VAL_IMAGES, np.int64))
    one = (1.0, 1.0, 1.0)
    return Dataset(
        name="digits", classes=("cat", "dog"), train=empty, val=val, test=None, mean=one, std=one, input_size=32,
        flip=False, fingerprint="ab" * 8, content="ab" * 32, key="cd" * 32, skipped=(),
    )  # fmt: skip


def concluded(path: Path, states: list[State], **options) -> tuple[Snapshot, str]:
    """Return a synthetic run and its printed conclusion."""
    run = synthetic_snapshot(path, states, **options)
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", [OBJECTIVE], dataset())
    return run, out.getvalue()


def rows_of(text: str) -> dict[str, list[str]]:
    """Return trial or reference -> the other cells of the table."""
    lines = [line.split() for line in text.splitlines() if re.match(r" +[\w-]+ +0\.\d{4}", line)]
    return {cells[0]: cells[1:] for cells in lines}


def test_one_device_measured(tmp_path):
    run, text = concluded(tmp_path, [DONE] * 20)
    assert re.search(r"trial +accuracy +latency ms +95 % +of target", text)
    front = {str(t.number): f"{t.latency_ms:.3f}" for t in run.front}
    assert {n: row[1] for n, row in rows_of(text).items()} == front | {"mobilenetv2": "2.000"}
    assert "mobilenetv2 is the reference network, measured and trained like the trials" in text
    assert "latencies: all measured in this search" in text
    assert "skipped" not in text
    assert "sharing" not in text


def test_balanced_accuracies_are_named_everywhere(tmp_path):
    run, plain = concluded(tmp_path, [DONE] * 20)
    run.attributes["config"]["metric"] = "balanced-accuracy"
    run.attributes["val_counts"], run.attributes["references"] = [VAL_IMAGES - 50, 50], []
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", [OBJECTIVE], dataset())
    text = out.getvalue()
    assert re.search(r"trial +balanced accuracy +latency ms", text)
    told = re.findall(r"(?:balanced )?accuracy 0\.\d{4}", text)
    assert len(told) >= len(re.findall(r"accuracy 0\.\d{4}", plain)) - 1 > 0  # the baseline line has other words
    assert all(part.startswith("balanced ") for part in told)
    images = effective_images("balanced-accuracy", [VAL_IMAGES - 50, 50])
    assert images < VAL_IMAGES
    assert f"is as uncertain as an accuracy on {images} images" in text
    assert "is as uncertain as" not in plain


def test_several_devices_with_predictions_and_skips(tmp_path):
    run, text = concluded(tmp_path, [DONE] * 40 + [SKIPPED] * 5, devices=2)
    facts = facts_of(run)
    assert re.search(r"trial +accuracy +host ms +board ms +of target", text)
    rows = rows_of(text)
    assert [name for name in rows if name != "mobilenetv2"] == [c.label for c in facts.front]
    for candidate in facts.front:
        sign = {"measured": "", "cached": "*", "predicted": "~"}[candidate.source]
        told = [f"{latency.latency_ms:.3f}{sign}" for latency in candidate.latencies.values()]
        assert rows[candidate.label][1:3] == told
    assert {c.source for c in facts.front} == {"measured", "cached", "predicted"}
    assert "latencies: measured in this search, * cached from an earlier search, ~ predicted" in text
    assert (
        "skipped before training: 2 (latency over --latency-limit), 2 (file size over --max-size-mb), "
        "1 (memory over --max-memory-mb)"
    ) in text
    host, board = sharing_costs(facts)
    assert f"host: sharing one model costs nothing, since trial {host.shared.number} is also the best here" in text
    alone = f"trial {board.alone.number} (accuracy {board.alone.accuracy:.4f}, "
    assert f"board: the best model for this device alone is {alone}" in text
    assert f"loses {board.reward_lost:.4f} of reward (accuracy {board.shared.accuracy:.4f}, " in text


@pytest.mark.parametrize("states", [[SKIPPED] * 5, [SKIPPED] * 5 + [FAILED]])
def test_without_trained_candidates_skips_are_listed_with_reasons(tmp_path, states):
    _, text = concluded(tmp_path, states)
    assert (
        "no candidate finished training: skipped before training: 2 (latency over --latency-limit), "
        "2 (file size over --max-size-mb), 1 (memory over --max-memory-mb); "
        f"{states.count(FAILED)} failed; report: "
    ) in text


def test_a_recommendation_away_from_the_target_has_a_reason(tmp_path):
    run = synthetic_snapshot(tmp_path, [DONE] * 12)
    front = run.front
    between = (front[0].latency_ms + front[1].latency_ms) / 2
    assert front[0].latency_ms < 0.95 * between < 1.05 * between < front[1].latency_ms
    wanted = Objective(form="target", target_latency_ms=between, alpha=-0.1, beta=-1.0)
    near = [t for t in run.trials if 0.95 <= t.latency_ms / between <= 1.05]
    nearer = max(near, key=lambda t: wanted.reward(*t.point))
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", [wanted], dataset())
    assert f"recommended: trial {front[0].number}, with the best target reward on the front" in out.getvalue()
    assert (
        "it is faster than the target because no more accurate model was found between it and the target; the best "
        f"trial at the target is {nearer.number} (not on the front), accuracy {nearer.accuracy:.4f} at "
        f"{nearer.latency_ms / between:.2f}"
    ) in out.getvalue()
    page = report_html(Snapshot(run.path, run.attributes | {"objective": dataclasses.asdict(wanted)}, run.trials))
    assert (
        f"no more accurate model was found between it and the target; the best trial at the target is {nearer.number} ("
        in page
    )


def with_reference(run: Snapshot, accuracy: float, size_bytes: int = 2_000_000, **changes) -> Snapshot:
    """The same run with a MobileNetV2 of this accuracy, at exactly the target latency."""
    [first, *_] = run.attributes["references"]
    arch = reference_arch(SPACE.reference_skeleton).to_dict()
    record = {**first, "accuracy": accuracy, "arch": arch, "fingerprint": "f", "size_bytes": size_bytes}
    return Snapshot(run.path, {**run.attributes, "references": [record], **changes}, run.trials)


def said(run: Snapshot, objectives=(OBJECTIVE,), images: Dataset | None = None) -> list[str]:
    out = io.StringIO()
    conclude(SafeConsole(file=out, width=140), run, "trials", objectives, images or dataset())
    return out.getvalue().splitlines()


def test_a_better_reference_comes_first_and_is_recommended(tmp_path):
    run = with_reference(synthetic_snapshot(tmp_path, [DONE] * 12), 0.95)
    lines = said(run)
    assert lines[1] == "all 12 candidates are finished"
    assert lines[2] == (
        "recommended: mobilenetv2, the reference network, accuracy 0.9500 at 1.00 of the target latency; it is better "
        "than every trial (soft reward 0.9500, against 0.8888 of trial 5, accuracy 0.8910 at 1.04 of the target "
        "latency). More --trials or more --epochs may find a better model"
    )
    rows = rows_of("\n".join(lines))
    assert list(rows) == ["8", "0", "mobilenetv2", "5"]  # the front and the best trial
    facts = facts_of(run)
    assert [c.label for c in facts.front] == ["8", "0", "mobilenetv2"]
    assert [c.label for c in facts.chosen] == ["mobilenetv2"]
    page = report_html(run)
    assert "<b>Take mobilenetv2</b>, the reference network: it is better than every trial of the search" in page
    assert page.count('"diamond"') >= 1


def test_a_reference_within_noise_of_the_best_is_reported(tmp_path):
    run = with_reference(synthetic_snapshot(tmp_path, [DONE] * 12), 0.885)
    lines = said(run)
    assert any(
        line.startswith("recommended: trial 5, with the best soft reward on the front (0.8888)") for line in lines
    )
    assert (
        "mobilenetv2, the reference network, does not differ significantly from trial 5 on 2000 validation images: "
        "accuracy 0.8850 at 1.00 of the target latency"
    ) in lines
    page = report_html(run)
    assert "On 2,000 validation images, mobilenetv2, the reference network, does not differ significantly from" in page


def test_a_reference_over_a_limit_is_shown_but_not_recommended(tmp_path):
    run = with_reference(synthetic_snapshot(tmp_path, [DONE] * 12), 0.99, 9_000_000)  # 2.5 MB are allowed
    lines = said(run)
    assert any(line.startswith("recommended: trial 5") for line in lines)
    assert "mobilenetv2" in rows_of("\n".join(lines))
    assert any("shown but not recommended: its file size of 9 MB is over --max-size-mb" in line for line in lines)


def test_the_reference_is_recommended_for_each_target(tmp_path):
    far = dataclasses.replace(OBJECTIVE, target_latency_ms=4.0)
    several = {"other_objectives": [dataclasses.asdict(far)]}
    run = synthetic_snapshot(tmp_path, [DONE] * 12)
    both = [tuple(o.reward(*trial.point) for o in (OBJECTIVE, far)) for trial in run.trials]
    run.trials[:] = [dataclasses.replace(t, rewards=rewards) for t, rewards in zip(run.trials, both, strict=True)]
    run = with_reference(run, 0.95, **several)
    lines = said(run, (OBJECTIVE, far))
    assert lines[2].startswith("recommended for 2 ms: mobilenetv2, the reference network")
    assert lines[3].startswith("recommended for 4 ms: mobilenetv2, the reference network")


def test_a_score_is_never_without_its_baseline(tmp_path):
    run = synthetic_snapshot(tmp_path, [DONE] * 12)
    labels = np.zeros(VAL_IMAGES, np.int64)
    labels[:200] = 1
    images = dataset()
    images = dataclasses.replace(images, val=ImageArrays(images=images.val.images, labels=labels))
    lines = said(run, images=images)
    always = "always predicting 'cat', the most frequent class, has an accuracy of 0.9000"
    assert f"baseline: {always}; guessing among 2 classes has 0.5000" in lines
    assert any(
        line.startswith("warning: the accuracy 0.8910 on 2000 images is not significantly above") for line in lines
    )
    run.attributes["val_counts"] = [1800, 200]
    assert html.escape(always) in report_html(run)
