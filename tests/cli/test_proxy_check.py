"""`mnas proxy-check` on a few digits: the same result after kill -9 and Ctrl-C, extension, bad input."""

import json
import os
import signal
import time

import pytest
from started import started_mnas

from mnas.cli.main import run

TINY = (
    *("proxy-check", "--data", "digits", "--width", "0.25", "--input-size", "8", "--output-stride", "8"),
    *("--epochs", "2", "--fewest-steps", "1", "--max-images-per-class", "10", "--workers", "1"),
    *("--architectures", "3", "--reference-epochs", "3", "--try-epochs", "1", "--try-image-shares", "0.5"),
    *("--try-input-sizes", "12",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def trainings(path):
    stored = json.loads((path / "trainings.json").read_text())["trainings"]
    return {
        key: {k: v for k, v in entry.items() if k not in ("train_s", "images_per_s")} for key, entry in stored.items()
    }


def interrupted(path, after, how, *options):
    """Start a check, send the signal once `after` trainings are stored, and return the exit code and the output."""
    process = started_mnas(*TINY, *options, "--out", str(path))
    while process.poll() is None and not (path / "trainings.json").exists():
        time.sleep(0.02)
    while process.poll() is None and len(trainings(path)) < after:
        time.sleep(0.02)
    os.kill(process.pid, how)
    printed, errors = process.communicate(timeout=60)
    return process.returncode, printed, errors


def test_an_interrupted_check_resumes_and_prints_its_result(tmp_path, capsys):
    out = tmp_path / "check"
    code, printed, errors = interrupted(out, 4, signal.SIGINT, "--seeds", "1")
    assert code == 130
    assert errors == ""
    assert "3 architectures, 5 settings and 1 seed(s): 15 trainings, 0 of them finished" in printed
    assert "stopped; nothing is lost. To resume: " in printed.splitlines()[-1]
    kept = trainings(out)
    assert 4 <= len(kept) < 15
    assert run([*TINY, "--seeds", "1", "--out", "check"]) == 0
    assert f"15 trainings, {len(kept)} of them finished" in capsys.readouterr().out
    resumed = trainings(out)
    assert len(resumed) == 15
    assert {key: resumed[key] for key in kept} == kept
    result = json.loads((out / "result.json").read_text())
    assert len(result["architectures"]) == 3
    assert [(s["epochs"], s["image_share"], s["input_size"]) for s in result["settings"]] == [
        (2, 1.0, 8),
        (2, 1.0, 12),
        (2, 0.5, 8),
        (1, 1.0, 8),
    ]
    assert (result["reference"]["epochs"], result["seeds"]) == (3, 1)
    for entry in (*result["settings"], result["reference"]):
        assert entry["seconds"] > 0
        assert 0 <= entry["mean_accuracy"] <= 1
    # the same command trains nothing and prints the same; another seed is another check
    assert run([*TINY, "--seeds", "1", "--out", "check"]) == 0
    assert "15 trainings, 15 of them finished" in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text())["settings"] == result["settings"]
    assert run([*TINY, "--seeds", "1", "--out", "check", "--seed", "1"]) == 2
    line = capsys.readouterr().err
    assert "seed: 0 before, 1 now" in line
    assert "choose another --out" in line


@pytest.mark.slow
def test_a_killed_and_resumed_check_equals_one_that_was_never_killed(tmp_path, capsys):
    assert run([*TINY, "--out", "whole"]) == 0
    code, _, _ = interrupted(tmp_path / "killed", 4, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert 4 <= len(trainings(tmp_path / "killed")) < 30
    assert run([*TINY, "--out", "killed"]) == 0
    assert trainings(tmp_path / "killed") == trainings(tmp_path / "whole")
    taus = [
        [entry["tau"] for entry in json.loads((tmp_path / name / "result.json").read_text())["settings"]]
        for name in ("whole", "killed")
    ]
    assert taus[0] == taus[1]
    # more seeds and other settings extend the check
    capsys.readouterr()
    assert run([*TINY, "--out", "killed", "--seeds", "3", "--try-image-shares", "0.25"]) == 0
    assert "3 architectures, 5 settings and 3 seed(s): 45 trainings, 24 of them finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--architectures", "2", "--architectures must be 3 or more for a ranking, but got 2"),
        ("--seeds", "0", "--seeds must be 1 or more, but got 0"),
        (
            "--try-epochs",
            "1,two",
            "--try-epochs must be auto, or integers from 1 to 10000 separated by commas, but got '1,two'",
        ),
        (
            "--try-image-shares",
            "1.5",
            "--try-image-shares must be auto, or numbers from 1e-06 to 1 separated by commas",
        ),
        ("--try-input-sizes", "4", "--try-input-sizes must be auto, or integers from 8 to 1024 separated by commas"),
        (
            "--reference-epochs",
            "2",
            "--reference-epochs must be greater than 2, the epochs of the longest proxy task, but got 2",
        ),
        (
            "--also",
            "mnasnet-a2",
            "mnas: --also: 'mnasnet-a2' is not a network (did you mean mnasnet-a1?); a network must be",
        ),
        ("--also", "mnasnet-small", "mnasnet-small is not in this search space: block 1 is 0.50 times as wide"),
        ("--data", "nowhere", "--data must be a folder or one of"),
    ],
)
def test_bad_options(capsys, tmp_path, option, value, expected):
    assert run([*TINY, "--out", "check", option, value]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not (tmp_path / "check").exists()
