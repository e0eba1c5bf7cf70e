"""One small network of mnas in every format that mnas writes."""

from pathlib import Path

import torch

from mnas.arch import Arch
from mnas.block import Block
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.nn.weights import save_weights
from mnas.tflite.writer import write_tflite

ARCH = Arch(
    blocks=(
        Block(op="sepconv", kernel=3, stride=1, filters=8),
        Block(op="mbconv", expansion=3, kernel=5, stride=2, filters=8, layers=2, se_ratio=0.25),
    ),
    stem_filters=8,
    head_filters=16,
)
CLASSES = ("cat", "dog", "eel", "fox")
SIZE = 16
INFO = ModelMetadata(
    arch=ARCH,
    classes=CLASSES,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    input_size=SIZE,
    accuracy=None,
    crop=0.875,
)


def own_network() -> Network:
    """Return random weights, with batch-norm statistics that affect the outputs."""
    torch.manual_seed(3)
    network = build_network(ARCH, len(CLASSES))
    with torch.no_grad():
        network.train()
        for _ in range(20):
            network(torch.randn(16, 3, SIZE, SIZE))
        network.classifier.weight.mul_(3)
    return network.eval()


def save_own(folder: Path) -> Path:
    """Write `model.safetensors` to `folder`, and return its path."""
    path = folder / "model.safetensors"
    save_weights(path, own_network(), INFO)
    return path


def save_own_litert(folder: Path) -> Path:
    """Write `model.tflite` to `folder`, and return its path."""
    path = folder / "model.tflite"
    path.write_bytes(write_tflite(own_network(), SIZE, labels=CLASSES, mean=INFO.mean, std=INFO.std, crop=INFO.crop))
    return path
