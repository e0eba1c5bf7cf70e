"""Names of networks."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from mnas.arch import Arch
from mnas.metadata import ModelMetadata
from mnas.names import resolve_arch, resolve_weights, searched_as
from mnas.nn.network import build_network
from mnas.nn.weights import save_weights
from mnas.space.named import SPACES
from mnas.space.space import Space
from mnas.study import Draft, TrialRecord, open_run
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import ZOO, named_arch


def test_zoo_names():
    for name in ZOO:
        assert resolve_arch(name) == named_arch(name)
    assert resolve_arch("mnasnet-a1@0.5/s8") == named_arch("mnasnet-a1@0.5/s8")


def test_block_strings():
    arch = named_arch("mnasnet-b1")
    assert resolve_arch(",".join(arch.block_strings)) == arch
    assert resolve_arch("r1_k3_s11_e1_o16").blocks[0].filters == 16
    with pytest.raises(ValueError, match="kernel must be one of 3, 5, 7 for op sepconv, but got 9"):
        resolve_arch("r1_k9_s11_e1_o16")


@pytest.mark.parametrize("file", ["arch.json", "no-ending"])
def test_files(tmp_path, file):
    path = tmp_path / file
    path.write_text(named_arch("mnasnet-d1").to_json())
    assert resolve_arch(str(path)) == named_arch("mnasnet-d1")
    path.write_text('{"blocks": []}')
    with pytest.raises(ValueError, match=f"architecture file '{path}': an architecture must have 1 to 100 blocks"):
        resolve_arch(str(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(
        ValueError, match=r"architecture file '.*/none\.json' cannot be read: No such file or directory"
    ):
        resolve_arch(str(tmp_path / "none.json"))


def draft(space: Space, indices: Sequence[int]) -> Draft:
    """A drawn trial."""
    arch = space.decode(indices)
    record = TrialRecord(
        number=0, state="running", arch=arch, fingerprint=arch.fingerprint, params=1, macs=1, size_bytes=1, seed=0,
        input_size=32, choices=space.params(indices),
    )  # fmt: skip
    return Draft(record=record, distributions=space.distributions)


def test_trials_of_a_run(tmp_path: Path):
    space, rng, path = SPACES["mnasnet"], random.Random(0), tmp_path / "run"
    archs = []
    with open_run(path, {}) as run:
        for _ in range(3):
            indices = [rng.randrange(len(d.choices)) for d in space.decisions]
            archs.append(space.decode(indices))
            run.add(draft(space, indices))
    assert [resolve_arch(f"{path}#{number}") for number in range(3)] == archs
    with pytest.raises(ValueError, match=r"has trials 0 to 2, but got 3"):
        resolve_arch(f"{path}#3")
    with pytest.raises(ValueError, match=r"is a run; name one of its trials, such as .*#0"):
        resolve_arch(str(path))
    with pytest.raises(ValueError, match="is not a run"):
        resolve_arch(f"{tmp_path / 'other'}#0")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnasnet-a11",
            r"^'mnasnet-a11' is not a network \(did you mean mnasnet-a1\?\); a network must be one of mnasnet-a1,",
        ),
        ("MobileNetV2", r"^'MobileNetV2' is not a network \(did you mean mobilenetv2\?\); a network must be one of"),
        ("mnasnet-a1@", "mnasnet-a1 may be followed by @ and a width multiplier"),
        ("resnet", r"^'resnet' is not a network; .*a trial \(runs/NAME#17\), a \.json file or an architecture string"),
        ("", "a network must be one of"),
        ("a\0b", "a network must be one of"),
        ("x" * 5000, "a network must be one of"),
        ("line\nbreak", r"^'line\\nbreak' is not a network; "),
    ],
)
def test_unknown_names_get_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve_arch(name)
    assert "\n" not in str(error.value)


def test_block_strings_as_json_and_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(Arch.from_block_strings("r1_k3_s22_e1_o16_pool_conv").to_json())
    assert resolve_arch(str(path)).block_strings == ("r1_k3_s22_e1_i32_o16_pool_conv",)


def test_a_trial_has_its_input_size_and_classes(tmp_path):
    with open_run(tmp_path / "run", {"input_size": 12}) as run:
        run.set("provenance", {"data": {"classes": ["cat", "dog"]}})
    assert searched_as(f"{tmp_path}/run#3") == (12, 2)
    assert searched_as("mnasnet-a1") == (224, 1000)


def weights_file(path: Path, arch: Arch) -> Path:
    """A model of mnas with two classes."""
    info = ModelMetadata(
        arch=arch, classes=("cat", "dog"), mean=(0.5,) * 3, std=(0.5,) * 3, input_size=8, accuracy=None
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, build_network(arch, 2), info)
    return path


def test_models_name_their_architecture(tmp_path):
    arch = Arch.from_block_strings("r1_k3_s22_e1_i8_o8,r1_k3_s11_e3_i8_o8")
    path = weights_file(tmp_path / "training" / "model.safetensors", arch)
    (tmp_path / "model.tflite").write_bytes(graph_bytes(arch, 8, 2))
    assert resolve_arch(str(path)) == arch
    assert resolve_arch(str(path.parent)) == arch
    assert resolve_arch(f"{tmp_path}/model.tflite") == arch
    (tmp_path / "other.tflite").write_bytes(b"text, not a model")
    with pytest.raises(ValueError, match=r"model file '.*/other\.tflite': a LiteRT file must have the identifier TFL3"):
        resolve_arch(f"{tmp_path}/other.tflite")
    with pytest.raises(ValueError, match=r"'.*/none\.tflite' cannot be read: No such file"):
        resolve_arch(f"{tmp_path}/none.tflite")


def test_weights_of_files_and_trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mnasnet-a1" / "model.safetensors"  # as the zoo's name
    path.parent.mkdir()
    with pytest.raises(
        ValueError, match=r"must contain model\.safetensors, but got 'mnasnet-a1'.* resume .* with --resume"
    ):
        resolve_weights("mnasnet-a1")
    path.write_bytes(b"")
    assert resolve_weights("mnasnet-a1") == Path("mnasnet-a1/model.safetensors")
    assert resolve_weights("mnasnet-a1/model.safetensors") == Path("mnasnet-a1/model.safetensors")
    (tmp_path / "a#3").touch()
    assert resolve_weights("a#3") == Path("a#3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnasnet-b1@0.5",
            r"must have trained weights, but got the network 'mnasnet-b1@0\.5'; train it with `mnas train mnas",
        ),
        ("r1_k3_s11_e1_o16", "must have trained weights, but got the network"),
        ("none.safetensors", r"^'none\.safetensors' does not exist; a model must be a file, "),
        ("a\0b", "does not exist; a model must be a file, "),
        ("x" * 5000, "does not exist; a model must be a file, "),
        ("none#3", r"none is not a run: it contains no study\.db"),
    ],
)
def test_missing_weights(name, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve_weights(name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_not_a_model(tmp_path):
    os.mkfifo(tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"^'.*model\.tflite' is not a regular file; a model must be a file, "):
        resolve_weights(str(tmp_path / "model.tflite"))


def test_weights_of_a_trial_are_the_fully_trained_ones_if_they_exist(tmp_path):
    space, path = SPACES["mnasnet"], tmp_path / "run"
    with open_run(path, {}) as run:
        for first in (0, 1, 0):  # the third trial has the network of the first
            run.add(draft(space, [first] + [0] * (len(space.decisions) - 1)))
    with pytest.raises(ValueError, match=rf"{path} stores no weights of trial 0 .*`mnas train {path} --top 15`"):
        resolve_weights(f"{path}#0")
    searched = path / "models" / "0.safetensors"
    searched.touch()
    assert resolve_weights(f"{path}#0") == searched
    assert resolve_weights(f"{path}#2") == searched
    trained = path / "trained" / "0" / "model.safetensors"
    trained.parent.mkdir(parents=True)
    trained.touch()
    assert resolve_weights(f"{path}#2") == searched  # not finished
    trained.with_name("result.json").touch()
    assert resolve_weights(f"{path}#0") == resolve_weights(f"{path}#2") == trained
    for number in ("1", "3"):
        with pytest.raises(ValueError, match=f"trial 1|has trials 0 to 2, but got {number}"):
            resolve_weights(f"{path}#{number}")
    with pytest.raises(ValueError, match=r"is a run; name one of its trials, such as .*#0"):
        resolve_weights(str(path))
