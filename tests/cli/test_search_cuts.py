"""`mnas search --parent` on real images and this machine: networks cut from a fine-tuned parent."""

import contextlib
import io
import json
import re

import pytest
import torch

from mnas.arch import Arch
from mnas.cli.main import run
from mnas.metadata import ModelMetadata
from mnas.nn.inherit.cuts import require_cut
from mnas.nn.network import build_network
from mnas.nn.weights import load_weights, save_weights
from mnas.nn.weights_info import read_weights_info
from mnas.study import read_run
from mnas.zoo.architectures import ZOO

ARCH = Arch.from_block_strings("r1_k3_s22_e1_i8_o8,r2_k3_s22_e3_i8_o16")
SEARCH = (
    *("search", "--data", "digits", "--width", "0.25", "--output-stride", "8", "--epochs", "1", "--workers", "1"),
    *("--max-images-per-class", "12", "--candidates-per-update", "2", "--latency-budget-s", "0.05"),
    *("--latency-limit", "1000", "--input-size", "24,16", "--parent", "parent.safetensors"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the weights of a parent for other classes, and a search that cuts networks from it."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cuts")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    torch.manual_seed(0)
    info = ModelMetadata(
        arch=ARCH, classes=("a", "b", "c"), mean=(0.3,) * 3, std=(0.25,) * 3, input_size=32, accuracy=0.5
    )
    save_weights(folder / "parent.safetensors", build_network(ARCH, 3), info)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*SEARCH, "--trials", "4", "--run", "runs/p"]) == 0
    (folder / "out.txt").write_text(out.getvalue())
    yield folder
    patch.undo()


def test_a_parent_is_fine_tuned_and_cuts_of_it_are_scored_and_distilled(folder):
    snapshot = read_run(folder / "runs/p")
    assert [t.state for t in snapshot.trials] == ["complete"] * 4
    assert "at 24 px" in snapshot.trials[0].name
    for t in snapshot.trials:
        require_cut(ARCH, t.arch)
        assert (t.features.fidelity, t.features.epochs) == ("inherited", 0)
        assert (t.evaluation.fidelity, t.evaluation.epochs) == ("distilled", 1)
    assert any(t.arch != ARCH for t in snapshot.trials)
    [tuned] = (folder / "runs/p/parents").glob("*.safetensors")
    info = read_weights_info(tuned)
    assert (info.arch, info.input_size, len(info.classes)) == (ARCH, 24, 10)
    [cached] = (folder / "cache/mnas/parents").glob("*/model.safetensors")
    assert cached.read_bytes() == tuned.read_bytes()
    said = (folder / "out.txt").read_text()
    epochs = re.search(r"fine-tuning the parent \S+ at 24 px, (\d+) epochs", said)
    assert re.findall(rf"\[(\d+)/{epochs[1]}\] val accuracy", said) == [str(n) for n in range(1, int(epochs[1]) + 1)]
    assert snapshot.attributes["elapsed_s"] > json.loads((cached.parent / "result.json").read_text())["seconds"]


def test_a_search_that_goes_on_or_finds_the_parent_in_the_cache_has_the_same_trials(folder, capsys):
    [cached] = (folder / "cache/mnas/parents").glob("*/model.safetensors")
    written = cached.stat().st_mtime_ns
    assert run([*SEARCH, "--trials", "6", "--run", "runs/whole"]) == 0
    assert run([*SEARCH, "--trials", "6", "--run", "runs/p"]) == 0
    assert cached.stat().st_mtime_ns == written
    one, other = (read_run(folder / name).trials for name in ("runs/p", "runs/whole"))
    assert len(one) == 6
    same = [
        (a.choices, a.evaluation.accuracies) == (b.choices, b.evaluation.accuracies)
        for a, b in zip(one, other, strict=True)
    ]
    assert same[:4] == [True] * 4  # later ones depend on measured latencies


