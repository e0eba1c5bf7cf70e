"""Names of files, classes, devices, spaces and runs that try to act on a terminal, through the commands themselves."""

import os
import re
import shutil

import pytest
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.labels import label_fault
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.space.named import load_space

HOSTILE = (
    "cat\nvalidation accuracy 99.99%",
    "cat\rvalidation accuracy 99.99%",
    "\x1b[2J\x1b[31mcat",
    "\x9b2Jcat",
    "\x1b]8;;http:evil\x07cat\x1b]8;;\x07",
    "\x1b]52;c;ZXZpbA==\x07cat",
    "[red]cat",
    "[link=http:evil]cat[/link]",
    "cat[/]",
    "cat\u2028validation accuracy 99.99%",
    "\u202etac",
    "cat\udcff",
)
CLASSES = tuple(name for name in HOSTILE if not label_fault(name))
"""Those that a model file may contain: one line of text each."""
FORGED = ("validation accuracy 99", "mnas: fine")
FORBIDDEN = ("\x1b[2J", "\x1b[31m", "\x1b]", "\x9b", "\x07", "\u2028", "\u202e", "\udcff")
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ARCH = Arch(blocks=(Block(op="sepconv", kernel=3, stride=1, filters=8),), stem_filters=8, head_filters=16)


def file_name(name: str) -> str:
    return name.replace("/", "_")


def ran(capsys, *arguments: str) -> str:
    """Return what a command prints; assert that it is plain text except for the program's own colours."""
    code = run(list(arguments))
    printed = "".join(capsys.readouterr())
    assert code in (0, 2), printed
    without = OURS.sub("", printed.replace("\x1b[2J", "CLEARED").replace("\x1b[31m", "RED"))
    for forbidden in FORBIDDEN:
        assert forbidden not in printed, ascii(printed)
    assert "\x1b" not in without
    for line in without.split("\n"):
        assert not any(part.startswith(FORGED) for part in line.split("\r")), ascii(printed)
    return printed


@pytest.fixture
def terminal(monkeypatch):
    """Make Rich believe that it writes to a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def model(tmp_path):
    info = ModelMetadata(
        arch=ARCH, classes=CLASSES, mean=(0.5,) * 3, std=(0.2,) * 3, input_size=16, accuracy=None, crop=1.0
    )
    save_weights(tmp_path / "model.safetensors", build_network(ARCH, len(CLASSES)), info)
    return str(tmp_path / "model.safetensors")


def test_predict_shows_classes_and_file_names_as_they_are(tmp_path, capsys, terminal, model):
    (tmp_path / "images").mkdir()
    for name in HOSTILE:
        Image.new("RGB", (16, 16), "red").save(tmp_path / "images" / "plain.png")
        os.rename(tmp_path / "images" / "plain.png", tmp_path / "images" / f"{file_name(name)}.png")
    (tmp_path / "images" / "bad\nmnas: fine.png").write_bytes(b"no image")
    printed = ran(capsys, "predict", model, str(tmp_path / "images"), "--top", str(len(CLASSES)), "--save",
                  str(tmp_path / "saved"))  # fmt: skip
    assert printed.count(r"cat\x0avalidation accuracy 99.99%") == 1  # a file
    assert printed.count("[red]cat") == 12 + 1  # as a class, and a file
    assert r"bad\nmnas: fine.png" in printed
    assert r"\x1b[2J\x1b[31mcat" in printed
    assert r"\u202etac" in printed


def test_eval_train_and_export_show_them_too(tmp_path, capsys, terminal, model):
    data = tmp_path / "data"
    for number, name in enumerate(HOSTILE):
        folder = os.path.join(data, file_name(name))
        os.makedirs(folder)
        for image in range(2):
            Image.new("RGB", (16, 16), (20 * number, 100 * image, 0)).save(os.path.join(data, "x.png"))
            os.rename(os.path.join(data, "x.png"), os.path.join(folder, f"{file_name(name)}{image}.png"))
    ran(capsys, "eval", model, "--data", str(data), "--part", "all")
    ran(capsys, "eval", model, "--data", str(data), "--part", "all", "--save", str(tmp_path / "picture.png"))
    ran(capsys, "train", "mnasnet-small@0.35/s8", "--data", str(data), "--input-size", "32", "--epochs", "1", "--out",
        str(tmp_path / "out\x1b[2J"))  # fmt: skip
    hostile = tmp_path / "cat\nvalidation accuracy 99.99%.safetensors"
    shutil.copy(model, hostile)
    ran(capsys, "export", str(hostile), "--to", "litert", "--speed-s", "0")


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_a_user_pastes_are_shown_in_one_line(tmp_path, capsys, terminal, name):
    space = tmp_path / "space.toml"
    text = "".join(f"\\u{ord(c):04x}" if not 0xD800 <= ord(c) < 0xE000 else "?" for c in name)
    space.write_text(f'name = "{text}"\n')
    ran(capsys, "space", str(space))
    devices = tmp_path / "devices.toml"
    devices.write_text(f'[board]\nkind = "ssh"\naddress = "{text}"\n')
    ran(capsys, "devices", "list", "--devices", str(devices))
    devices.write_text(f'["{text}"]\nkind = "ssh"\naddress = "x"\n')
    ran(capsys, "devices", "list", "--devices", str(devices))
    for arguments in (
        ("devices", "check", name),
        ("show", name),
        ("show", f"{name}.json"),
        ("show", f"{tmp_path}/{file_name(name)}#3"),
        ("latency", name),
        ("latency", f"{file_name(name)}.tflite"),
        ("predict", f"{file_name(name)}.tflite", name),
        ("eval", f"{file_name(name)}.onnx", "--data", name),
        ("export", name, "--to", name),
        ("train", name, "--data", name),
        ("search", "--data", name),
        ("search", f"--{name}"),
        ("runs", name),
        ("report", name),
        ("bench", "--benchmark", "table", "--path", name),
        (name,),
    ):
        ran(capsys, *arguments)


def test_runs_and_reports_show_names_as_text(tmp_path, capsys, terminal, monkeypatch):
    from mnas.study import open_run

    for number, name in enumerate(HOSTILE[:5]):
        folder = tmp_path / "runs" / file_name(name)
        with open_run(folder, {"data": name, "space": load_space("mnasnet").to_dict(), "seed": number}) as opened:
            opened.set("state", {"status": "stopped", "reason": name})
    printed = ran(capsys, "runs", str(tmp_path / "runs"))
    assert printed.count(r"cat\x0avalidation") >= 1
