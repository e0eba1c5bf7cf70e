"""The command `mnas predict`."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mnas
from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.predict.video import VideoFile, opened_video
from mnas.tflite.writer import graph_bytes, write_tflite

ARCH = Arch(blocks=(Block(op="mbconv", expansion=2, kernel=3, stride=2, filters=8),), stem_filters=8, head_filters=8)
CLASSES = ("cat", "dog", "eel")
INFO = ModelMetadata(arch=ARCH, classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=16, accuracy=None)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """The current folder, with model.safetensors, model.tflite, arch.json, photos/1.png and photos/more/2.png."""
    torch.manual_seed(0)
    network = build_network(ARCH, 3).eval()
    save_weights(tmp_path / "model.safetensors", network, INFO)
    (tmp_path / "model.tflite").write_bytes(write_tflite(network, 16, labels=CLASSES, mean=INFO.mean, std=INFO.std))
    (tmp_path / "arch.json").write_text(ARCH.to_json())
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("1.png", "more/2.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(capsys, *arguments: str) -> str:
    assert run(["predict", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def rows(capsys, *arguments: str) -> list[dict]:
    assert run(["predict", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_folder_in_words(capsys):
    assert run(["predict", "model.safetensors", "photos", "--top", "2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert (lines[0], lines[3], len(lines)) == ("photos/1.png", "photos/more/2.png", 6)
    shares = [float(line.split("%")[0]) for line in (*lines[1:3], *lines[4:6])]
    assert shares[0] >= shares[1] > 0
    assert {line.split("%")[1].strip() for line in (*lines[1:3], *lines[4:6])} <= set(CLASSES)
    assert printed.err == ""


def test_json_is_the_same_in_two_formats(capsys):
    ours, litert = (
        rows(capsys, f"model.{suffix}", "photos/*.png", "photos/more") for suffix in ("safetensors", "tflite")
    )
    assert [row["image"] for row in ours] == ["photos/1.png", "photos/more/2.png"]
    for one, other in zip(ours, litert, strict=True):
        assert [p["index"] for p in one["predictions"]] == [p["index"] for p in other["predictions"]]
        assert [p["label"] for p in one["predictions"]] == [CLASSES[p["index"]] for p in one["predictions"]]
        shares = [p["probability"] for p in one["predictions"]]
        assert shares == pytest.approx([p["probability"] for p in other["predictions"]], abs=1e-5)
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_stops_nothing(capsys, files):
    (files / "bad.jpg").write_text("no image")
    assert (
        run(["predict", "model.tflite", "bad.jpg", "photos/1.png", "nothing.png", "photos/more/2.png", "--json"]) == 2
    )
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert {row["image"]: row.get("error") for row in found} == {
        "bad.jpg": "it is not an image",
        "photos/1.png": None,
        "photos/more/2.png": None,
        "nothing.png": "there is no such file",
    }
    assert printed.err.splitlines() == [
        "mnas: 'bad.jpg': it is not an image",
        "mnas: 'nothing.png': there is no such file",
        "mnas: 2 of 4 images could not be read",
    ]
    assert run(["predict", "model.tflite", "bad.jpg"]) == 2
    assert "1 of 1 image could not be read" in capsys.readouterr().err


def test_a_url(capsys, files):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=files)
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/photos/1.png"
        by_url, by_path = rows(capsys, "model.tflite", url, "photos/1.png", "--save", "out")
        server.shutdown()
        thread.join()
    assert by_url == {**by_path, "image": url}
    assert sorted(path.name for path in (files / "out").iterdir()) == ["1-2.jpg", "1.jpg"]


def test_annotated_copies_overwrite_nothing(capsys, files):
    for _ in range(2):
        assert run(["predict", "model.tflite", "photos", "--top", "3", "--save", "deep/out"]) == 0
    names = sorted(path.name for path in (files / "deep" / "out").iterdir())
    assert names == ["1-2.jpg", "1.jpg", "2-2.jpg", "2.jpg"]
    with Image.open(files / "deep" / "out" / "1.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (360, 40 + 24 + 3 * 28))
    (files / "taken").write_text("")
    assert "taken" in complaint(capsys, "model.tflite", "photos", "--save", "taken")


def test_an_architecture_with_weights(capsys, files):
    ours = rows(capsys, "model.safetensors", "photos")
    assert rows(capsys, "arch.json", "photos", "--weights", "model.safetensors") == ours
    (files / "names.txt").write_text("\n".join(CLASSES))
    options = ["--weights", "weights.pth", "--class-file", "names.txt", "--input-size", "16", "--crop", "1"]
    assert rows(capsys, "arch.json", "photos", *options, "--mean", "0.5", "--std", "0.25") == ours
    assert run(["predict", "arch.json", "photos", *options]) == 0
    assert "weights.pth does not record how to prepare images; using ImageNet's" in capsys.readouterr().err


def test_what_the_file_does_not_say(capsys, files):
    (files / "bare.tflite").write_bytes(graph_bytes(ARCH, 16, 3))
    line = complaint(capsys, "bare.tflite", "photos")
    assert (
        "'bare.tflite' does not record how its input is normalised; common values are --mean 0.485 0.456 0.406" in line
    )
    found = rows(capsys, "bare.tflite", "photos", "--mean", "0", "--std", "1")
    for before in (["--mean=0", "--std", "1"], ["--mean", "0,0,0", "--std", "1", "1", "1"]):
        assert (
            rows(capsys, *before, "bare.tflite", "photos") == found
        )  # the last of these options takes no further argument
    assert found[0]["predictions"][0]["label"].startswith("class ")


def test_images_of_12_bits_are_said(capsys, files):
    for name, scale in (("dim", 1), ("full", 16)):
        values = (np.arange(24 * 24).reshape(24, 24) * 7 % 4096 * scale).astype(np.uint16)
        Image.fromarray(values).save(files / f"{name}.png")
    assert run(["predict", "model.tflite", "dim.png"]) == 0
    assert "16-bit images use only their lowest 12 bits (dim.png)" in capsys.readouterr().err
    assert run(["predict", "model.tflite", "dim.png", "full.png"]) == 0
    assert "16 bits" not in capsys.readouterr().err


def test_pipes_are_not_waited_for(capsys, files):
    for name in ("p.tflite", "p.onnx", "p.pte", "p.safetensors", "p.pth", "names.txt", "p.png"):
        os.mkfifo(name)
    for arguments in (
        ["p.tflite", "photos"], ["p.onnx", "photos"], ["p.pte", "photos"], ["p.safetensors", "photos"],
        ["mnasnet-small", "photos", "--weights", "p.pth"],
        ["model.tflite", "photos", "--class-file", "names.txt"],
    ):  # fmt: skip
        assert complaint(capsys, *arguments).startswith("mnas: ")
    assert run(["predict", "model.tflite", "photos/1.png", "p.png"]) == 2
    assert "'p.png': it is not a regular file" in capsys.readouterr().err


def test_bad_input(capsys, files):
    save_weights(files / "small.safetensors", build_network(ARCH, 3), replace(INFO, input_size=16))
    whole = (files / "small.safetensors").read_bytes()
    (files / "small.safetensors").write_bytes(whole[: len(whole) // 2])
    (files / "text.onnx").write_text("no model")
    for arguments, message in (
        (["nothing.tflite", "photos"], "mnas: 'nothing.tflite' does not exist; a model must be a file, "),
        (["small.safetensors", "photos"], "must be a .safetensors file written by mnas"),
        (["text.onnx", "photos"], "ONNX Runtime cannot read 'text.onnx'"),
        (["weights.pth", "photos"], "but got 'weights.pth'; for other weights, name their architecture"),
        (["mnasnet-a1", "photos"], "a model must have trained weights, but got the network 'mnasnet-a1'"),
        (["model.tflite"], "IMAGES must be at least one file, folder, pattern or URL"),
        (["model.tflite", "photos", "--top", "0"], "--top must be 1 or more, but got 0"),
        (
            ["model.tflite", "photos", "--input-size", "32"],
            "--input-size must be 16 for 'model.tflite', but got 32",
        ),
        (["model.tflite", "photos", "--mean", "0.5"], "--mean and --std must be given together"),
        (
            ["model.tflite", "photos", "--mean", "grey", "--std", "1"],
            "--mean must be one number or three (0.5,0.5,0.5)",
        ),
        (["--mean", "0.5", "--std", "model.tflite", "photos"], "--std must be one number or three (0.5,0.5,0.5), but"),
        (["model.tflite", "photos", "--mean", "1", "2", "--std", "1"], "one finite number or three, one per channel"),
        (["model.tflite", "photos", "--threads", "0"], "--threads must be 1 or more, but got 0"),
        (["model.tflite", "photos", "--class-file", "nothing.txt"], "nothing.txt"),
        (["arch.json", "photos", "--weights", "nothing.pth"], "nothing.pth"),
    ):
        assert message in complaint(capsys, *arguments)


def as_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mnas.cli.main", *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, "PYTHONPATH": str(Path(mnas.__file__).parents[1]), **environment},
    )


def test_names_that_are_no_text_do_not_end_it_and_runtimes_are_not_heard(files):
    name = os.fsdecode(b"photos/\xff.png")
    shutil.copy("photos/1.png", name)
    done = as_a_process("predict", "model.tflite", "photos", "--top", "1", PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stderr) == (0, "")
    names = [line for line in done.stdout.splitlines() if line.startswith("photos")]
    assert names == ["photos/1.png", "photos/\\udcff.png", "photos/more/2.png"]


def test_videos_are_classified_frame_by_frame(capsys, tmp_path):
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(5)]
    file = VideoFile(tmp_path / "film.mp4", Fraction(10))
    for picture in pictures:
        file.add(picture)
    file.close()
    found = rows(capsys, "model.safetensors", "film.mp4", "photos/1.png", "--every", "2", "--save", "films")
    assert found[0]["image"] == "photos/1.png"  # images come first
    assert [(row["video"], row["frame"], row["time_s"]) for row in found[1:]] == [
        ("film.mp4", n, n / 10) for n in (0, 2, 4)
    ]
    with opened_video(tmp_path / "film.mp4") as video:
        frame = next(iter(video)).picture
    frame.save(tmp_path / "frame.png")
    assert rows(capsys, "model.safetensors", "frame.png")[0]["predictions"] == found[1]["predictions"]
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == ["1.jpg", "film.mp4"]
    (tmp_path / "cut.mkv").write_bytes(b"no video" * 100)
    assert run(["predict", "model.safetensors", "cut.mkv"]) == 2
    assert "it is not a readable video" in capsys.readouterr().err
