"""Published architectures: exact counts, and equality of outputs with timm's and torchvision's."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from mnas.arch import Arch
from mnas.nn.cost import cost
from mnas.nn.network import build_network
from mnas.space.named import SPACES
from mnas.space.skeleton import MOBILENETV2
from mnas.zoo.architectures import ZOO, named_arch, reference_arch

COUNTS = [
    ("mnasnet-a1", 224, 3_887_038, 311.6),
    ("mnasnet-b1", 224, 4_383_312, 314.4),
    ("mnasnet-small", 224, 2_030_264, 68.3),
    ("mnasnet-a1", 192, 3_887_038, 229.3),
    ("mnasnet-a1", 160, 3_887_038, 159.7),
    ("mnasnet-a1", 128, 3_887_038, 102.8),
    ("mnasnet-a1", 96, 3_887_038, 58.5),
    ("mobilenetv2", 224, 3_504_872, 300.8),
]


@pytest.mark.parametrize(("name", "input_size", "params", "macs_m"), COUNTS)
def test_exact_counts(name, input_size, params, macs_m):
    whole = cost(named_arch(name), input_size)
    assert whole.params == params
    assert round(whole.macs / 1e6, 1) == macs_m


@pytest.mark.parametrize(
    ("width", "params_m", "macs_m"),
    [("1.4", 6.11, 586.3), ("0.75", 2.91, 223.4), ("0.5", 2.08, 103.2), ("0.35", 1.75, 61.7)],
)
def test_counts_of_other_widths(width, params_m, macs_m):
    whole = cost(named_arch(f"mnasnet-a1@{width}"), 224)
    assert round(whole.params / 1e6, 2) == params_m
    assert round(whole.macs / 1e6, 1) == macs_m


def test_squeeze_of_the_expanded_width_would_be_another_network():
    """The wrong reading would give A1 5,139,518 parameters."""
    arch = named_arch("mnasnet-a1")
    more = 0
    for layer in arch.layers:
        if layer.se_filters:
            wrong = layer.mid_filters // 4
            more += (wrong - layer.se_filters) * (2 * layer.mid_filters + 1)
    assert cost(arch, 224).params + more == 5_139_518


PUBLISHED = {
    "mnasnet-a1": "r1_k3_s11_e1_i32_o16_noskip,r2_k3_s22_e6_i16_o24,r3_k5_s22_e3_i24_o40_se0.25,r4_k3_s22_e6_i40_o80,"
    "r2_k3_s11_e6_i80_o112_se0.25,r3_k5_s22_e6_i112_o160_se0.25,r1_k3_s11_e6_i160_o320",
    "mnasnet-b1": "r1_k3_s11_e1_i32_o16_noskip,r3_k3_s22_e3_i16_o24,r3_k5_s22_e3_i24_o40,r3_k5_s22_e6_i40_o80,"
    "r2_k3_s11_e6_i80_o96,r4_k5_s22_e6_i96_o192,r1_k3_s11_e6_i192_o320_noskip",
    "mnasnet-d1": "r1_k3_s11_e9_i32_o24,r3_k3_s22_e9_i24_o36,r5_k3_s22_e9_i36_o48,r4_k5_s22_e9_i48_o96,"
    "r5_k7_s11_e3_i96_o96,r3_k3_s22_e9_i96_o80,r1_k7_s11_e6_i80_o320_noskip",
    "mnasnet-d1-320": "r3_k5_s11_e6_i32_o24,r4_k7_s22_e9_i24_o36,r5_k5_s22_e9_i36_o48,r5_k7_s22_e6_i48_o96,"
    "r5_k3_s11_e9_i96_o144,r5_k5_s22_e6_i144_o160,r1_k7_s11_e9_i160_o320",
    # the first block is published as r1_k3_s11_e1_i16_o8, after a stem of 8 filters (see the comment in the zoo)
    "mnasnet-small": "r1_k3_s11_e1_i8_o8_noskip,r1_k3_s22_e3_i8_o16,r2_k3_s22_e6_i16_o16,r4_k5_s22_e6_i16_o32_se0.25,"
    "r3_k3_s11_e6_i32_o32_se0.25,r3_k5_s22_e6_i32_o88_se0.25,r1_k3_s11_e6_i88_o144",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_strings_read_and_print_unchanged(name):
    assert ",".join(named_arch(name).block_strings) == PUBLISHED[name]
    assert Arch.from_block_strings(PUBLISHED[name]).blocks == named_arch(name).blocks


def called_in_order(model, x):
    """Return the convolutions, norms and classifiers of a model in the order of a forward pass, and its output."""
    found, handles = [], []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            handles.append(module.register_forward_hook(lambda m, i, o: found.append(m)))
    with torch.no_grad():
        output = model.eval()(x)
    for handle in handles:
        handle.remove()
    return found, output


def randomise(model, generator):
    """Set random weights, and batch-norm statistics as after training, such that activations keep their size."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, fan_in**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.2, generator=generator)


def largest_difference(arch, theirs, input_size):
    generator = torch.Generator().manual_seed(0)
    randomise(theirs, generator)
    x = torch.randn(2, 3, input_size, input_size, generator=generator)
    ours = build_network(arch, 1000)
    sources, expected = called_in_order(theirs, x)
    targets, _ = called_in_order(ours, x)
    for source, target in zip(sources, targets, strict=True):
        target.load_state_dict(source.state_dict())
        if isinstance(source, nn.BatchNorm2d):
            assert source.eps == target.eps
    _, output = called_in_order(ours, x)
    assert expected.std() > 0.05  # constant outputs would agree with any other network
    return (output - expected).abs().max().item()


