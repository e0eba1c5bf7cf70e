"""Common mistakes: one line names the cause and the remedy, the exit code is 2, and no data is lost."""

import contextlib
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from started import started_mnas

from mnas.cli.main import run
from mnas.study import read_run


def complaint(capsys, *arguments) -> str:
    """Return the one line of error that a command prints."""
    code = run([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert code == 2, printed
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("mnas: ")
    assert "Traceback" not in printed.err
    return lines[0]


def make_images(folder: Path, classes=("cat", "dog"), count=20, size=16) -> Path:
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 100, (size, size, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_unknown_command(capsys):
    assert "command must be one of search, proxy-check, train" in complaint(capsys, "serach")


def test_unknown_option_suggests(capsys):
    line = complaint(capsys, "search", "--data", "digits", "--epoch", "3")
    assert "unknown option --epoch; did you mean --epochs?" in line


def test_missing_option(capsys):
    assert "--data" in complaint(capsys, "search")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--target-latency-ms", "0", "--target-latency-ms must be greater than 0 on host, but got 0"),
        ("--target-latency-ms", "fast", "--target-latency-ms must be auto or a number, but got 'fast'"),
        ("--target-latency-ms", "nan", "--target-latency-ms must be greater than 0 on host, but got nan"),
        (
            "--controller",
            "sarsa",
            "--controller must be one of surrogate, ppo, evolution, random, nsga2, tpe, or module:factory",
        ),
        ("--trials", "0", "--trials must be 1 or more, but got 0"),
        ("--trials", "many", "--trials"),
        ("--workers", "0", "--workers must be 1 or more, but got 0"),
        ("--workers", "1000000", "--workers must be from 1 to 256, but got 1000000"),
        ("--hours", "-1", "--hours must be greater than 0, but got -1"),
        ("--epochs", "0", "--epochs must be"),
        ("--alpha", "0.5", "--alpha must be 0 or less, since slower is never better, but got 0.5"),
        ("--reward", "greedy", "--reward"),
        ("--preset", "thesis", "--preset must be one of standard, paper, but got 'thesis'"),
        ("--accelerator", "tpu", "accelerator"),
        (
            "--space",
            "mnasnet2",
            "--space must be one of mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell, the path of",
        ),
        ("--input-size", "4", "--input-size must be"),
        ("--output-stride", "7", "output stride must be"),
        ("--width", "0", "--width must be a number from 0.01 to 100, but got 0.0"),
        ("--data", "nowhere", "--data must be a folder or one of digits, cifar10, fashion-mnist, imagenet"),
        ("--data", "cifar10", "--download"),
    ],
)
def test_bad_option(capsys, tmp_path, option, value, expected):
    options = {"--data": "digits", "--run": tmp_path / "run", option: value}
    line = complaint(capsys, "search", *[x for pair in options.items() for x in pair])
    assert expected in line
    assert not (tmp_path / "run").exists()  # no run was created


def test_bad_folders(capsys, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "at least two class folders" in complaint(capsys, "search", "--data", empty)
    one = make_images(tmp_path / "one", classes=("cat",))
    assert "only 'cat'" in complaint(capsys, "search", "--data", one)
    file = tmp_path / "file.jpg"
    file.touch()
    assert "an image; name the folder" in complaint(capsys, "search", "--data", file)


def test_corrupt_images(capsys, tmp_path):
    photos = make_images(tmp_path / "photos")
    (photos / "cat" / "3.png").write_bytes(b"no image")
    line = complaint(capsys, "search", "--data", photos, "--input-size", "16")  # 1 of 40 is more than 1 %
    assert "cat/3.png" in line


def test_bad_space_file(capsys, tmp_path):
    file = tmp_path / "space.toml"
    file.write_text('name = "mine"\n[choices]\nkernels = [3]\n')
    line = complaint(capsys, "search", "--data", "digits", "--space", file)
    assert "has no key kernels" in line
    assert str(file) in line
    file.write_text("name = ")
    assert "not valid TOML" in complaint(capsys, "space", file)


def test_bad_architectures(capsys):
    assert "did you mean mnasnet-a1" in complaint(capsys, "show", "mnasnet_a1")
    assert "unknown part 'k3x3'" in complaint(capsys, "show", "r1_k3x3_s11_e1_o16")
    line = complaint(capsys, "show", "mnasnet-a1", "--input-size", "16")
    assert "must be at least the output stride 32, but got 16" in line
    assert "must be at least the output stride 32" in complaint(capsys, "latency", "mnasnet-a1", "--input-size", "20")
    assert "runs/none" in complaint(capsys, "show", "runs/none#3")


def test_no_run(capsys, tmp_path):
    assert "no study.db" in complaint(capsys, "report", tmp_path)
    assert "DIRECTORY must be a folder that contains runs, but got" in complaint(capsys, "runs", tmp_path / "none")


SEARCH = (
    *("search", "--data", "digits", "--max-images-per-class", "20", "--width", "0.25", "--input-size", "8"),
    *("--output-stride", "8", "--epochs", "1", "--fewest-steps", "1"),
)
QUICK = ("--trials", "2", "--candidates-per-update", "2", "--latency-budget-s", "0.1", "--workers", "1")


def test_a_run_with_other_settings_is_rejected_and_kept(capsys, tmp_path):
    assert run([*SEARCH, *QUICK, "--run", "runs/a"]) == 0
    before = read_run(tmp_path / "runs/a").trials
    capsys.readouterr()
    line = complaint(capsys, *SEARCH, *QUICK, "--run", "runs/a", "--seed", "5")
    assert "seed: 0 before, 5 now" in line
    assert "choose another --run" in line
    assert read_run(tmp_path / "runs/a").trials == list(before)
    # the same command with more trials resumes
    assert run([*SEARCH, *QUICK, "--run", "runs/a", "--trials", "3"]) == 0
    assert len(read_run(tmp_path / "runs/a").trials) == 3


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))


