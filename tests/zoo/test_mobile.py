"""Networks of other authors: functions, parameters and multiply-accumulates of timm's models, and width multipliers."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from mnas.nn.cost import by_layer, cost
from mnas.nn.pretrained import load_pretrained
from mnas.report.diagram import arch_svg
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import ZOO, named_arch
from mnas.zoo.mobile import MOBILE_NETWORKS
from mnas.zoo.weights import TIMM, TimmModel
from tests.nn.test_pretrained import outputs, randomise, saved

NAMES = ("mobilenetv2", *(name for name in TIMM if not name.startswith(("mnasnet", "mobilenetv2"))))
PUBLISHED = [name for name in NAMES if "@" not in name]


def macs_by_hooks(model: nn.Module, size: int) -> int:
    """Return the multiply-accumulates of all convolutions and linear layers, counted while the model runs."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pixels = output.shape[2] * output.shape[3] if isinstance(module, nn.Conv2d) else 1
        counts.append(module.weight.numel() * pixels)

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return sum(counts)


def timm_model(model: TimmModel) -> nn.Module:
    """Return timm's model with the epsilon of its published weights, which its constructor sets only with these."""
    return timm.create_model(model.name, bn_eps=model.bn_epsilon)


def largest_difference(name: str, theirs: nn.Module, size: int, folder: Path) -> float:
    """Return the difference from the network with the same weights, relative to the largest output of `theirs`."""
    source = saved(randomise(theirs), folder / "w.pth")
    network = load_pretrained(source, named_arch(name), None, name=name)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in theirs.parameters())
    expected = outputs(theirs, size)
    assert expected.std() > 0.05  # constant outputs would agree with any other network
    return float((outputs(network, size) - expected).abs().max() / expected.abs().max())


def test_the_networks_are_those_of_the_issue():
    assert len(PUBLISHED) == 13
    assert set(MOBILE_NETWORKS) < set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_function_and_costs_are_those_of_timms_model(name, tmp_path):
    theirs = timm_model(TIMM[name])
    size = 224 if name in PUBLISHED else 65
    assert largest_difference(name, theirs, size, tmp_path) <= 1e-5
    whole = cost(named_arch(name), size)
    assert whole.params == sum(p.numel() for p in theirs.parameters())
    assert whole.macs == macs_by_hooks(theirs, size) == sum(row.macs for row in by_layer(named_arch(name), whole))


@pytest.mark.parametrize("name", MOBILE_NETWORKS)
def test_published_forms(name):
    arch = named_arch(name)
    assert type(arch).from_dict(arch.to_dict()) == arch
    assert type(arch).from_block_strings(arch.block_strings).blocks == arch.blocks
    assert arch.canonical().fingerprint == arch.fingerprint
    assert arch_svg(arch, 224).startswith("<svg")
    assert "arXiv" in ZOO[name].source


def test_padding_and_batch_norm_are_those_of_the_authors_code():
    numerics = {name: (a.padding, a.bn_epsilon, a.bn_momentum) for name, (a, _) in MOBILE_NETWORKS.items()}
    torch_like = {name for name, values in numerics.items() if values == ("symmetric", 1e-5, 0.1)}
    assert torch_like == {"lcnet", "tinynet-a", "fbnet-c"}
    assert {numerics[name] for name in set(numerics) - torch_like} == {("same", 1e-3, 0.01)}


def test_heads_at_other_widths():
    """Hidden layers after the pool keep their width; EfficientNet's head grows with a multiplier above 1."""
    assert named_arch("mobilenetv3-small@0.5").head_filters == named_arch("mobilenetv3-small@2").head_filters == 1024
    assert named_arch("efficientnet-b0@0.5").head_filters == 1280
    assert named_arch("efficientnet-b0@1.1").head_filters == 1408
    assert named_arch("mobilenetv1@2").head_filters == 0


def test_a_file_names_the_first_runtime_that_reads_it():
    for name, version in (("mobilenetv3-small", b"1.15.0"), ("efficientnet-b0", b"1.14.0")):
        assert version.ljust(16, b"\0") in graph_bytes(named_arch(f"{name}@0.25"), 32, 2)
