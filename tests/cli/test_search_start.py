"""`mnas search` that begins with networks and an earlier run, for several targets; on real images and this machine."""

import contextlib
import io
import re

import pytest

from mnas.cli.main import run
from mnas.report.html import report_html
from mnas.study import count_taken, front_of, objectives_of, read_run
from mnas.study.results import images_behind, recommend, references_of, results_of, table_results

SEARCH = (
    *("search", "--data", "digits", "--width", "0.25", "--input-size", "8", "--output-stride", "8", "--epochs", "1"),
    *(
        "--fewest-steps",
        "1",
        "--max-images-per-class",
        "30",
        "--candidates-per-update",
        "2",
        "--latency-budget-s",
        "0.1",
        "--workers",
        "1",
    ),
)
BEGUN = ("--start-from", "runs/old,mobilenetv2", "--trials", "3", "--controller", "evolution", "--run", "runs/new")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where runs/old is, a search of three trials."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("start")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    assert run([*SEARCH, "--trials", "3", "--run", "runs/old"]) == 0
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def targets(folder):
    """Three that the space reaches: around MobileNetV2's."""
    reference_ms = read_run(folder / "runs/old").attributes["calibrations"]["host"][0]["reference_ms"]
    return ",".join(f"{share * reference_ms:.5f}" for share in (1.0, 0.9, 1.2))


@pytest.fixture(scope="module")
def begun(folder, targets):
    """The run that starts from it, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets]) == 0
    return read_run(folder / "runs/new"), out.getvalue()


def test_what_it_begins_with_is_said_and_kept(folder, begun):
    new, printed = begun
    old = read_run(folder / "runs/old")
    taken = count_taken(new.trials)
    assert taken == sum(t.state == "complete" for t in old.trials) > 0
    assert f"begins with {taken} of 3 trials of runs/old, here trials 0 to {taken - 1}" in printed
    assert "milliseconds are those of runs/old: its calibration is this run's" in printed
    why = "(stem_filters must be 8 in space mnasnet, but got 32)"  # at this width
    assert f"trial {taken} is mobilenetv2: the nearest member of the space, as it is none itself {why}" in printed
    assert "all 3 candidates are done" in printed
    assert len(new.trials) == taken + 3
    assert new.trials[taken].name == "mobilenetv2"
    assert new.attributes["calibrations"] == old.attributes["calibrations"]
    for t in new.trials[:taken]:
        before = old.trials[t.origin.trial]
        assert t.point == pytest.approx(before.point, rel=1e-12)
    shown = {t.label for t in table_results(new, objectives_of(new.attributes))}
    assert shown >= {t.label for t in front_of(results_of(new))}
    assert {p.name for p in (folder / "runs/new/front").iterdir()} == shown
    assert all((folder / f"runs/new/front/{label}/model.tflite").exists() for label in shown)


def test_a_model_for_each_target(begun, targets):
    new, printed = begun
    objectives = objectives_of(new.attributes)
    assert [o.target_latency_ms for o in objectives] == [float(t) for t in targets.split(",")]
    for objective in objectives:
        advice = recommend(new.trials, references_of(new), objective, images_behind(new, 60))
        assert advice is not None
        reward = objective.reward(*advice.best.point)
        assert reward >= max(objective.reward(*t.point) for t in front_of(results_of(new)))
        what = (
            "mobilenetv2, the reference network,"
            if advice.is_reference
            else f"trial {advice.best.number}: the best target reward on the front ({reward:.4f})"
        )
        assert f"for {objective.target_latency_ms:g} ms take {what}" in printed
        assert f"reward {objective.target_latency_ms:g} ms" in printed.replace("\n", " ")
    page = report_html(new)
    assert len(re.findall(r"<b>For [\d.]+ ms take (?:trial \d+|mobilenetv2)</b>", page)) == 3
    assert "(runs/old#" in page or "(mobilenetv2)" in page
    assert new.attributes["reach"]["smallest"]["latencies"]["host"]["latency_ms"] < objectives[1].target_latency_ms


def test_the_same_command_again_changes_nothing_and_another_is_refused(folder, begun, targets, capsys):
    new, _ = begun
    before = new.trials
    assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets]) == 0
    assert read_run(folder / "runs/new").trials == before
    capsys.readouterr()
    other = [x for x in BEGUN if x not in ("--start-from", "runs/old,mobilenetv2")]
    assert run([*SEARCH, *other, "--target-latency-ms", targets]) == 2
    assert 'start_from: "runs/old,mobilenetv2" there, null now' in capsys.readouterr().err
    assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets.split(",")[0]]) == 2
    kept = ",".join(f"{float(target):.12g}" for target in targets.split(","))
    assert f'target_latency_ms: "{kept}"' in capsys.readouterr().err


def test_runs_counts_what_was_taken_over_apart(folder, begun, capsys):
    taken = count_taken(begun[0].trials)
    assert run(["runs", "runs"]) == 0
    assert f" 3 (+{taken}) " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--start-from", "runs/old", "--epochs", "2"), "runs/old has others: proxy.epochs: 1 there, 2 now"),
        (("--start-from", "runs/old", "--seed", "1"), "runs/old has others: seed: 0 there, 1 now"),
        (("--start-from", "runs/old", "--width", "0.5"), "runs/old has others: space.skeleton.filters: "),
        (("--start-from", "runs/none"), "start from must name networks and runs, but got runs/none, where there is no"),
        (("--start-from", "runs/old,runs/old"), "start from must name each network and run once, but got runs/old,"),
        (("--start-from", "mnasnet-small"), "mnasnet-small cannot be had in this space: block 1 is 0.50 times as wide"),
        (("--start-from", "mnasnet-a1@0.5"), "mnasnet-a1@0.5 cannot be had in this space: "),
        (("--start-from", "mobilenetv2,mnasnet-a1", "--trials", "1"), "trials must be enough for the 2 networks"),
        (("--start-from", "mobilenetv2,"), "start from must be names with commas between them, but got 'mobilenetv2,'"),
        (
            ("--target-latency-ms", "0.0001"),
            "target latency of host must be one that the space reaches, but got 0.0001",
        ),
        (("--target-latency-ms", "1,99999"), "target latency of host must be one that the space reaches, but got"),
        (
            ("--target-latency-ms", "3,x"),
            "target latency ms must be auto, a number, or several as in 3,5,8, but got '3,x'",
        ),
        (("--target-latency-ms", "3,3.0"), "targets of latency must be different ones, but got 3,3.0"),
        (("--target-latency-ms", "3,0"), "target latency must be more than 0 ms, but got 0.0"),
        (("--target-latency-ms", "3,5", "--device", "a,b"), "must be given as in a=1,b=1, but got '3,5'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_begun(folder, capsys, options, expected):
    assert run([*SEARCH, "--trials", "2", "--run", "runs/bad", *options]) == 2
    lines = [x for x in capsys.readouterr().err.strip().splitlines() if not x.startswith("INFO: ")]  # LiteRT's own
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (folder / "runs/bad").exists()
