"""`mnas latency fit` on the command line: a real fit of a tiny space on this machine, killed and resumed."""

import json
import signal
import time

import pytest
from filelock import FileLock
from started import started_mnas

from mnas.arch import Arch
from mnas.cli.main import run
from mnas.latency.fleet.lease import lease_key
from mnas.latency.prediction.predictor import load_predictor
from mnas.space.named import load_space

TINY = """
name = "tiny"
[skeleton]
filters = [16, 24]
layers = [1, 2]
strides = [1, 2]
head_filters = 64
"""
SAMPLES = 20


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    space = tmp_path / "tiny.toml"
    space.write_text(TINY)
    task = ("--space", str(space), "--input-size", "32", "--classes", "10", "--samples", str(SAMPLES))
    return ["latency", "fit", *task, "--budget-s", "0.1", "--out", str(tmp_path / "predictors" / "tiny.json")]


def test_a_killed_fit_resumes_and_predicts(arguments, tmp_path, capsys):
    out = tmp_path / "predictors" / "tiny.json"
    unfinished = out.with_name("tiny.json.unfinished")
    process = started_mnas(*arguments)
    deadline = time.monotonic() + 120
    while not (unfinished.exists() and unfinished.read_text().count("\n") > 3) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    rows = [json.loads(line) for line in unfinished.read_text().splitlines(keepends=True) if line.endswith("\n")]
    with unfinished.open("a") as file:
        file.write('{"indices": [1, 2')  # as if it had been killed while writing

    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert f"resuming after {len(rows) - 1} of {SAMPLES} samples" in printed
    assert "Kendall's tau of MACs" in printed
    assert not unfinished.exists()
    predictor = load_predictor(out)
    assert len(predictor.samples) == predictor.learned.held_out.networks == SAMPLES
    kept = {sample.indices: sample.ratio for sample in predictor.samples}
    assert all(kept[tuple(row["indices"])] == row["ratio"] for row in rows[1:])  # nothing was measured twice
    assert predictor.calibration.to_dict() == rows[0]["calibrations"][0]

    space = load_space(arguments[arguments.index("--space") + 1])
    small, large = (space.decode([op, 0, 0, 2, filters, 0] * 2) for op, filters in ((1, 0), (0, 2)))
    assert predictor.predict(small).latency_ms < predictor.predict(large).latency_ms
    assert predictor.predict(large).source == "predicted"
    with pytest.raises(ValueError, match="covers only networks of its search space"):
        predictor.predict(Arch.from_block_strings("r1_k3_s11_e1_i32_o16"))

    assert run(arguments) == 2
    assert "exists; remove it or choose another file" in capsys.readouterr().err


def test_the_journal_of_another_fit_is_rejected(arguments, tmp_path, capsys):
    unfinished = tmp_path / "predictors" / "tiny.json.unfinished"
    unfinished.parent.mkdir()
    unfinished.write_text(json.dumps({"identity": {"device": "host", "seed": 3}, "calibrations": []}) + "\n")
    assert run(arguments) == 2
    assert (
        "belongs to an unfinished fit with another value of space; resume that fit, or remove the file"
        in capsys.readouterr().err
    )
    unfinished.write_text("[]\n")
    assert run(arguments) == 2
    assert (
        "must be the journal of an unfinished fit, but it is damaged; remove it to start again"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "19"], "--samples must be at least 20, but got 19"),
        (["--budget-s", "0"], "--budget-s must be finite and greater than 0, but got 0"),
        (["--interval", "nan"], "--interval must be finite and greater than 0, but got nan"),
        (["--space", "mnasnett"], "did you mean mnasnet?"),
        (["--input-size", "3", "--output-stride", "4"], "--input-size must be at least the output stride 4, but got 3"),
        (["--device", "pixel"], "--device must be one of host, but got 'pixel'"),
        (["--samples", "1000000000000"], "the size of the search space, but got 1000000000000"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(arguments, capsys, options, words):
    assert run([*arguments, *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_two_fits_of_one_file_never_run_together(arguments, tmp_path, capsys):
    out = tmp_path / "predictors" / "tiny.json"
    key = lease_key("fit", str(out))
    leases = tmp_path / "XDG_STATE_HOME" / "mnas" / "leases"
    leases.mkdir(parents=True)
    with FileLock(leases / f"{key}.lock"):
        assert run(arguments) == 2
    assert f"mnas: another process is fitting {out}; choose another file with --out" in capsys.readouterr().err
    assert not out.parent.exists()
