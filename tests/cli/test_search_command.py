"""`mnas search` on a small problem: the stored files agree with the printed table."""

import dataclasses
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnas.architecture import architecture_from_json
from mnas.cli import main
from mnas.cli.console import SafeConsole
from mnas.cli.parsing import parse
from mnas.cli.search import SearchCommand, search_and_conclude
from mnas.data.native import native_size
from mnas.nn.weights_info import read_weights_info
from mnas.search.evaluator import CachedImages, ProxyEvaluator
from mnas.search.settings import search_settings
from mnas.study import RunError, front_of, objectives_of, open_run, read_run
from mnas.study.results import recommend, references_of, table_results
from mnas.tflite.metadata import read_metadata
from mnas.tflite.runtime import run_tflite
from tests.data.test_load import make_folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    previous = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    settings = search_settings(
        {
            "data": "digits",
            "run": folder / "run",
            "trials": 4,
            "workers": 2,
            "candidates_per_update": 2,
            "width": 0.25,
            "input_size": "8",
            "output_stride": 8,
            "latency_budget_s": 0.1,
            "epochs": 1,
            "fewest_steps": 1,
        }
    )
    with (folder / "out").open("w") as out:
        search_and_conclude(settings, SafeConsole(file=out, width=140))
    yield settings, (folder / "out").read_text()
    if previous is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = previous


def test_exported_files_have_the_tables_accuracy_labels_and_normalisation(searched):
    settings, printed = searched
    run = read_run(settings.run)
    [dataset] = settings.load_data().values()
    assert [t.state for t in run.trials] == ["complete"] * 4
    [objective] = objectives_of(run.attributes)
    shown = table_results(run, [objective])
    assert "mobilenetv2 is the reference network, measured and trained like the trials" in printed
    assert sorted(p.name for p in (settings.run / "front").iterdir()) == sorted(trial.label for trial in shown)
    images = (np.asarray(dataset.val.images, np.float32) / 255 - dataset.mean) / dataset.std
    for trial in shown:
        folder = settings.run / "front" / trial.label
        model = (folder / "model.tflite").read_bytes()
        metadata = read_metadata(model)
        assert metadata.classes == dataset.classes
        kept = read_weights_info(settings.run / "models" / f"{trial.label}.safetensors")
        assert metadata.trained_on == kept.trained_on == (dataset.training_data,)
        assert metadata.mean == pytest.approx(dataset.mean)
        assert metadata.std == pytest.approx(dataset.std)
        assert architecture_from_json((folder / "arch.json").read_text()) == trial.arch
        outputs = run_tflite(model, images.astype(np.float32))
        assert (outputs.argmax(1) == dataset.val.labels).mean() == pytest.approx(trial.accuracy, abs=0.005)
        assert f"{trial.accuracy:.4f}" in printed
    assert dataset.training_data.content == dataset.content
    assert dataset.training_data.seed == settings.seed
    assert dataset.training_data.max_images_per_class == settings.images.max_images_per_class
    best = recommend(run.trials, references_of(run), objective, len(dataset.val)).best
    how = "the reference network" if best.number < 0 else "with the best target reward on the front"
    assert f"recommended: {best.title}, {how}" in printed
    assert "output stride 8" in printed


def test_a_preset_gives_the_defaults_and_options_win(tmp_path):
    def given(*options):
        return parse(SearchCommand, "search", ["--data", "digits", *options]).settings

    assert given() == search_settings({"data": "digits"})
    plain, paper = given(), given("--preset", "paper")
    assert given("--preset=paper") == paper == search_settings({"data": "digits", "preset": "paper"})
    assert (plain.controller, plain.batch_size, plain.reward, plain.trials) == ("surrogate", 5, "target", 100)
    assert (paper.controller, paper.batch_size, paper.reward, paper.trials) == ("ppo", 20, "soft", 8000)
    assert paper.proxy.epochs == 5
    assert (plain.start_from, paper.start_from, paper.start_names) == ("auto", "none", ())
    assert (plain.parent, paper.parent, given("--preset", "paper", "--parent", "x").parent) == ("auto", "", "x")
    changed = given("--preset", "paper", "--reward", "hard", "--trials", "60", "--epochs", "1")
    assert (changed.controller, changed.reward, changed.trials, changed.proxy.epochs) == ("ppo", "hard", 60, 1)
    # a run is identified by the values of its options, not by the name of a preset
    [dataset] = plain.load_data().values()
    written = given("--controller", "ppo", "--reward", "soft", "--candidates-per-update", "20", "--start-from", "none")
    space = paper.candidate_space()
    assert written.identity(space, dataset) == paper.identity(space, dataset)


def test_the_same_command_again_changes_nothing(searched, tmp_path):
    settings, _ = searched
    before = read_run(settings.run).trials
    shutil.rmtree(settings.run / "front")
    with (tmp_path / "out").open("w") as out:
        search_and_conclude(settings, SafeConsole(file=out, width=140))
    assert read_run(settings.run).trials == before
    assert (settings.run / "front").is_dir()
    assert "all 4 candidates are finished" in (tmp_path / "out").read_text()


