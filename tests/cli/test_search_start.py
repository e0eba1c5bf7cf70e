"""`mnas search` with start candidates, imported trials and several targets, on real images and this machine."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from mnas.cli.main import run
from mnas.report.html import report_html
from mnas.search.open import weights_hint
from mnas.space.named import SPACES
from mnas.study import count_imported, front_of, objectives_of, read_run
from mnas.study.results import images_behind, recommend, references_of, results_of, table_results
from mnas.zoo.architectures import named_arch
from mnas.zoo.member import member_like, nearest_member

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
    """Folder with runs/old, a search of three trials."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("start")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    assert run([*SEARCH, "--trials", "3", "--start-from", "none", "--run", "runs/old"]) == 0
    yield folder
    patch.undo()


def test_the_space_of_mobilenetv4_from_its_published_network(folder, capsys):
    """A search of today's blocks from their published network, and its report."""
    options = ("--space", "mobilenetv4", "--start-from", "mobilenetv4-conv-small", "--trials", "3", "--run", "runs/uib")
    assert run([*SEARCH, *options]) == 0
    snapshot = read_run(folder / "runs/uib")
    assert [t.state for t in snapshot.trials] == ["complete"] * 3
    space = SPACES["mobilenetv4"].scaled(0.25).with_output_stride(8)
    assert snapshot.trials[0].arch == nearest_member(space, named_arch("mobilenetv4-conv-small"))
    assert {b.op for t in snapshot.trials for b in t.arch.blocks} == {"fused", "uib", "conv"}
    assert "<h3>start kernel</h3>" in report_html(snapshot)
    assert run([*SEARCH, "--space", "mobilenetv4", "--start-from", "mnasnet-a1", "--run", "runs/no"]) == 2
    assert (
        "mnasnet-a1 is not in this search space: networks of space mobilenetv4 have 11 blocks, but this one has 7; "
        "use another --space, or drop it from --start-from"
    ) in capsys.readouterr().err


