"""Networks equal those of earlier versions: runs, caches, checkpoints and latency predictors refer to what they were.

`recorded_networks.json` has a digest for each group of networks and each form that mnas gives them. To record a new
group, or a wanted change, run `python -m tests.test_recorded_networks`, which rewrites the file.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.latency.prediction.parts import parts_of_arch
from mnas.nn.cost import by_layer, cost
from mnas.nn.layouts import LAYOUTS
from mnas.nn.network import build_network
from mnas.nn.toco import toco_macs
from mnas.report.diagram import arch_svg
from mnas.space.named import SPACES
from mnas.tflite.writer import graph_bytes, write_tflite
from mnas.zoo.architectures import ZOO

RECORD = Path(__file__).with_name("recorded_networks.json")
MEMBERS = 40
BRIEF = 6
"""Number of members of a space that `make test` compares; all of them are slow."""
CLASSES = 7


def members(space: str) -> list[Architecture]:
    rng, space_ = random.Random(17), SPACES[space]
    return [space_.decode([rng.randrange(len(d.choices)) for d in space_.decisions]) for _ in range(MEMBERS)]


GROUPS: dict[str, Callable[[], list[Architecture]]] = {
    **{space: lambda space=space: members(space) for space in SPACES},
    **{f"{space} in brief": lambda space=space: members(space)[:BRIEF] for space in SPACES},
    **{name: lambda arch=entry.arch: [arch] for name, entry in ZOO.items()},
}


def narrow(arch: Architecture) -> Architecture:
    """The network at a quarter of the width, which makes files small; about every other one has symmetric padding."""
    small = arch.scale_width(0.25)
    if isinstance(small, Arch) and int(arch.fingerprint[0], 16) < 8:
        return dataclasses.replace(small, padding="symmetric")
    return small


def text(arch: Architecture) -> str:
    return "\n".join([arch.fingerprint, arch.canonical().fingerprint, arch.to_json(), *arch.lines])


def state(arch: Architecture) -> str:
    """Names and shapes of the state dict, whose order is that of optimizers' states and of initial weights."""
    with torch.device("meta"):
        network = build_network(arch, CLASSES)
    modules = [f"{name} {type(module).__name__}" for name, module in network.named_modules()]
    return repr([(key, tuple(value.shape)) for key, value in network.state_dict().items()]) + repr(modules)


def costs(arch: Architecture) -> str:
    whole = cost(arch, 224, CLASSES)
    toco = toco_macs(arch, 224) if isinstance(arch, Arch) and all(b.skip != "pool" for b in arch.blocks) else None
    return repr((whole.rows, by_layer(arch, whole), whole.params, whole.macs, toco))


def prediction(arch: Architecture) -> str:
    def rounded(values: Iterable[object]) -> list[object]:
        return [round(value, 9) if isinstance(value, float) else value for value in values]

    parts = parts_of_arch(arch, 160, CLASSES)
    return repr([(p.kind, list(p.amounts), rounded(p.amounts.values()), rounded(p.place)) for p in parts])


def layouts(arch: Architecture) -> str:
    """Names in the layouts that the first record has; tests of pretrained weights cover later ones."""
    if not isinstance(arch, Arch):
        return ""
    titles = ("mnas", "timm", "torchvision's MNASNet", "torchvision's MobileNetV2", "pytorchcv")
    recorded = {layout.title: layout for layout in LAYOUTS}
    return repr([list(recorded[title].modules(arch, ()).items()) for title in titles])


def drawing(arch: Architecture) -> str:
    return arch_svg(arch, 224) if isinstance(arch, Arch) else ""


def random_litert(arch: Architecture) -> bytes:
    return graph_bytes(narrow(arch), 64, CLASSES)


def trained_litert(arch: Architecture) -> bytes:
    """The file of a network whose weights come from NumPy, which draws the same numbers everywhere."""
    network = build_network(narrow(arch), CLASSES).eval()
    rng = np.random.default_rng(17)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            values = rng.uniform(0.5, 1.5, tensor.shape) if key.endswith("var") else rng.normal(0, 0.3, tensor.shape)
            tensor.copy_(torch.from_numpy(values))
    return write_tflite(network, 65)


FORMS: dict[str, tuple[Callable[[Architecture], str | bytes], int]] = {
    "text": (text, MEMBERS),
    "state": (state, MEMBERS),
    "costs": (costs, MEMBERS),
    "prediction": (prediction, MEMBERS),
    "layouts": (layouts, MEMBERS),
    "drawing": (drawing, MEMBERS),
    "random LiteRT file": (random_litert, MEMBERS),
    "trained LiteRT file": (trained_litert, 4),
}
"""Form -> function that gives it, and the largest number of a group's networks that the digest covers."""


def digests(group: str) -> dict[str, str]:
    networks = GROUPS[group]()
    found = {}
    for form, (give, most) in FORMS.items():
        digest = hashlib.sha256()
        for arch in networks[:most]:
            given = give(arch)
            digest.update(given if isinstance(given, bytes) else given.encode())
        found[form] = digest.hexdigest()[:16]
    return found


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=[pytest.mark.slow] * (group in SPACES)) for group in GROUPS]
)
def test_networks_are_those_of_earlier_versions(group: str) -> None:
    assert digests(group) == json.loads(RECORD.read_text())[group]


if __name__ == "__main__":
    RECORD.write_text(json.dumps({group: digests(group) for group in GROUPS}, indent=1) + "\n")
