"""The network that a training from weights starts with."""

from pathlib import Path

import pytest
import torch
from train_toy import ARCH, toy_batches

from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.nn.weights import save_weights
from mnas.train.initial import WeightsSource, initial_network


def saved(path: Path, classes: str) -> Network:
    torch.manual_seed(3)
    network = build_network(ARCH, len(classes))
    facts = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_weights(path, network, ModelMetadata(arch=ARCH, input_size=8, classes=tuple(classes), **facts))
    return network


@pytest.mark.parametrize("classes", ["xyz", "wxyz"])
def test_a_new_classifier_begins_at_zero(tmp_path: Path, classes: str) -> None:
    """Features are those of the weights, and the first outputs are equal for all classes."""
    given, batches = saved(tmp_path / "w.safetensors", classes), toy_batches()
    source = WeightsSource(name="toy", arch=ARCH, weights=str(tmp_path / "w.safetensors"))
    network = initial_network(source, batches, seed=0)
    assert batches.mean == pytest.approx((0.1, 0.2, 0.3))
    assert not network.classifier.weight.any()
    assert not network.classifier.bias.any()
    assert network.classifier.out_features == 3
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network.features(x), given.eval().features(x))


def test_a_classifier_of_the_same_classes_stays(tmp_path: Path) -> None:
    given = saved(tmp_path / "w.safetensors", "abc")
    source = WeightsSource(name="toy", arch=ARCH, weights=str(tmp_path / "w.safetensors"))
    network = initial_network(source, toy_batches(), seed=0)
    assert torch.equal(network.classifier.weight, given.classifier.weight)