@pytest.fixture(scope="module")
def known(folder):
    """A search of two trials with the default of --start-from, and its output."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*SEARCH, "--trials", "2", "--run", "runs/known"]) == 0
    return read_run(folder / "runs/known"), out.getvalue()


def test_a_search_begins_with_the_networks_nearest_to_known_ones(folder, known):
    snapshot, printed = known
    space = SPACES["mnasnet"].scaled(0.25).with_output_stride(8)
    names = ["mobilenetv2", "mnasnet-a1"]
    assert [t.name for t in snapshot.trials] == names
    assert [t.arch for t in snapshot.trials] == [member_like(space, named_arch(name)) for name in names]
    assert [t.state for t in snapshot.trials] == ["complete"] * 2
    assert [t.choices for t in snapshot.trials] == [space.params(space.encode(t.arch)) for t in snapshot.trials]
    for number, name in enumerate(names):
        assert f"trial {number} is {name}: the nearest network of the space (--start-from auto)" in printed
    assert snapshot.attributes["config"]["start_from"] == "auto"
    hint = "with 240 training images, pretrained weights are likely to be more accurate"
    command = "mnas search --parent efficientnet-lite0,efficientnet-lite1 --data digits --run"
    assert printed.count(f"{hint}: {command} runs/known-from-weights\n") == 1


def test_a_search_with_known_networks_goes_on(folder, known, capsys):
    shutil.copytree(folder / "runs/known", folder / "runs/longer")
    assert run([*SEARCH, "--trials", "3", "--run", "runs/longer"]) == 0
    assert "pretrained weights" not in capsys.readouterr().out  # only a new run prints the recommendation
    trials = read_run(folder / "runs/longer").trials
    assert trials[:2] == known[0].trials
    assert (trials[2].name, trials[2].state) == (None, "complete")
    capsys.readouterr()
    assert run([*SEARCH, "--trials", "3", "--start-from", "none", "--run", "runs/longer"]) == 2
    assert 'start_from: "auto" before, null now' in capsys.readouterr().err


def test_pretrained_weights_are_recommended_for_few_images():
    assert weights_hint("my photos", Path("my run"), 49_999, at_hand=True).endswith(
        ": mnas search --parent efficientnet-lite0,efficientnet-lite1 --data 'my photos' --run 'my run-from-weights'"
    )
    assert weights_hint("my photos", Path("runs/search"), 50_000, at_hand=True) == ""


def test_a_search_that_is_to_begin_from_scratch_recommends_nothing_else(folder, capsys):
    assert run([*SEARCH, "--from-scratch", "--trials", "1", "--run", "runs/scratch"]) == 0
    assert "pretrained weights" not in capsys.readouterr().out
    assert "parents" not in read_run(folder / "runs/scratch").attributes["config"]


def test_a_run_without_networks_to_start_from_is_resumed_without_them(folder, capsys):
    """So is a run from before the default: its configuration has no `start_from` either."""
    shutil.copytree(folder / "runs/old", folder / "runs/older")
    before = read_run(folder / "runs/older")
    assert "start_from" not in before.attributes["config"]
    assert run([*SEARCH, "--trials", "4", "--run", "runs/older"]) == 0
    after = read_run(folder / "runs/older")
    assert after.attributes["config"] == before.attributes["config"]
    assert after.trials[:3] == before.trials
    assert [t.name for t in after.trials] == [None] * 4
    assert "(--start-from auto)" not in capsys.readouterr().out


def test_one_trial_is_the_first_known_network(folder, capsys):
    assert run([*SEARCH, "--trials", "1", "--run", "runs/one"]) == 0
    assert [t.name for t in read_run(folder / "runs/one").trials] == ["mobilenetv2"]
    assert "mnasnet-a1" not in capsys.readouterr().out


def test_the_preset_of_the_paper_starts_from_nothing(folder, capsys):
    options = ("--preset", "paper", "--epochs", "1", "--trials", "1", "--run", "runs/paper")
    assert run([*SEARCH, *options]) == 0
    [trial] = read_run(folder / "runs/paper").trials
    assert trial.name is None
    assert "start_from" not in read_run(folder / "runs/paper").attributes["config"]


def test_a_space_of_cells_starts_from_nothing(folder, capsys):
    assert run([*SEARCH, "--space", "cell", "--trials", "1", "--run", "runs/cell"]) == 0
    [trial] = read_run(folder / "runs/cell").trials
    assert trial.name is None
    assert "no network to start from: space cell has none near mobilenetv2 or mnasnet-a1" in capsys.readouterr().out


def test_two_known_networks_that_are_one_in_the_space(folder):
    text = 'name = "one"\n[choices]\nop = ["mbconv6"]\nkernel = [3]\nse_ratio = [0]\nfilters = [1]\nlayers = [0]\n'
    (folder / "one.toml").write_text(text)
    assert run([*SEARCH, "--space", "one.toml", "--trials", "2", "--run", "runs/same"]) == 0
    assert [t.name for t in read_run(folder / "runs/same").trials] == ["mobilenetv2", None]


@pytest.fixture(scope="module")
def targets(folder):
    """Three target latencies in the range of the space, around that of MobileNetV2."""
    reference_ms = read_run(folder / "runs/old").attributes["calibrations"]["host"][0]["reference_ms"]
    return ",".join(f"{share * reference_ms:.5f}" for share in (1.0, 0.9, 1.2))


@pytest.fixture(scope="module")
def begun(folder, targets):
    """The run that starts from runs/old, and its output."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets]) == 0
    return read_run(folder / "runs/new"), out.getvalue()


def test_start_candidates_and_imported_trials_are_printed_and_stored(folder, begun):
    new, printed = begun
    old = read_run(folder / "runs/old")
    imported = count_imported(new.trials)
    assert imported == sum(t.state == "complete" for t in old.trials) > 0
    assert f"imported {imported} of 3 trials from runs/old as trials 0 to {imported - 1}" in printed
    assert "latencies are on the scale of runs/old, whose calibration this run uses" in printed
    why = "(stem_filters must be 8 in space mnasnet, but got 32)"  # at this width
    note = f"the nearest network of the space, which does not contain the published one {why}"
    assert f"trial {imported} is mobilenetv2: {note}" in printed
    assert "all 3 candidates are finished" in printed
    assert len(new.trials) == imported + 3
    assert new.trials[imported].name == "mobilenetv2"
    assert new.attributes["calibrations"] == old.attributes["calibrations"]
    for t in new.trials[:imported]:
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
            else f"trial {advice.best.number}, with the best target reward on the front ({reward:.4f})"
        )
        assert f"recommended for {objective.target_latency_ms:g} ms: {what}" in printed
        assert f"reward {objective.target_latency_ms:g} ms" in printed.replace("\n", " ")
    page = report_html(new)
    assert len(re.findall(r"<b>For [\d.]+ ms take (?:trial \d+|mobilenetv2)</b>", page)) == 3
    assert "(runs/old#" in page or "(mobilenetv2)" in page
    assert new.attributes["reach"]["smallest"]["latencies"]["host"]["latency_ms"] < objectives[1].target_latency_ms