def test_the_best_are_cut_again_and_learn_from_the_parent_in_full(folder, capsys):
    assert run(["train", "runs/p", "--top", "1", "--epochs", "1", "--threads", "1"]) == 0
    [trained] = (folder / "runs/p/trained").glob("*/model.safetensors")
    best = read_run(folder / "runs/p").trials[int(trained.parent.name)]
    assert load_weights(trained).arch == best.arch
    identity = json.loads((trained.parent / "config.json").read_text())["identity"]
    assert identity["initial weights"] != "fresh"
    assert (identity["distillation_weight"], identity["temperature"]) == (0.9, 4.0)


def test_a_single_trial_is_cut_and_taught_by_the_command_that_mnas_names(folder, capsys):
    cut = next(t for t in read_run(folder / "runs/p").trials if t.arch != ARCH)
    short = ["--data", "digits", "--out", "single", "--epochs", "1", "--threads", "1", "--max-images-per-class", "12"]
    capsys.readouterr()
    assert run(["train", f"runs/p#{cut.number}", *short]) == 2
    command = capsys.readouterr().err.split("`")[1]
    [tuned] = (folder / "runs/p/parents").glob("*.safetensors")
    name = tuned.relative_to(folder)
    assert command == f"mnas train runs/p#{cut.number} --weights {name} --teacher {name}"
    assert run([*command.split()[1:], *short]) == 0
    assert f"runs/p#{cut.number} is cut from the network in {name}, with " in capsys.readouterr().out
    [trained] = (folder / "single").glob("*/model.safetensors")
    assert load_weights(trained).arch == cut.arch
    identity = json.loads((trained.parent / "config.json").read_text())["identity"]
    assert identity["initial weights"] != "fresh"
    assert identity["distillation_weight"] == 0.9


def test_a_narrower_network_is_cut_from_a_trained_one(folder, capsys):
    [tuned] = (folder / "runs/p/parents").glob("*.safetensors")
    (folder / "whole.json").write_text(ARCH.to_json())
    short = ["--data", "digits", "--epochs", "1", "--threads", "1", "--max-images-per-class", "12"]
    options = [*short, "--weights", str(tuned), "--input-size", "16"]
    assert run(["train", "whole.json", "--width-multiplier", "0.5", "--out", "narrow", *options]) == 0
    [trained] = (folder / "narrow").glob("*/model.safetensors")
    assert load_weights(trained).arch.blocks[-1].filters == 8
    (folder / "other.json").write_text(Arch.from_block_strings("r1_k3_s22_e1_i8_o8,r2_k3_s22_e3_i8_o24").to_json())
    capsys.readouterr()
    assert run(["train", "other.json", "--out", "other", *options]) == 2
    assert "must contain weights of other.json, but got those of another architecture" in capsys.readouterr().err


def test_a_run_that_took_its_parents_whole_goes_on_so(folder, capsys):
    command = [*SEARCH, "--run", "runs/w"]
    assert run([*command, "--whole", "--trials", "1"]) == 0
    assert run([*command, "--trials", "2"]) == 0
    assert [t.arch for t in read_run(folder / "runs/w").trials] == [ARCH] * 2
    assert not (folder / "runs/w/parents").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-latency-ms", "0.0001"], "--target-latency-ms must be"),
        (
            ["--whole", "--from-scratch", "--parent", ""],
            "--whole takes the networks of --parent whole, but --parent is",
        ),
        (["--whole", "--parent", "auto"], "--whole takes the networks of --parent whole, but --parent is missing"),
        (["--whole", "--parent", ""], "--whole takes the networks of --parent whole, but --parent is missing"),
    ],
)
def test_bad_input(folder, options, message, capsys):
    assert run([*SEARCH, "--run", "runs/bad", "--trials", "2", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "runs/bad").exists()


def test_the_cuts_of_a_network_are_printed(capsys):
    assert run(["space", "--parent", "efficientnet-lite0"]) == 0
    out = capsys.readouterr().out
    assert "34 decisions, at most 1.43e+14 different networks" in out
    assert run(["space", "--parent", next(name for name in ZOO if not isinstance(ZOO[name].arch, Arch))]) == 2
    assert "must be a network of blocks, as cells cannot be cut" in capsys.readouterr().err
