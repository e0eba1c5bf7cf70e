"""Checkpoints of every named network, in the names of every implementation and in the containers people have.

The networks are narrow, and their tensors have the names of the whole ones in timm and torchvision.
"""

import functools

import pytest
import timm
import torch
import torchvision

from mnas.arch import Arch
from mnas.nn.layouts import LAYOUTS
from mnas.nn.network import build_network
from mnas.nn.pretrained import load_pretrained
from mnas.zoo.architectures import ZOO, named_arch
from mnas.zoo.weights import PACKAGES, TIMM, TORCHVISION
from tests.nn.test_checkpoint_files import containers
from tests.nn.test_pretrained import randomise

BLOCK_NETWORKS = [name for name, entry in ZOO.items() if isinstance(entry.arch, Arch)]
LAYOUT_OF = {layout.title: layout for layout in LAYOUTS}
SOURCES = [
    *((name, "mnas") for name in BLOCK_NETWORKS),
    *((name, "timm") for name in BLOCK_NETWORKS if name in TIMM),
    *((name, "torchvision") for name in BLOCK_NETWORKS if name in TORCHVISION),
    *((name, "pytorchcv") for name in ("mnasnet-a1", "mnasnet-b1", "mnasnet-small")),
    *((name, "EfficientNet-PyTorch") for name in (*PACKAGES, "efficientnet-b0")),
]


@functools.cache
def names_in(library: str, name: str) -> set[str]:
    """Names of the tensors of the library's own model, empty where mnas does not have the library."""
    with torch.device("meta"):
        if library == "timm":
            return set(timm.create_model(TIMM[name].name).state_dict())
        if library == "torchvision":
            return set(torchvision.models.get_model(TORCHVISION[name]).state_dict())
    return set()


def renamed_state(name: str, library: str) -> tuple[Arch, dict[str, torch.Tensor]]:
    """Return a narrow network's architecture, and its state dict in the names of the library."""
    arch = named_arch(name).scale_width(0.25)
    theirs = names_in(library, name)
    titles = [title for title in LAYOUT_OF if title.startswith(library)]
    candidates = [LAYOUT_OF[title].modules(arch, theirs) for title in titles]
    for modules in candidates:
        state = {}
        for key, tensor in randomise(build_network(arch, 5)).state_dict().items():
            module, _, leaf = key.rpartition(".")
            linear = modules.get(module) == "classifier.0" and tensor.ndim == 4  # torchvision's hidden layer
            state[f"{modules.get(module, module)}.{leaf}"] = tensor.flatten(1) if linear else tensor
        if not theirs or set(state) == theirs:
            return arch, state
    raise AssertionError(f"no layout of {library} has the names of {name}")


@pytest.mark.parametrize("container", sorted(containers({})))
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: "-".join(source))
@pytest.mark.sample(1)
def test_every_container_of_every_network_loads(source, container, tmp_path):
    name, library = source
    arch, state = renamed_state(name, library)
    torch.save(containers(state)[container], tmp_path / "w.pth")
    network = load_pretrained(str(tmp_path / "w.pth"), arch, None, name=name)
    loaded = [tensor.flatten() for tensor in network.state_dict().values()]
    assert len(loaded) == len(state)
    assert all(torch.equal(tensor, wanted.flatten()) for tensor, wanted in zip(loaded, state.values(), strict=True))


def test_two_networks_under_unusual_prefixes_are_no_guess(tmp_path):
    arch, state = renamed_state("lcnet", "timm")
    both = {f"{prefix}.{key}": value for prefix in ("student", "teacher") for key, value in state.items()}
    torch.save(both, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"the tensors of .* must be named as in mnas, timm, .*, but got student.conv_st"
    ):
        load_pretrained(str(tmp_path / "w.pth"), arch, None, name="lcnet")
