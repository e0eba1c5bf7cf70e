"""Networks to export: one with every kind of layer, and one that has learnt the digits."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mnas.arch import Arch, Padding
from mnas.block import Block
from mnas.export.images import photographs
from mnas.export.ship import make_gate, ship
from mnas.export.target import TOLERANCES, Target
from mnas.export.timing import timed_file
from mnas.formats import ExportName
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.predict.model import load_model

SIZES = {"same": 26, "symmetric": 25}  # 26, 13, 7, 4: strides meet even and odd sizes; 25, 13, 7, 4
CLASSES = ("cat", "dög", "fish", "bird", "cow")


def every_block(padding: Padding) -> Arch:
    """An architecture with every op, kernel, stride and skip; pooled skips cut, pad and keep channels."""
    return Arch(
        blocks=(
            Block(op="conv", kernel=3, stride=2, filters=12, skip="pool", se_ratio=0.5, layers=2),
            Block(op="sepconv", kernel=5, stride=1, filters=8, skip="pool"),
            Block(op="mbconv", kernel=3, stride=2, filters=16, expansion=3, skip="pool", layers=2),
            Block(op="mbconv", kernel=7, stride=1, filters=16, expansion=2, se_ratio=0.25, layers=2),
            Block(op="sepconv", kernel=3, stride=1, filters=12, skip="none"),
        ),
        stem_filters=8,
        head_filters=24,
        padding=padding,
        activation="relu6" if padding == "symmetric" else "relu",
    )


def as_trained(arch: Arch, classes: int, seed: int = 0) -> Network:
    """Set batch norm and biases as after training: nothing is 0 or 1, and no two channels are alike."""
    torch.manual_seed(seed)
    network = build_network(arch, classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.5)
    return network.eval()


def network_of(padding: Padding) -> tuple[Network, ModelMetadata]:
    arch = every_block(padding)
    return as_trained(arch, len(CLASSES)), info_of(arch, CLASSES, SIZES[padding])


def info_of(arch: Arch, classes: tuple[str, ...], size: int) -> ModelMetadata:
    return ModelMetadata(
        arch=arch,
        classes=classes,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        input_size=size,
        accuracy=None,
        crop=0.875,
    )


def inputs(info: ModelMetadata, count: int = 3) -> np.ndarray:
    """Return images (N, S, S, 3) in float32, normalised."""
    return np.random.default_rng(0).standard_normal((count, info.input_size, info.input_size, 3), np.float32)


def outputs(network: Network, x: np.ndarray) -> np.ndarray:
    """Return the outputs of the network for an input in NHWC."""
    with torch.no_grad():
        return network(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


def assert_equal(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Assert that outputs agree within `tolerance` of the largest, which must be large enough for a comparison."""
    largest = np.abs(expected).max()
    assert got.shape == expected.shape
    assert 1e-2 < largest < 1e6
    assert expected.std() > 1e-3 * largest
    assert np.abs(got - expected).max() <= tolerance * largest


def assert_ships(
    network: Network,
    info: ModelMetadata,
    content: bytes,
    name: ExportName,
    folder: Path,
    *,
    files: list[str],
    speed_s: float = 0.01,
) -> None:
    """Assert that a file passes the gate over photographs, is timed against LiteRT, and is complete in `folder`."""
    target = Target(format=name)
    gate = make_gate(network, info, photographs(info.input_size, 24), speed_s=speed_s)
    path, result = ship(content, target, folder / f"m{target.suffix}", gate, TOLERANCES["fp32"])
    assert result.failures == ()
    assert result.comparison is not None
    assert result.comparison.max_difference < 1e-4
    assert timed_file(path).runtime == {"onnx": "onnxruntime"}.get(name, name)
    if speed_s:
        assert result.speed is not None
        assert result.speed.ratio_low <= result.speed.ratio <= result.speed.ratio_high
    assert sorted(file.name for file in folder.iterdir()) == files
    assert load_model(path).info.classes == info.classes


DIGITS = Arch(
    blocks=(
        Block(op="sepconv", kernel=3, stride=1, filters=16),
        Block(op="mbconv", kernel=3, stride=2, filters=24, expansion=3, se_ratio=0.25, skip="pool"),
        Block(op="mbconv", kernel=3, stride=1, filters=24, expansion=3),
    ),
    stem_filters=16,
    stem_stride=1,
    head_filters=64,
    dropout=0.0,
    bn_momentum=0.1,
)


def digits_network() -> tuple[Network, ModelMetadata]:
    """Return a network trained for a few seconds on the digits of `load_dataset("digits", seed=0)` at 8 pixels."""
    from mnas.data.load import load_dataset

    dataset = load_dataset("digits", input_size=8, seed=0)
    torch.manual_seed(0)
    network = build_network(DIGITS, 10).to(memory_format=torch.channels_last).train()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (dataset.mean, dataset.std))
    x = (torch.from_numpy(np.array(dataset.train.images)).permute(0, 3, 1, 2) / 255 - mean) / std
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(np.array(dataset.train.labels))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(5):
        for batch in torch.randperm(len(y)).split(64):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    info = ModelMetadata(
        arch=DIGITS, classes=dataset.classes, mean=dataset.mean, std=dataset.std, input_size=8, accuracy=None
    )
    return network.eval(), info
