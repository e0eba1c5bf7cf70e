"""Training images are never scored as held-out images, and nobody has to remember a seed.

The images are noise, so that a model scores above chance only on images that it memorised.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.nn.weights import load_weights, save_weights
from mnas.nn.weights_info import read_weights_info
from mnas.tflite.metadata import read_metadata
from tests.cli.test_bad_input import complaint

ARCH = Arch(
    blocks=(
        Block(op="conv", kernel=3, stride=2, filters=64, skip="none"),
        Block(op="conv", kernel=3, stride=2, filters=64, skip="none"),
    ),
    stem_filters=32,
    stem_stride=1,
    head_filters=128,
)
BY_HEART = (
    *("--input-size", "8", "--epochs", "25", "--batch-size", "16", "--fewest-steps", "1", "--learning-rate", "0.8"),
    *("--label-smoothing", "0", "--ema-decay", "0", "--dropout", "0", "--bn-momentum", "0.1", "--weight-decay", "0"),
    *("--estimate-statistics", "0", "--threads", "1"),
)
EACH = 60
"""Images of each of two classes; 12 of them are held out."""
CHANCE = (5, 19)
"""Range of correct predictions among 24 held-out images by chance; outside it once in 500 (binomial, both sides)."""


def noise(folder: Path, count: int = EACH, seed: int = 1) -> Path:
    draw = np.random.default_rng(seed)
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Make `noise`, and the folders `seed-1` and `seed-7` of trainings on it."""
    folder = tmp_path_factory.mktemp("held-out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        noise(folder / "noise")
        (folder / "net.json").write_text(ARCH.to_json())
        for seed in ("1", "7"):
            assert run(["train", "net.json", "--data", "noise", *BY_HEART, "--seed", seed, "--out", "out"]) == 0
            shutil.move("out/net-8px", f"seed-{seed}")
    return folder


@pytest.fixture(autouse=True)
def here(shared, tmp_path, monkeypatch):
    """Copy the folders and their cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    for name in ("noise", "seed-1", "seed-7"):
        shutil.copytree(shared / name, tmp_path / name)
    shutil.copy(shared / "net.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(capsys, *arguments: str) -> dict:
    assert run(["eval", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def right(found: dict) -> int:
    return round(found["top1"] * found["images"])


@pytest.mark.parametrize("seed", [1, 7])
def test_eval_scores_what_was_held_out(capsys, seed):
    found = scored(capsys, f"seed-{seed}", "--data", "noise")
    assert (found["part"], found["seed"], found["images"]) == ("val", seed, 24)
    assert (found["data_of_training"], found["notes"]) == (True, [])
    assert found["top1"] == read_weights_info(Path(f"seed-{seed}/model.safetensors")).accuracy
    assert CHANCE[0] <= right(found) <= CHANCE[1]
    trained = scored(capsys, f"seed-{seed}", "--data", "noise", "--part", "train")
    assert trained["top1"] > 0.95, "nothing is learnt by heart: the test says nothing"
    assert trained["notes"] == ["the model was trained on these images"]


@pytest.mark.parametrize("beside", ["training", "run"])
def test_a_file_that_says_nothing_is_scored_by_the_settings_beside_it(capsys, here, beside):
    before = scored(capsys, "seed-7", "--data", "noise")
    old = here / "seed-7" / "model.safetensors"
    save_weights(old, load_weights(old), replace(read_weights_info(old), trained_on=()))
    name = "seed-7"
    if beside == "run":
        name = "old/models/3.safetensors"
        (here / "old" / "models").mkdir(parents=True)
        shutil.move(old, name)
        (here / "old" / "study.db").touch()
        (here / "old" / "config.json").write_text('{"seed": 7}')
    found = scored(capsys, name, "--data", "noise")
    assert (found["seed"], found["top1"], found["confusion"]) == (7, before["top1"], before["confusion"])
    said = "val is drawn with seed 7 from the settings beside the file"
    assert said in found["notes"][0]
    assert scored(capsys, name, "--data", "noise", "--seed", "1")["seed"] == 1
    assert run(["export", name, "--to", "litert", "--data", "noise", "--speed-s", "0"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_all_images_are_scored_on_request_only(capsys):
    found = scored(capsys, "seed-7", "--data", "noise", "--part", "all")
    assert (found["part"], found["seed"], found["images"]) == ("all", None, 120)
    assert found["notes"] == ["these include images that the model was trained on"]
    parts = [scored(capsys, "seed-7", "--data", "noise", "--part", part) for part in ("train", "val")]
    assert right(found) == sum(map(right, parts))
    assert run(["eval", "seed-7", "--data", "noise", "--part", "all"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["all images of noise", found["notes"][0]]


@pytest.mark.parametrize("part", ["auto", "val", "train"])
def test_a_seed_that_contradicts_the_file_is_refused(capsys, part):
    line = complaint(capsys, "eval", "seed-7", "--data", "noise", "--part", part, "--seed", "1")
    assert "--seed must be 7" in line
    assert "but got 1" in line
    line = complaint(capsys, "export", "seed-7", "--to", "litert", "--data", "noise", "--seed", "1")
    assert "--seed must be 7" in line
    assert scored(capsys, "seed-7", "--data", "noise", "--seed", "7")["seed"] == 7
    assert scored(capsys, "seed-7", "--data", "noise", "--seed", "1", "--part", "all")["images"] == 120


def test_the_place_and_the_name_of_the_data_make_no_difference(capsys, here):
    (here / "elsewhere").mkdir()
    shutil.copytree(here / "noise", here / "elsewhere" / "renamed", copy_function=shutil.copyfile)
    before = scored(capsys, "seed-7", "--data", "noise")
    after = scored(capsys, "seed-7", "--data", "elsewhere/renamed")
    same = ("top1", "confusion", "data_content", "data_of_training", "seed", "part")
    assert {key: before[key] for key in same} == {key: after[key] for key in same}


def test_data_that_has_grown_is_refused(capsys, here):
    shutil.copy(here / "noise" / "a" / "0.png", here / "noise" / "a" / "new.png")
    for command in (["eval", "seed-7"], ["export", "seed-7", "--to", "litert"]):
        line = complaint(capsys, *command, "--data", "noise")
        assert "'noise' has been changed since the model was trained on it" in line
        assert "(120 images then, 121 now)" in line
        assert "--part all" in line
    found = scored(capsys, "seed-7", "--data", "noise", "--part", "all")
    assert (found["images"], found["data_of_training"]) == (121, False)
    assert found["notes"] == [
        "'noise' has changed since the model was trained on it, so these may include training images"
    ]


def test_one_changed_pixel_is_refused_even_at_equal_size_and_time(capsys, here):
    path = here / "noise" / "b" / "3.png"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # part of the last chunk's checksum, which decoders ignore
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "has been changed" in complaint(capsys, "eval", "seed-7", "--data", "noise")


def test_other_data(capsys, here):
    noise(here / "other", 3, seed=2)
    line = complaint(capsys, "eval", "seed-7", "--data", "other")
    assert "must be the model's training data ('noise'), but got other images in 'other'" in line
    assert "--part all" in line
    assert "but got other images" in complaint(capsys, "eval", "seed-7", "--data", "other", "--seed", "7")
    assert scored(capsys, "seed-7", "--data", "other", "--part", "all")["images"] == 6
    noise(here / "parts" / "train", 3, seed=2)
    noise(here / "parts" / "test", 4, seed=3)
    found = scored(capsys, "seed-7", "--data", "parts")
    assert (found["part"], found["images"], found["seed"], found["data_of_training"]) == ("test", 8, None, False)
    assert "is not the data that the model was trained on ('noise')" in found["notes"][0]
    assert "other images" in complaint(capsys, "eval", "seed-7", "--data", "parts", "--part", "val")
    noise(here / "parts" / "val", 5, seed=4)
    assert scored(capsys, "seed-7", "--data", "parts", "--part", "val")["images"] == 10
    assert scored(capsys, "seed-7", "--data", "parts", "--part", "train")["images"] == 6
    assert scored(capsys, "seed-7", "--data", "parts", "--part", "all")["images"] == 24


def test_one_image_a_class_is_scored(capsys, here):
    noise(here / "few", 1, seed=2)
    assert scored(capsys, "seed-7", "--data", "few", "--part", "all")["images"] == 2


def test_parts_are_scored_where_there_are_no_training_images(capsys, here):
    noise(here / "judged" / "test", 1, seed=2)
    for part in ("auto", "test", "all"):
        assert scored(capsys, "seed-7", "--data", "judged", "--part", part)["images"] == 2
    line = complaint(capsys, "eval", "seed-7", "--data", "judged", "--part", "val")
    assert "must have a part 'val', but 'judged' has only test" in line
    noise(here / "judged" / "val", 2, seed=3)
    assert scored(capsys, "seed-7", "--data", "judged")["images"] == 2
    assert scored(capsys, "seed-7", "--data", "judged", "--part", "val")["images"] == 4
    assert scored(capsys, "seed-7", "--data", "judged", "--part", "all")["images"] == 6
    assert "--data must have a part train/" in complaint(capsys, "train", "net.json", "--data", "judged")


def test_exports_are_compared_on_what_was_held_out_and_say_what_they_were_trained_on(capsys, here):
    assert run(["export", "seed-7", "--to", "litert,onnx", "--data", "noise", "--speed-s", "0"]) == 0
    assert "24 validation images of noise" in capsys.readouterr().out
    info = read_weights_info(here / "seed-7" / "model.safetensors")
    report = json.loads((here / "seed-7" / "model.tflite.gate.json").read_text())
    assert report["comparison"]["torch_accuracy"] == info.accuracy
    assert read_metadata((here / "seed-7" / "model.tflite").read_bytes()).trained_on == info.trained_on
    for name in ("model.tflite", "model.onnx"):
        found = scored(capsys, f"seed-7/{name}", "--data", "noise")
        assert (found["top1"], found["seed"], found["images"]) == (info.accuracy, 7, 24)
        assert "--seed must be 7" in complaint(capsys, "eval", f"seed-7/{name}", "--data", "noise", "--seed", "0")


def test_int8_is_calibrated_on_training_images(capsys, here):
    from mnas.export.images import open_samples

    info = read_weights_info(here / "seed-7" / "model.safetensors")
    samples = open_samples("noise", info)
    train, held_out = ({item.name for item in items} for items in (samples.train, samples.held_out))
    assert (len(train), len(held_out), train & held_out) == (96, 24, set())
    every = open_samples("noise", info, part="all")
    assert {item.name for item in every.held_out} == train | held_out
    assert every.selection.notes == ("these include images that the model was trained on",)


def test_weights_to_start_from_bring_their_split(capsys, here):
    """Otherwise the second training would validate on images that the first one memorised."""
    quick = ("--input-size", "8", "--epochs", "1", "--learning-rate", "1e-6", "--threads", "1", "--warmup-epochs", "0")
    kept = ("--ema-decay", "0", "--dropout", "0", "--bn-momentum", "0.000001", "--estimate-statistics", "0")
    command = ["train", "net.json", "--data", "noise", "--weights", "seed-7/model.safetensors", *quick, *kept]
    assert run([*command, "--seed", "3", "--out", "tuned"]) == 0
    assert "validation images: the held-out images of the training of seed-7/model.safetensors (seed 7)" in (
        capsys.readouterr().out
    )
    first = read_weights_info(here / "seed-7" / "model.safetensors")
    info = read_weights_info(here / "tuned" / "net-8px" / "model.safetensors")
    assert info.trained_on == first.trained_on
    assert CHANCE[0] / 24 <= info.accuracy <= CHANCE[1] / 24
    line = complaint(capsys, *command, "--max-images-per-class", "50", "--out", "fewer")
    assert "--max-images-per-class must be 0" in line
    noise(here / "other", 10, seed=2)
    assert run([*command[:3], "other", *command[4:], "--out", "further"]) == 0
    info = read_weights_info(here / "further" / "net-8px" / "model.safetensors")
    assert [record.name for record in info.trained_on] == ["other", "noise"]
    assert info.trained_on[1:] == first.trained_on
    capsys.readouterr()
    found = scored(capsys, "further/net-8px", "--data", "noise")
    assert (found["seed"], found["data_of_training"], found["images"]) == (7, True, 24)
    assert CHANCE[0] <= right(found) <= CHANCE[1]


def test_a_resumed_training_keeps_its_record(here):
    folder = here / "again" / "net-8px"
    shutil.copytree(here / "seed-7", folder)
    before = read_weights_info(folder / "model.safetensors")
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()  # as if it had been killed before the end
    command = ["train", "net.json", "--data", "noise", *BY_HEART, "--seed", "7", "--out", "again", "--resume"]
    assert run(command) == 0
    assert read_weights_info(folder / "model.safetensors") == before
    assert before.trained_on[0].seed == 7
    assert json.loads((folder / "config.json").read_text())["trained_on"][0]["content"] == before.trained_on[0].content
