"""Test `mnas train RUN --top N` after a real search: train in processes, skip, stop by Ctrl-C and resume."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnas.cli.console import SafeConsole
from mnas.cli.main import run
from mnas.cli.search import search_and_conclude
from mnas.folders import user_cache_dir
from mnas.names import resolve_weights
from mnas.report.facts import facts_of
from mnas.search.settings import search_settings
from mnas.shortlist.table import finished_rows
from mnas.study import open_run, read_run


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("top")
    previous = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    settings = search_settings(
        {
            "data": "digits",
            "run": folder / "run",
            "trials": 3,
            "workers": 1,
            "candidates_per_update": 3,
            "width": 0.25,
            "input_size": "8",
            "output_stride": 8,
            "latency_budget_s": 0.1,
            "max_images_per_class": 30,
            "seed": 4,
            "epochs": 1,
            "fewest_steps": 1,
        }
    )
    with (folder / "out").open("w") as out:
        search_and_conclude(settings, SafeConsole(file=out, width=140))
    yield folder / "run"
    if previous is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = previous


def arguments(run_path: Path, *options: str) -> list[str]:
    short = ["--epochs", "1", "--batch-size", "64", "--fewest-steps", "1", "--warmup-epochs", "0"]
    return ["train", str(run_path), "--threads", "1", *short, *options]


def test_the_best_are_trained_once_and_compared(run_path, capsys):
    assert run(arguments(run_path, "--top", "2", "--workers", "2")) == 0
    first = capsys.readouterr().out
    rows = finished_rows(read_run(run_path))
    assert len(rows) == 2
    for row in rows:
        assert resolve_weights(f"{run_path}#{row.trial}") == run_path / "trained" / str(row.trial) / "model.safetensors"
        assert re.search(rf"^ +{row.trial} +{row.proxy_accuracy:.4f} +{row.accuracy:.4f} ", first, re.MULTILINE)
    assert "proxy" in first
    assert [r.trial for r in facts_of(read_run(run_path)).trained] == [r.trial for r in rows]
    assert 'id="trained"' in (run_path / "report.html").read_text()

    for row in rows:  # scored on the search's held-out images, without giving its seed
        assert run(["eval", f"{run_path}#{row.trial}", "--data", "digits", "--part", "val", "--json"]) == 0
        scored = json.loads(capsys.readouterr().out)
        assert (scored["top1"], scored["seed"], scored["images"]) == (row.accuracy, 4, 287)
        assert (scored["data_of_training"], scored["notes"]) == (True, [])

    assert run(arguments(run_path, "--top", "2")) == 0
    again = capsys.readouterr().out.splitlines()
    again = again[[line.startswith("trials to train in full") for line in again].index(True) :]  # after the class table
    assert again[0].endswith("; 2 of them already trained")
    assert again[1:] == first.splitlines()[-len(again) + 1 :]  # only the table

    assert run(arguments(run_path, "--top", "2", "--dropout", "0.1")) == 2
    assert 'these differ (dropout: "arch" before, 0.1 now)' in capsys.readouterr().err


def test_a_run_without_top_and_top_without_a_run(run_path, capsys):
    assert run(arguments(run_path)) == 2
    assert re.search(
        r"is a run; train its best trials \(--top 15\) or one of its trials \(.*#NUMBER\)", capsys.readouterr().err
    )
    for option in (
        ["--out", "elsewhere"],
        ["--weights", "timm"],
        ["--input-size", "16"],
        ["--width-multiplier", "0.5"],
    ):
        assert run(arguments(run_path, "--top", "2", *option)) == 2
        assert f"in the run's folder, and does not take {option[0]}. Leave this option out" in capsys.readouterr().err
    assert run(["train", "mnasnet-a1", "--data", "digits", "--top", "3"]) == 2
    assert "--top needs the folder of a run, but got 'mnasnet-a1'" in capsys.readouterr().err


def copy_with_a_good_reference(run_path: Path, path: Path) -> Path:
    """Copy the run without its trainings; its reference is the best by reward, whatever latencies were measured."""
    shutil.copytree(run_path, path, ignore=shutil.ignore_patterns("trained"))
    with open_run(path, read_run(path).attributes["config"]) as copied:
        [reference] = copied.attributes["references"]
        better = {**reference["evaluation"], "accuracy": 0.99, "accuracies": [0.99]}
        copied.set("references", [{**reference, "accuracy": 0.99, "evaluation": better}])
    return path


def test_one_teacher_teaches_each_of_the_best_and_runs_once(run_path, tmp_path, capsys):
    """The best are the reference network and a trial."""
    path = copy_with_a_good_reference(run_path, tmp_path / "run")
    quick = ("--data", "digits", "--max-images-per-class", "30", "--epochs", "1", "--fewest-steps", "0")
    named = ("train", "mnasnet-small@0.25/s8", *quick, "--input-size", "16", "--threads", "1")
    for seed in ("4", "5"):
        assert run([*named, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
    capsys.readouterr()
    teacher = str(tmp_path / "4" / "mnasnet-small@0.25-s8-16px")
    options = ("--top", "2", "--workers", "2", "--max-images-per-class", "30", "--teacher", teacher)
    assert run(arguments(path, *options)) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"teacher {teacher}: 16 px, ") == 1
    assert "validation images" not in printed  # it was trained with the seed of the search
    assert len(list((user_cache_dir() / "teachers").glob("*.npy"))) == 1  # one run, for all trainings
    rows = finished_rows(read_run(path))
    assert len(rows) == 2
    identities = [
        json.loads((path / "trained" / str(row.trial) / "config.json").read_text())["identity"] for row in rows
    ]
    settings = json.loads((path / "trained" / "settings.json").read_text())
    for identity in [*identities, settings]:
        assert identity["teacher"] == settings["teacher"]
        assert (identity["distillation_weight"], identity["temperature"], identity["unlabelled"]) == (0.9, 4.0, None)
    [number] = {row.trial for row in rows} - {"mobilenetv2"}
    assert number in range(3)
    for label, title in (("mobilenetv2", "mobilenetv2"), (number, f"trial {number}")):
        page = (path / "trained" / str(label) / "report.html").read_text()
        assert f"<h1>{title}</h1>" in page
        assert "with a teacher" in page
        assert f"{title}: done: accuracy " in printed

    assert run(arguments(path, *options[:6])) == 2
    assert "these differ (" in capsys.readouterr().err
    assert run(arguments(path, *options, "--temperature", "2")) == 2
    assert "these differ (temperature: 4.0 before, 2.0 now)" in capsys.readouterr().err
    other = str(tmp_path / "5" / "mnasnet-small@0.25-s8-16px")
    assert run(arguments(path, *options[:6], "--teacher", other)) == 2
    printed = capsys.readouterr()
    assert f"{other} was trained with seed 5 and the search with seed 4, so validation images may be among its" in (
        printed.out
    )
    assert "these differ (teacher: " in printed.err


@pytest.mark.slow  # a separate interpreter with child processes; tests/shortlist and tests/train also test signals
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)])
def test_a_signal_saves_and_says_how_to_go_on(run_path, tmp_path, number, to_all):
    """The signal reaches the process group, as from a terminal or a cluster manager, or only the main process."""
    if (run_path / "trained").exists():
        (run_path / "trained").rename(tmp_path / "other")
    # only the signal writes a checkpoint
    command = [sys.executable, "-m", "mnas.cli.main", *arguments(run_path, "--top", "1", "--checkpoint-every", "90000")]
    command[command.index("--epochs") + 1] = "100000"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    for line in process.stdout:
        if "[3/100000]" in line:
            (os.killpg if to_all else os.kill)(process.pid, number)
            break
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")
    assert f"stopped; all progress is saved. To resume: mnas train {run_path}" in printed
    [checkpoint] = run_path.glob("trained/*/checkpoint.pt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 3


def test_a_trial_is_trained_at_the_size_of_its_search(run_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--epochs", "1", "--fewest-steps", "0", "--threads", "1", "--max-images-per-class", "20"]
    assert run(["train", f"{run_path}#0", "--data", "digits", *short]) == 0  # not at digits' 16 px
    assert "8 px" in capsys.readouterr().out.splitlines()[0]
    assert (tmp_path / "trained/run-0-8px/result.json").exists()