def test_a_resumed_search_prints_changes_and_rejects_another_device(searched, tmp_path, monkeypatch):
    settings, _ = searched
    copy = shutil.copytree(settings.run, tmp_path / "copy")
    again = dataclasses.replace(settings, run=copy)
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1" if name == "timm" else installed(name))
    with (tmp_path / "out").open("w") as out:
        search_and_conclude(again, SafeConsole(file=out, width=140))
    assert re.search(
        r"accuracies may not repeat exactly: timm was \S+ and is now 0\.0\.1", (tmp_path / "out").read_text()
    )
    monkeypatch.setattr("mnas.latency.devices.scripted.ScriptUnit.fingerprint", lambda self, setup: {"cores": 4096})
    with pytest.raises(RunError, match=r"copy: .*not the device of the calibration \(.*cores 4096 instead of \d+"):
        search_and_conclude(again, SafeConsole(quiet=True))


def test_a_larger_output_stride_than_the_skeletons_is_rejected(searched, tmp_path):
    settings, _ = searched
    settings = dataclasses.replace(settings, run=tmp_path / "run", output_stride=64, input_size="64")
    with pytest.raises(ValueError, match=r"output stride must be .*, but got 64"):
        search_and_conclude(settings, SafeConsole(quiet=True))


def test_a_nested_difference_is_named(searched):
    settings, _ = searched
    other = dataclasses.replace(settings, proxy=dataclasses.replace(settings.proxy, learning_rate=0.5))
    with pytest.raises(RunError, match=r"proxy\.learning_rate: 0\.064 before, 0\.5 now"):
        search_and_conclude(other, SafeConsole(file=open(os.devnull, "w")))  # noqa: SIM115


def test_workers_notice_that_images_have_changed(searched, tmp_path):
    settings, _ = searched
    candidate = front_of(read_run(settings.run).trials)[0].candidate
    [dataset] = settings.load_data().values()
    images = dataclasses.replace(CachedImages.of(dataset, settings.images, settings.seed), fingerprint="another")
    with pytest.raises(RunError, match="changed during the search; start a new search"):
        ProxyEvaluator(settings.proxy, {8: images})(candidate, "training", 0, tmp_path / "weights")


def test_workers_open_the_cached_images_without_reading_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_folder(tmp_path / "pets", {"": 10})
    settings = search_settings({"data": str(root), "input_size": "8", "verify_cache": True})
    [start] = settings.load_data().values()
    (root / "cat" / "0.png").unlink()  # a worker that starts later still gets the cached image
    monkeypatch.setattr("mnas.data.source.Source.read_content", None)
    worker = CachedImages.of(start, settings.images, settings.seed).open()
    assert worker.fingerprint == start.fingerprint
    assert np.array_equal(worker.train.images, start.train.images)


def test_verifying_the_cache_is_not_part_of_a_runs_identity(searched):
    settings, _ = searched
    [dataset] = settings.load_data().values()
    space = settings.candidate_space()
    verifying = dataclasses.replace(settings, images=dataclasses.replace(settings.images, verify_cache=True))
    assert verifying.identity(space, dataset) == settings.identity(space, dataset)
    assert "verify_cache" not in settings.identity(space, dataset)
    assert verifying.load_data()[8].fingerprint == dataset.fingerprint


def test_a_read_only_run_can_be_read(searched):
    """The file system is mounted read-only, in a mount namespace of this test."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (Linux)")
    settings, _ = searched
    code = f"""
from pathlib import Path
from mnas.study import read_run
path = Path({str(settings.run)!r})
try:
    (path / "new").touch()
except OSError as error:
    run = read_run(path)
    print(error.strerror, len(run.trials), run.state.status)
"""
    mounted = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77; exec "$1" -c "$2"'
    arguments = ["unshare", "--mount", "sh", "-c", mounted, str(settings.run), sys.executable, code]
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("needs the right to mount (root)")
    assert result.stdout == "Read-only file system 4 finished\n", result.stderr


def test_hours_include_the_time_of_interrupted_starts(tmp_path):
    from test_search import run_search
    from toy import toy_problem

    def interrupt(arch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path / "run", toy_problem(measure=interrupt, references={}))
    with open_run(tmp_path / "run", {"seed": 1}) as run:
        assert run.attributes["elapsed_s"] > 0


def test_native_size_of_a_folder_is_its_median_image(tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i, side in enumerate((40, 48, 300)):
            Image.new("RGB", (side, side + 10)).save(tmp_path / name / f"{i}.png")
    assert native_size(str(tmp_path)) == 48
    assert native_size("digits") == 16


@pytest.mark.parametrize("name", ["os:getcwd", "optuna.samplers:TPESamplr", "optuna.samplers:PartialFixedSampler"])
def test_an_invalid_controller_leaves_no_run(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    command = ["search", "--data", "digits", "--width", "0.25", "--input-size", "8", "--output-stride", "8"]
    assert main.run([*command, "--controller", name, "--run", "run"]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_predictor_is_reported_before_a_run_is_created(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.run(["search", "--data", "digits", "--latency", "predicted", "--run", "run"]) == 2
    said = capsys.readouterr().err.strip()
    name = str(Path("predictors") / "host-mnasnet-16.json")
    assert said == f"mnas: predictor file {name!r} does not exist; mnas latency fit writes it"
    assert not (tmp_path / "run").exists()
