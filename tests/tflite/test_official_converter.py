"""The official converter, in an environment of its own, gives a file that computes what mnas's file computes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from same_function import TOLERANCE, images, outputs, trained_like

from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import write_tflite
from mnas.zoo.architectures import named_arch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import official_converter
import writer_vs_converter

needs_converter = pytest.mark.skipif(
    not official_converter.is_installed(), reason="no litert-torch; scripts/litert-torch-env installs it"
)
SCRIPT = Path(__file__).parents[2] / "scripts/litert-torch-env"


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("name", ["mnasnet-small@0.35/s8", "mobilenetv3-small@0.35", "tinynet-a@0.35"])
def test_both_files_have_the_same_operators_and_outputs(name, tmp_path, monkeypatch):
    network = trained_like(named_arch(name), 10, seed=0)
    x = images(40, seed=0)
    theirs = official_converter.convert(network, 40, tmp_path)
    ours = write_tflite(network, 40)
    assert writer_vs_converter.operators(ours) == writer_vs_converter.operators(theirs.content)
    largest = np.abs(outputs(network, x)).max()
    assert np.abs(run_tflite(theirs.content, x) - run_tflite(ours, x)).max() <= TOLERANCE * largest
    assert theirs.versions["litert-torch"] == "0.10.0"
    assert theirs.seconds > 0

    monkeypatch.setattr(official_converter, "_run", None)  # a second conversion would fail
    assert official_converter.convert(network, 40, tmp_path) == theirs
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(TypeError):
        official_converter.convert(network, 48, tmp_path)


@pytest.mark.slow
@needs_converter
def test_a_converter_that_fails_is_reported_in_one_line(tmp_path):
    with pytest.raises(official_converter.ConversionError, match=r"^litert-torch failed: .*missing\.pt2"):
        official_converter._run(str(tmp_path / "missing.pt2"), str(tmp_path / "network.tflite"))


def test_an_interpreter_that_is_missing_is_reported_with_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr(official_converter, "INTERPRETER", tmp_path / "python")
    assert not official_converter.is_installed()
    with pytest.raises(official_converter.ConversionError, match=r"does not start .*; run scripts/litert-torch-env$"):
        official_converter._run("network.pt2", "network.tflite")


@pytest.mark.parametrize(
    ("arguments", "python", "error"),
    [
        (("a", "b"), "", "expected one folder at most, but got 2: a b"),
        (("--help",), "", "expected a folder, but got --help; usage: scripts/litert-torch-env [FOLDER]"),
        (("{used}",), "", "{used} exists and is not a virtual environment; name another folder"),
        (("new",), "no-such-python", "there is no program no-such-python; PYTHON=... names another Python"),
    ],
)
def test_the_script_rejects_a_wrong_call_in_one_line(tmp_path, arguments, python, error):
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").touch()
    words = [word.replace("{used}", str(used)) for word in arguments]
    done = subprocess.run(
        [SCRIPT, *words], cwd=tmp_path, env=os.environ | {"PYTHON": python}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"litert-torch-env: {error.replace('{used}', str(used))}\n"