def test_a_full_disk_is_one_line_and_the_run_resumes(tmp_path):
    """A limit on file size in the middle of the search has the effect of a full disk."""
    # create the data cache first, as it is larger than the limit
    assert run([*SEARCH, *QUICK, "--run", "runs/other"]) == 0
    program = started_mnas(*SEARCH, *QUICK, "--run", "runs/full", before=limit_files)
    _, errors = program.communicate(timeout=250)
    assert program.returncode == 2, errors
    [line] = [x for x in errors.splitlines() if not x.startswith("INFO: ")]  # LiteRT's own
    assert line.startswith("mnas: ")
    assert "File too large" in line  # whichever file was written first
    assert run([*SEARCH, *QUICK, "--run", "runs/full"]) == 0
    assert [t.state for t in read_run(tmp_path / "runs/full").trials] == ["complete", "complete"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to (/proc)")
def test_a_read_only_run_directory(capsys):
    assert "/proc/self/run" in complaint(capsys, *SEARCH, "--run", "/proc/self/run")


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--seed", "-1", "--seed must be an integer from 0 to 9223372036854775807, but got -1"),
        ("--seed", str(2**63), f"--seed must be an integer from 0 to 9223372036854775807, but got {2**63}"),
        ("--latency-budget-s", "1e308", "--latency-budget-s must be greater than 0 and at most 86400, but got 1e+308"),
        ("--latency-budget-s", "nan", "--latency-budget-s must be greater than 0 and at most 86400, but got nan"),
    ],
)
def test_numbers_that_a_later_stage_would_reject(tmp_path, option, value, line, capsys):
    assert line in complaint(capsys, *SEARCH, "--run", "runs/none", option, value)
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(ValueError, match="mnasnet"):
        run(["show", "nonsense", "--debug"])


def test_ctrl_c_ends_cleanly_and_says_how_to_resume(tmp_path):
    """Ctrl-C is pressed several times."""
    options = ("--trials", "200", "--candidates-per-update", "4", "--latency-budget-s", "0.1", "--workers", "2")
    program = started_mnas(*SEARCH, "--run", "runs/stopped", *options)
    lines = []
    pressed = False
    for line in program.stdout:
        lines.append(line)
        if line.startswith("[") and int(line[1:].split("/")[0]) >= 3 and not pressed:
            pressed = True
            with contextlib.suppress(ProcessLookupError):
                while program.poll() is None:
                    program.send_signal(signal.SIGINT)
                    time.sleep(0.02)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 130
    assert [x for x in errors.splitlines() if not x.startswith("INFO: ")] == []  # LiteRT's own
    assert "stopped; nothing is lost. To resume: " in lines[-1]
    stored = read_run(tmp_path / "runs/stopped")
    assert stored.state.status == "stopped"
    assert sum(t.is_finished for t in stored.trials) >= 3


def test_an_error_of_a_users_sampler_is_one_line_and_the_mended_search_resumes(capsys, tmp_path):
    own = (
        "import optuna\nclass make(optuna.samplers.RandomSampler):\n"
        "    def sample_independent(self, study, trial, name, distribution):\n"
        "        CODE\n        return super().sample_independent(study, trial, name, distribution)\n"
    )
    for module, code, message in (
        ("climb_error", "trial.number == 1 and {}['temperature']", "KeyError: 'temperature'"),
        ("climb_kernel", "if trial.number == 1: return 9", "block1.op must be one of 'conv', "),
    ):
        (tmp_path / f"{module}.py").write_text(own.replace("CODE", code))
        search = (*SEARCH, *QUICK, "--run", f"runs/{module}", "--controller", f"{module}:make")
        search = (*search, "--candidates-per-update", "1", "--start-from", "none")
        assert complaint(capsys, *search).startswith(f"mnas: {module}:make failed at trial 1: {message}")
        assert len(read_run(tmp_path / "runs" / module).trials) == 1
        (tmp_path / f"{module}.py").write_text(own.replace("CODE", "pass"))
        del sys.modules[module]
        assert run(search) == 0
        assert len(read_run(tmp_path / "runs" / module).trials) > 1
