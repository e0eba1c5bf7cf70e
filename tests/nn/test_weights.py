"""A weights file is sufficient for prediction, and any other file is an error."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from mnas.arch import Arch
from mnas.block import Block
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.nn.weights import load_weights, save_weights
from mnas.nn.weights_info import read_weights_info

ARCH = Arch(blocks=(Block(op="sepconv", kernel=3, stride=1, filters=8),), stem_filters=8, head_filters=16)
INFO = ModelMetadata(
    arch=ARCH, classes=("cat", "dög"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), input_size=16, accuracy=0.9
)


def trained() -> Network:
    torch.manual_seed(0)
    network = build_network(ARCH, 2).to(memory_format=torch.channels_last)
    network(torch.randn(4, 3, 16, 16))  # statistics other than those of a fresh network
    return network.eval()


def test_round_trip(tmp_path: Path) -> None:
    network = trained()
    save_weights(tmp_path / "w.safetensors", network, INFO)
    assert read_weights_info(tmp_path / "w.safetensors") == INFO
    x = torch.randn(2, 3, 16, 16)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert torch.allclose(loaded(x), network(x), atol=1e-6)


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, trained(), INFO)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_weights_file_has_its_line(tmp_path: Path) -> None:
    save_weights(tmp_path / "whole", trained(), INFO)
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:500])
    (tmp_path / "text").write_text("hello")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for name in ("cut", "text", "foreign", "missing"):
        with pytest.raises(ValueError, match=r"weights must be a [.]safetensors file written by mnas"):
            load_weights(tmp_path / name)
    with pytest.raises(ValueError, match="must have 3 classes, but got 2"):
        load_weights(tmp_path / "whole", 3)


def test_a_folder_that_is_not_there_raises_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        save_weights(tmp_path / "nowhere" / "w", trained(), INFO)
