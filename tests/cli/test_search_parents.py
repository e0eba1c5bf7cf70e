"""`mnas search --parent` on real images and this machine: a parent of random weights, full training, bad input."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

from mnas.arch import Arch
from mnas.cli.conclusion import _table
from mnas.cli.main import run
from mnas.data.load import load_dataset
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.nn.weights_info import read_weights_info
from mnas.report.html import report_html
from mnas.search.parents import read_parents
from mnas.study import Snapshot, objectives_of, read_run
from mnas.study.results import NOT_TRAINED, references_of
from mnas.tflite.metadata import read_metadata
from mnas.tflite.runtime import run_tflite

ARCH = Arch.from_block_strings("r1_k3_s22_e1_i8_o8,r1_k3_s22_e3_i8_o16")
MEAN, STD = (0.3, 0.3, 0.3), (0.25, 0.25, 0.25)
SEARCH = (
    *("search", "--data", "digits", "--width", "0.25", "--output-stride", "8", "--epochs", "1", "--workers", "1"),
    *("--max-images-per-class", "12", "--candidates-per-update", "2", "--latency-budget-s", "0.1"),
    *("--latency-limit", "1000", "--whole"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the weights of a parent for other classes, and a search from it."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("parents")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    torch.manual_seed(0)
    info = ModelMetadata(arch=ARCH, classes=("a", "b", "c"), mean=MEAN, std=STD, input_size=32, accuracy=0.5)
    save_weights(folder / "parent.safetensors", build_network(ARCH, 3), info)
    assert run([*SEARCH, "--parent", "parent.safetensors", "--input-size", "24,16", "--run", "runs/p"]) == 0
    yield folder
    patch.undo()


def test_every_size_is_measured_scored_and_fine_tuned(folder):
    snapshot = read_run(folder / "runs/p")
    assert {(t.parent, t.input_size) for t in snapshot.trials} == {("parent.safetensors", s) for s in (16, 24)}
    assert [(t.state, t.error) for t in snapshot.trials] == [("complete", None)] * 2
    for t in snapshot.trials:
        assert t.arch == ARCH
        assert (t.features.fidelity, t.features.epochs) == ("frozen features", 0)
        assert (t.evaluation.fidelity, t.evaluation.epochs) == ("fine-tuned", 1)
        assert t.features.val_images == t.evaluation.val_images == len(_digits(t.input_size).val)
    [reference] = references_of(snapshot)
    assert (reference.input_size, reference.error) == (24, NOT_TRAINED)
    config = json.loads((folder / "runs/p/config.json").read_text())
    assert config["input_size"] == [16, 24]
    assert "space" not in config
    page = report_html(snapshot)
    assert "Networks with known weights" in page
    assert "Rows in italics are reference networks, measured but not trained;" in page
    assert "weights all classes equally.<" in page  # a warning ends with one full stop
    some = Snapshot(snapshot.path, snapshot.attributes, snapshot.trials[:1])
    assert "input 16 or 24 px" in report_html(some)  # on offer, even where one has no trial yet
    assert "parent.safetensors" in page


def _digits(size):
    return load_dataset("digits", input_size=size, seed=0, max_images_per_class=12)


def test_exported_models_have_their_own_size_and_normalisation(folder):
    for t in read_run(folder / "runs/p").front:
        model = (folder / f"runs/p/front/{t.number}/model.tflite").read_bytes()
        metadata = read_metadata(model)
        assert metadata.input_size == t.input_size
        assert metadata.mean == pytest.approx(MEAN)
        assert metadata.std == pytest.approx(STD)
        dataset = _digits(t.input_size)
        images = (np.asarray(dataset.val.images, np.float32) / 255 - np.array(MEAN)) / np.array(STD)
        outputs = run_tflite(model, images.astype(np.float32))
        assert (outputs.argmax(1) == dataset.val.labels).mean() == pytest.approx(t.accuracy, abs=0.01)


def test_the_best_are_trained_in_full_from_the_same_weights(folder, capsys):
    assert run(["train", "runs/p", "--top", "1", "--epochs", "1", "--threads", "1"]) == 0
    [trained] = (folder / "runs/p/trained").glob("*/model.safetensors")
    info = read_weights_info(trained)
    best = read_run(folder / "runs/p").trials[int(trained.parent.name)]
    assert info.input_size == best.input_size
    assert info.mean == pytest.approx(MEAN)
    recipe = json.loads((folder / "runs/p/trained/settings.json").read_text())
    assert recipe["optimizer"] == "adamw"  # the preset for known weights
    identity = json.loads((trained.parent / "config.json").read_text())["identity"]
    assert identity["initial weights"] != "fresh"


def test_a_single_trial_names_the_command_with_its_weights(folder, capsys):
    [small] = [t for t in read_run(folder / "runs/p").trials if t.input_size == 16]
    assert run(["train", f"runs/p#{small.number}", "--data", "digits", "--out", "single"]) == 2
    assert capsys.readouterr().err == (
        f"mnas: runs/p#{small.number} begins from known weights; train it with "
        "`mnas train parent.safetensors --weights parent.safetensors --input-size 16`, or with --top\n"
    )


def test_the_same_command_resumes_and_other_weights_do_not(folder, capsys):
    command = [*SEARCH, "--parent", "parent.safetensors", "--input-size", "16,24", "--run", "runs/p"]
    before = read_run(folder / "runs/p").trials
    top = ["train", "runs/p", "--epochs", "1", "--threads", "1", "--top", "1"]
    assert run(top) == 0
    assert run(command) == 0
    assert read_run(folder / "runs/p").trials == before
    (folder / "old.safetensors").write_bytes((folder / "parent.safetensors").read_bytes())
    torch.manual_seed(1)
    info = ModelMetadata(arch=ARCH, classes=("a", "b", "c"), mean=MEAN, std=STD, input_size=32, accuracy=0.5)
    save_weights(folder / "parent.safetensors", build_network(ARCH, 3), info)
    capsys.readouterr()
    assert run(command) == 2
    assert "another configuration (parents: " in capsys.readouterr().err
    assert run(top) == 0  # nothing remains to be trained
    shutil.rmtree(next((folder / "runs/p/trained").glob("*/")))
    assert run(top) == 2
    assert "the weights of parent.safetensors in parent.safetensors have changed since" in capsys.readouterr().err
    (folder / "parent.safetensors").write_bytes((folder / "old.safetensors").read_bytes())


def test_the_folder_of_a_training_has_weights(folder):
    (folder / "training").mkdir()
    shutil.copy(folder / "parent.safetensors", folder / "training/model.safetensors")
    [parent] = read_parents("parent.safetensors=training")
    assert parent.source.weights == "training/model.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--parent", "nosuchnet"), "--parent nosuchnet: 'nosuchnet' is not a network"),
        (("--parent", "mnasnet-small/s8=no.pth"), "--parent mnasnet-small/s8=no.pth: 'no.pth' does not exist"),
        (
            ("--parent", "mnasnet-small/s8=config.json"),
            "--parent mnasnet-small/s8=config.json: weights file 'config.json' is damaged",
        ),
        (("--parent", "mnasnet-a1=pretrained"), "--parent mnasnet-a1=pretrained: pretrained has the networks eff"),
        (("--parent", "mnasnet-a1@0.5"), "--parent mnasnet-a1@0.5: timm has weights for mnasnet-a1@0.75,"),
        (("--parent", "efficientnet-lite0=parent.safetensors"), "parent.safetensors"),
        (("--parent", "parent.safetensors,parent.safetensors"), "--parent must name each parent once"),
        (("--parent", "parent.safetensors="), "--parent must be NAME or NAME=WEIGHTS"),
        (("--parent", "r1_k3_s22_e1_i8_o8"), ": a model must have trained weights"),
        (
            ("--parent", "parent.safetensors", "--input-size", "2"),
            "--input-size must be an integer from 8",
        ),
        (("--parent", "parent.safetensors", "--start-from", "mnasnet-a1"), "needs a search from scratch"),
        (
            ("--parent", "parent.safetensors", "--latency", "predicted"),
            "--latency predicted must have one",
        ),
        (("--input-size", "16,16"), "--input-size must not repeat a value, but got 16, 16"),
        (("--input-size", "wide"), "--input-size must be a number of pixels"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_run(folder, capsys, options, message):
    (folder / "config.json").write_text("{}")
    search = [part for part in SEARCH if part != "--whole" or "--parent" in options]
    assert run([*search, "--input-size", "16", "--run", "runs/bad", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (folder / "runs/bad").exists()


def test_imported_trials_have_the_same_parents(folder, capsys):
    (folder / "other.safetensors").write_bytes((folder / "parent.safetensors").read_bytes())
    search = [*SEARCH, "--input-size", "16,24", "--start-from", "runs/p"]
    assert run([*search, "--parent", "other.safetensors", "--run", "runs/imported"]) == 2
    error = capsys.readouterr().err
    parts = re.search(r'parents: \["parent.safetensors (.*)"\] in that run, \["other.safetensors (.*)"\] now', error)
    assert parts
    assert parts[1] == parts[2]  # the same weights under another name
    assert run([*search, "--parent", "parent.safetensors", "--run", "runs/imported"]) == 0
    printed = capsys.readouterr().out
    assert "from --start-from: trial " in printed
    assert "from --parent: " not in printed


def test_the_table_at_the_end_has_the_input_sizes(folder):
    trials = read_run(folder / "runs/p").trials
    sizes = {t.label: str(t.input_size) for t in trials}
    table = _table(trials, ["host"], objectives_of(read_run(folder / "runs/p").attributes), [], "accuracy")
    cells = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    assert (table.columns[1].header, cells) == ("input px", sizes)
    one = _table(trials[:1], ["host"], objectives_of(read_run(folder / "runs/p").attributes), [], "accuracy")
    assert [column.header for column in one.columns][:2] == ["trial", "accuracy"]


def test_the_conclusion_names_a_command_that_trains_a_trial_without_weights_again(folder, capsys):
    search = [*SEARCH, "--parent", "parent.safetensors", "--input-size", "16", "--run", "runs/none"]
    assert run([*search, "--keep-models-mb", "0.001"]) == 0
    again = (
        "to train one again: mnas train parent.safetensors --weights parent.safetensors --input-size 16 --data digits"
    )
    assert again in " ".join(capsys.readouterr().out.split())


def test_training_images_of_a_parent_are_never_validation_images(folder, capsys):
    block_strings = "r1_k3_s22_e1_i8_o8,r1_k3_s22_e3_i8_o16"
    train = ["train", block_strings, "--data", "digits", "--max-images-per-class", "12", "--input-size", "16"]
    assert run([*train, "--epochs", "1", "--fewest-steps", "1", "--seed", "1", "--out", "own"]) == 0
    [own] = (folder / "own").glob("*")
    search = [*SEARCH, "--parent", str(own.relative_to(folder)), "--input-size", "16", "--run", "runs/own"]
    capsys.readouterr()
    assert run(search) == 2
    assert "--seed must be 1, as in the training of own/" in capsys.readouterr().err
    assert run([*search, "--seed", "1", "--max-images-per-class", "13"]) == 2
    assert "--max-images-per-class must be 12, as in the training of own/" in capsys.readouterr().err
    assert not (folder / "runs/own").exists()
    assert run([*search, "--seed", "1"]) == 0


def test_models_of_a_search_record_the_trainings_of_their_parent(folder):
    [digits] = read_weights_info(next((folder / "runs/own/models").glob("*.safetensors"))).trained_on
    assert (digits.name, digits.seed) == ("digits", 1)  # the training of the parent had the same images and split
    options = ["--max-images-per-class", "11", "--input-size", "16", "--run", "runs/more"]
    assert run([*SEARCH, "--parent", "runs/own#0", *options]) == 2  # its validation images would be known
    info = read_weights_info(next((folder / "runs/own/models").glob("*.safetensors")))
    other = dataclasses.replace(digits, content="0" * 64, name="other")
    torch.manual_seed(2)
    network = build_network(ARCH, 3)
    save_weights(
        folder / "of-other.safetensors",
        network,
        dataclasses.replace(info, trained_on=(other,), classes=("a", "b", "c")),
    )
    assert run([*SEARCH, "--parent", "of-other.safetensors", "--input-size", "16", "--run", "runs/of-other"]) == 0
    [weights] = (folder / "runs/of-other/models").glob("*.safetensors")
    assert [one.name for one in read_weights_info(weights).trained_on] == ["digits", "other"]
    assert run(["train", "runs/of-other", "--top", "1", "--epochs", "1", "--threads", "1"]) == 0
    [trained] = (folder / "runs/of-other/trained").glob("*/model.safetensors")
    assert [one.name for one in read_weights_info(trained).trained_on] == ["digits", "other"]