def like_timm(name, **changed):
    return replace(named_arch(name), padding="symmetric", bn_epsilon=1e-5, **changed)


def small_with_identity():
    """timm adds a residual to the first layer of MnasNet-small, which the published code does not."""
    arch = like_timm("mnasnet-small")
    return replace(arch, blocks=(replace(arch.blocks[0], skip="identity"), *arch.blocks[1:]))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite_equals_timms(number):
    theirs, arch = timm.create_model(f"tf_efficientnet_lite{number}"), named_arch(f"efficientnet-lite{number}")
    assert cost(arch, 224).params == sum(p.numel() for p in theirs.parameters())
    assert largest_difference(arch, theirs, 97) <= 1e-5
    assert largest_difference(replace(arch, padding="symmetric"), theirs, 96) > 1e-3


TIMM = [
    ("semnasnet_100", like_timm("mnasnet-a1")),
    ("mnasnet_100", like_timm("mnasnet-b1")),
    ("mnasnet_small", small_with_identity()),
    ("semnasnet_075", like_timm("mnasnet-a1@0.75")),
    ("mnasnet_140", like_timm("mnasnet-b1@1.4")),
    ("mobilenetv2_100", like_timm("mobilenetv2")),
    ("mobilenetv2_140", like_timm("mobilenetv2@1.4")),
]


@pytest.mark.parametrize("input_size", [224, 65])
@pytest.mark.parametrize(("name", "arch"), TIMM[:3], ids=[name for name, _ in TIMM[:3]])
def test_outputs_equal_timms(name, arch, input_size):
    assert largest_difference(arch, timm.create_model(name), input_size) <= 1e-5


@pytest.mark.parametrize(("name", "arch"), TIMM[3:], ids=[name for name, _ in TIMM[3:]])
def test_outputs_equal_timms_at_other_widths(name, arch):
    theirs = timm.create_model(name)
    assert cost(arch, 64).params == sum(p.numel() for p in theirs.parameters())
    assert largest_difference(arch, theirs, 64) <= 1e-5


def test_outputs_equal_timms_with_same_padding():
    arch = replace(named_arch("mnasnet-a1"), bn_epsilon=1e-5)
    assert largest_difference(arch, timm.create_model("semnasnet_100", pad_type="same"), 96) <= 1e-5
    assert largest_difference(arch, timm.create_model("semnasnet_100"), 96) > 1e-3


def test_small_follows_the_published_code_and_not_timm():
    assert largest_difference(like_timm("mnasnet-small"), timm.create_model("mnasnet_small"), 64) > 1e-3


def test_outputs_equal_torchvisions():
    assert largest_difference(like_timm("mobilenetv2"), torchvision.models.mobilenet_v2(), 97) <= 1e-5
    assert largest_difference(like_timm("mnasnet-b1"), torchvision.models.mnasnet1_0(), 64) <= 1e-5


def test_names():
    assert named_arch("mnasnet-a1@0.5/s8") == named_arch("mnasnet-a1").scale_width(0.5).with_output_stride(8)
    assert named_arch("mnasnet-small/s8").output_stride == 8
    assert named_arch("mobilenetv2@1.4").head_filters == 1792
    assert named_arch("mobilenetv2@0.5").head_filters == 1280
    assert named_arch("mnasnet-a1@1.4").head_filters == 1280
    assert named_arch("mnasnet-small").dropout == 0
    for name, entry in ZOO.items():
        assert named_arch(name) == entry.arch
        assert entry.source
        assert entry.arch.output_stride == 32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnasnet-a2", r"must be one of mnasnet-a1, .*, but got 'mnasnet-a2' \(did you mean mnasnet-a1\?\)"),
        ("resnet50", "must be one of mnasnet-a1, .*, but got 'resnet50'$"),
        ("mnasnet-a1@wide", "mnasnet-a1 may be followed by @ and a width multiplier"),
        ("mnasnet-a1/8", "mnasnet-a1 may be followed by @ and a width multiplier"),
        ("mnasnet-a1/s64", "output stride must be a power of 2 up to the network's own 32, but got 64"),
        ("mnasnet-a1@0", "width multiplier must be a number from 0.01 to 100, but got 0.0"),
        ("", "must be one of"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(ValueError, match=message):
        named_arch(name)


def test_the_table_of_named_networks_is_complete_and_computed():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "networks.md").read_text()
    table = page[page.index("## Which published networks") : page.index("## How do the cell networks")]
    rows = re.findall(r"^\| `(\S+)` \| ([\d.]+)M \| ([\d.,]+)M \|", table, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(ZOO)
    for name, params, macs in rows:
        whole = cost(named_arch(name), 224)
        assert (f"{whole.params / 1e6:.2f}", f"{whole.macs / 1e6:,.1f}") == (params, macs)


def test_reference_is_mobilenetv2_on_the_spaces_skeleton():
    assert reference_arch(MOBILENETV2) == named_arch("mobilenetv2")
    assert reference_arch(MOBILENETV2.with_output_stride(8)) == named_arch("mobilenetv2/s8")
    skeleton = MOBILENETV2.scaled(0.5).with_output_stride(4)
    reference = reference_arch(skeleton)
    assert (reference.stem_stride, *(b.stride for b in reference.blocks)) == (skeleton.stem_stride, *skeleton.strides)
    assert tuple(b.filters for b in reference.blocks) == skeleton.filters
    # a member of the paper's space, except for its activation
    assert SPACES["mnasnet"].contains(replace(named_arch("mobilenetv2"), activation="relu"))