def test_the_same_command_again_changes_nothing_and_another_is_rejected(folder, begun, targets, capsys):
    new, _ = begun
    before = new.trials
    assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets]) == 0
    assert read_run(folder / "runs/new").trials == before
    capsys.readouterr()
    other = [x for x in BEGUN if x not in ("--start-from", "runs/old,mobilenetv2")]
    assert run([*SEARCH, *other, "--target-latency-ms", targets]) == 2
    assert 'start_from: "runs/old,mobilenetv2" before, "auto" now' in capsys.readouterr().err
    assert run([*SEARCH, *BEGUN, "--target-latency-ms", targets.split(",")[0]]) == 2
    kept = ",".join(f"{float(target):.12g}" for target in targets.split(","))
    assert f'target_latency_ms: "{kept}"' in capsys.readouterr().err


def test_runs_counts_imported_trials_separately(folder, begun, capsys):
    imported = count_imported(begun[0].trials)
    assert run(["runs", "runs"]) == 0
    assert f" 3 (+{imported}) " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--start-from", "runs/old", "--epochs", "2"), "runs/old differs: proxy.epochs: 1 in that run, 2 now"),
        (("--start-from", "runs/old", "--seed", "1"), "runs/old differs: seed: 0 in that run, 1 now"),
        (("--start-from", "runs/old", "--width", "0.5"), "runs/old differs: space.skeleton.filters: "),
        (
            ("--start-from", "runs/none"),
            "--start-from must name networks and runs, but got runs/none, which does not contain a run",
        ),
        (("--start-from", "runs/old,runs/old"), "--start-from must name each network and run once, but got runs/old,"),
        (("--start-from", "mnasnet-small"), "mnasnet-small is not in this search space: block 1 is 0.50 times as wide"),
        (("--start-from", "mnasnet-a1@0.5"), "mnasnet-a1@0.5 is not in this search space: "),
        (("--start-from", "mobilenetv2,mnasnet-a1", "--trials", "1"), "--trials must be at least 2, the number of"),
        (("--start-from", "mobilenetv2,"), "--start-from must be names separated by commas, but got 'mobilenetv2,'"),
        (
            ("--start-from", "auto,mobilenetv2"),
            "--start-from must be auto, none or names separated by commas, but got 'auto,mobilenetv2'",
        ),
        (
            ("--target-latency-ms", "0.0001"),
            "--target-latency-ms must be in the latency range of the space, but got 0.0001 ms; on host its networks",
        ),
        (
            ("--target-latency-ms", "1,99999"),
            "--target-latency-ms must be in the latency range of the space, but got",
        ),
        (
            ("--target-latency-ms", "3,x"),
            "--target-latency-ms must be auto, a number or several numbers (3,5,8), but got '3,x'",
        ),
        (("--target-latency-ms", "3,3.0"), "--target-latency-ms must give each target once, but got 3,3.0"),
        (("--target-latency-ms", "3,0"), "--target-latency-ms must be greater than 0, but got 0.0"),
        (
            ("--target-latency-ms", "3,5", "--device", "a,b"),
            "must be auto or a number for each device (a=1,b=1), but got '3,5'",
        ),
    ],
)
def test_bad_input_is_one_line_and_creates_no_run(folder, capsys, options, expected):
    assert run([*SEARCH, "--trials", "2", "--run", "runs/bad", *options]) == 2
    lines = [x for x in capsys.readouterr().err.strip().splitlines() if not x.startswith("INFO: ")]  # LiteRT's own
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (folder / "runs/bad").exists()
