"""The command `mnas eval`: one network in several formats, on folders."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.data.load import load_dataset
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.tflite.writer import graph_bytes, write_tflite

ARCH = Arch(blocks=(Block(op="mbconv", expansion=2, kernel=3, stride=2, filters=8),), stem_filters=8, head_filters=8)
CLASSES = ("blue", "green", "red")
INFO = ModelMetadata(
    arch=ARCH, classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=16, accuracy=None, crop=0.75
)


@pytest.fixture(scope="module")
def network():
    """A network that has learnt the colours in a few steps of training."""
    torch.manual_seed(0)
    model = build_network(ARCH, 3).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        labels = torch.randint(0, 3, (32,))
        pixels = torch.randn(32, 3, 16, 16)
        pixels[torch.arange(32), 2 - labels] += 0.5
        loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(10):
            labels = torch.randint(0, 3, (32,))
            pixels = torch.randn(32, 3, 16, 16)
            pixels[torch.arange(32), 2 - labels] += 0.5
            model(pixels)
    return model.eval()


def save_images(folder, count: int, classes=CLASSES, seed: int = 0):
    """Noise that is slightly brighter in the channel of its class, and larger than the model's input."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.normal(127, 64, (24, 30, 3))
            pixels[..., ("red", "green", "blue").index(name) if name in CLASSES else 0] += 14
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch, network):
    """A folder with model.safetensors, model.tflite, and data/ with train/ and test/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "model.safetensors", network, INFO)
    (tmp_path / "model.tflite").write_bytes(
        write_tflite(network, 16, labels=CLASSES, mean=INFO.mean, std=INFO.std, crop=0.75)
    )
    save_images(tmp_path / "data" / "train", 10)
    save_images(tmp_path / "data" / "test", 20, seed=1)
    return tmp_path


def values(capsys, *arguments: str) -> dict:
    assert run(["eval", *arguments, "--json"]) == 0, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


def complaint(capsys, *arguments: str) -> str:
    assert run(["eval", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def by_hand(network, images: np.ndarray, labels: np.ndarray) -> float:
    inputs = (torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        return float((network(inputs).argmax(1).numpy() == labels).mean())


def test_every_format_scores_the_same(capsys, network):
    ours, litert = (values(capsys, f"model.{suffix}", "--data", "data") for suffix in ("safetensors", "tflite"))
    test = load_dataset("data", input_size=16, seed=0, crop=0.75).test
    assert ours["top1"] == pytest.approx(by_hand(network, np.array(test.images), test.labels))
    assert 0.5 < ours["top1"] < 1
    assert (ours["part"], ours["images"], ours["top5"], ours["crop"]) == ("test", 60, 1.0, 0.75)
    assert (ours["format"], litert["format"]) == ("mnas", "litert")
    same = ("top1", "top5", "per_class", "confusion", "images", "part", "data_fingerprint", "classes_matched")
    assert {key: ours[key] for key in same} == {key: litert[key] for key in same}
    assert np.trace(ours["confusion"]) / 60 == pytest.approx(ours["top1"])
    assert [row["label"] for row in ours["per_class"]] == list(CLASSES)


def test_the_crop_is_what_the_model_was_made_for(files):
    cropped = load_dataset("data", input_size=16, seed=0, crop=0.75).test
    whole = load_dataset("data", input_size=16, seed=0).test
    assert np.abs(cropped.images.astype(int) - whole.images).mean() > 5
    with Image.open(files / "data" / "test" / "blue" / "0.png") as image:
        box = (6, 3, 24, 21)  # 18 of 24 pixels, around the centre
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box=box))
    np.testing.assert_array_equal(cropped.images[0], expected)
    with pytest.raises(ValueError, match="crop must be above 0 and at most 1, but got 0"):
        load_dataset("data", input_size=16, seed=0, crop=0)


def test_parts(capsys):
    assert values(capsys, "model.tflite", "--data", "data", "--part", "val")["images"] == 6
    assert values(capsys, "model.tflite", "--data", "data", "--part", "train")["images"] == 24
    everything = values(capsys, "model.tflite", "--data", "data", "--part", "all")
    assert (everything["part"], everything["images"]) == ("all", 90)
    parts = [values(capsys, "model.tflite", "--data", "data", "--part", part) for part in ("train", "val", "test")]
    assert np.array_equal(everything["confusion"], sum(np.array(part["confusion"]) for part in parts))
    only_train = values(capsys, "model.tflite", "--data", "data/train")
    assert (only_train["part"], only_train["images"]) == ("val", 6)
    line = complaint(capsys, "model.tflite", "--data", "data/train", "--part", "test")
    assert "--data must have a part 'test', but 'train' has only train and val" in line


def test_large_data_is_decoded_on_the_fly(capsys, monkeypatch):
    cached = values(capsys, "model.tflite", "--data", "data")
    monkeypatch.setattr("mnas.data.scored.MOST_ARRAY_BYTES", 0)
    large = values(capsys, "model.tflite", "--data", "data")
    for key in ("top1", "top5", "per_class", "confusion", "images", "part", "classes_matched"):
        assert large[key] == cached[key], key
    assert run(["eval", "model.tflite", "--data", "data"]) == 0
    assert (
        "data is identified by file names, sizes and modification times instead of its content\n"
        in capsys.readouterr().out
    )


def test_tables_and_picture(capsys, files):
    assert run(["eval", "model.tflite", "--data", "data", "--save", "confusion.png"]) == 0
    printed = capsys.readouterr().out
    top1 = values(capsys, "model.tflite", "--data", "data")["top1"]
    assert printed.startswith("test part of data\n")
    assert f"{100 * top1:.2f} %" in printed
    assert "most frequent errors (true class -> prediction)" in printed
    with Image.open(files / "confusion.png") as picture:
        assert picture.format == "PNG"
    before = (files / "confusion.png").read_bytes()
    assert "'confusion.png' already exists" in complaint(
        capsys, "model.tflite", "--data", "data", "--save", "confusion.png"
    )
    assert (files / "confusion.png").read_bytes() == before
    assert "is in a folder that does not exist" in complaint(
        capsys, "model.tflite", "--data", "data", "--save", "no/confusion.png"
    )
    assert "must name a .png file" in complaint(capsys, "model.tflite", "--data", "data", "--save", "confusion.jpg")
    assert run(["eval", "model.tflite", "--data", "data", "--part", "val"]) == 0
    assert "drawn with seed 0" in capsys.readouterr().out.splitlines()[0]


def test_classes_by_name(capsys, files, network):
    order = [2, 0, 1]
    with torch.no_grad():
        shuffled = build_network(ARCH, 3)
        shuffled.load_state_dict(network.state_dict())
        shuffled.classifier.weight.copy_(network.classifier.weight[order])
        shuffled.classifier.bias.copy_(network.classifier.bias[order])
    names = tuple(CLASSES[i] for i in order)
    save_weights(files / "shuffled.safetensors", shuffled, replace(INFO, classes=names))
    ours = values(capsys, "model.safetensors", "--data", "data")
    other = values(capsys, "shuffled.safetensors", "--data", "data")
    assert other["top1"] == ours["top1"]
    assert other["classes_matched"] == "classes matched by name"
    assert {r["label"]: r["top1"] for r in other["per_class"]} == {r["label"]: r["top1"] for r in ours["per_class"]}
    assert np.array_equal(np.array(ours["confusion"])[np.ix_(order, order)], other["confusion"])


def test_classes_that_do_not_fit(capsys, files, network):
    save_images(files / "more", 5, ("blue", "green", "red", "violet"))
    line = complaint(capsys, "model.tflite", "--data", "more")
    assert "--data must have at most the model's 3 classes, but got 4" in line
    save_images(files / "others", 5, ("blue", "green", "violet"))
    line = complaint(capsys, "model.tflite", "--data", "others")
    assert "the data's classes must be the model's (blue, green, red), but got violet" in line
    assert complaint(capsys, "model.tflite", "--data", "nowhere").endswith("(no such folder)")
    (files / "data" / "train" / "pink").mkdir()
    assert "--data must have images" in complaint(capsys, "model.tflite", "--data", "data")


def test_a_file_that_names_no_classes(capsys, files):
    (files / "bare.tflite").write_bytes(graph_bytes(ARCH, 16, 3))
    options = ("bare.tflite", "--data", "data", "--mean", "0.5", "--std", "0.25", "--crop", "0.75")
    line = complaint(capsys, *options)
    assert (
        "the order of the classes is unknown, because the model has no class names and folders are sorted as text"
        in line
    )
    assert "--class-file" in line
    found = values(capsys, *options, "--class-order", "data")
    assert found["classes_matched"] == "the model has no class names; classes matched in the data's order"
    assert [row["label"] for row in found["per_class"]] == list(CLASSES)


def test_the_folder_of_a_training(capsys, files):
    (files / "training").mkdir()
    (files / "model.safetensors").rename(files / "training" / "model.safetensors")
    assert values(capsys, "training", "--data", "data")["format"] == "mnas"
    assert "must contain model.safetensors, but got 'data'" in complaint(capsys, "data", "--data", "data")
