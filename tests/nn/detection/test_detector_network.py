"""Detectors as torch networks: equal to torchvision's SSDLite, on backbones of every op."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from mnas.arch import Arch
from mnas.detector import DefaultBoxes, Detector, paper_boxes
from mnas.nn.detection.decoding import corner_boxes, detections
from mnas.nn.detection.network import DetectorNetwork, build_detector, load_backbone
from mnas.nn.detection.parts import backbone_visits, detector_visits, map_channels, taps
from mnas.nn.fast import speed_up
from mnas.nn.layouts import layout_of
from mnas.nn.network import build_network
from mnas.zoo.architectures import named_arch

FINE = DefaultBoxes(shapes=(((0.05, 0.1),), *paper_boxes().shapes))


def arch_of(name: str) -> Arch:
    arch = named_arch(name)
    assert isinstance(arch, Arch)
    return arch


def tiny(strings: str, **more: Any) -> Detector:
    """A detector of few channels; `strings` are blocks whose strides multiply to 16."""
    arch = replace(Arch.from_block_strings(strings), head_filters=24)
    fields = {"input_size": 64, "extra_filters": (8, 6, 6, 4), "boxes": paper_boxes(), **more}
    return Detector(arch=arch, **fields)


TINY = "r1_k3_s22_e1_i8_o8,r1_k3_s22_e2_o8,r2_k3_s22_e3_o12,r2_k3_s22_e4_o16_se0.25"


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and weights that no one could mix up, and the network its evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                *((module.weight.data, 0.6, 1.6), (module.bias.data, -0.5, 0.5)),
                *((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0)),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network.eval()


def reduced_mobilenetv3() -> Arch:
    """MobileNetV3-Large with half the channels from output stride 32 on, as torchvision's SSDLite has it."""
    arch = arch_of("mobilenetv3-large")
    blocks = (*arch.blocks[:-2], *(replace(block, filters=block.filters // 2) for block in arch.blocks[-2:]))
    return replace(arch, blocks=blocks, padding="symmetric", bn_epsilon=1e-3, bn_momentum=0.03)


def our_tensors(theirs: dict[str, Tensor], network: DetectorNetwork) -> dict[str, Tensor]:
    """The tensors of torchvision's SSDLite by our names: its backbone's first part ends within layer 13."""
    plain = {}
    for key, tensor in theirs.items():
        key = re.sub(r"^backbone\.features\.0\.13\.", "features.13.block.0.", key)
        key = re.sub(r"^backbone\.features\.0\.", "features.", key)
        key = re.sub(r"^backbone\.features\.1\.0\.", "features.13.block.", key)
        key = re.sub(r"^backbone\.features\.1\.(\d)", lambda m: f"features.{13 + int(m[1])}", key)
        plain[key] = tensor
    layout = layout_of(plain)
    assert layout is not None
    names = {f"backbone.{ours}": other for ours, other in layout.modules(network.detector.arch, plain).items()}
    for index in range(4):
        for place, part in enumerate(("reduce", "depthwise", "expand")):
            for leaf, kind in enumerate(("conv", "norm")):
                names[f"extra.{index}.{part}.{kind}"] = f"backbone.extra.{index}.{place}.{leaf}"
    for index in range(6):
        for name, head in (("classes", "classification"), ("offsets", "regression")):
            place = f"head.{head}_head.module_list.{index}"
            names |= {
                f"predict.{index}.{name}.depthwise.{kind}": f"{place}.0.{i}" for i, kind in enumerate(("conv", "norm"))
            }
            names[f"predict.{index}.{name}.output.conv"] = f"{place}.1"
    modules = {key.rpartition(".")[0]: key for key in network.state_dict()}
    tensors = {}
    for key in network.state_dict():
        module, _, leaf = key.rpartition(".")
        tensors[key] = plain.pop(f"{names[module]}.{leaf}")
    assert not plain
    assert set(names) >= set(modules)
    return tensors


def test_equal_to_torchvisions_ssdlite_on_mobilenetv3() -> None:
    torch.manual_seed(0)
    theirs = randomise(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=8))
    detector = Detector(arch=reduced_mobilenetv3(), boxes=paper_boxes(reduced=False))
    ours = build_detector(detector, 7).eval()
    ours.load_state_dict(our_tensors(theirs.state_dict(), ours))
    images = torch.rand(2, 3, 320, 320)
    with torch.no_grad():
        features = list(theirs.backbone(images * 2 - 1).values())
        expected = theirs.head(features)
        logits, offsets = ours(images * 2 - 1)
        results = theirs(list(images))
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(offsets, expected["bbox_regression"], rtol=1e-4, atol=1e-5)
    assert [f.shape[1] for f in features] == list(map_channels(detector))
    assert logits.std() > 0.05
    results_here = detections(logits, offsets, ours.default_boxes)
    for here, there in zip(results_here, results, strict=True):
        torch.testing.assert_close(here.boxes * 320, there["boxes"], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(here.scores, there["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(here.labels, there["labels"])
        assert len(here.scores) == 300


@pytest.mark.parametrize(
    ("strings", "sources"),
    [
        (TINY, ("block3.0.expand", "block4.0.expand")),
        (TINY.replace("e4_o16", "e1_o16"), ("block3.0.expand", "block3.1.add")),
        (
            TINY.replace("e3_o12", "e3_o12_noskip").replace("e4_o16", "e4_o16_fused"),
            ("block3.0.expand", "block3.1.project"),
        ),
        (TINY.replace("e4_o16_se0.25", "e1_o16_conv"), ("block3.0.expand", "block3.1.add")),
        (TINY.replace("k3_s22_e4_o16", "a3_k3_s22_e4_o16_uib"), ("block3.0.expand", "block4.0.expand")),
        (TINY.replace("k3_s22_e4_o16", "a3_k0_s22_e4_o16_uib"), ("block3.0.expand", "block3.1.add")),
        (TINY.replace("k3_s22_e3_o12", "a3_k0_s22_e3_o12_uib"), ("block2.0.project", "block4.0.expand")),
    ],
)
def test_maps_are_the_last_results_at_their_output_strides(strings: str, sources: tuple[str, str]) -> None:
    torch.manual_seed(0)
    detector = tiny(strings, boxes=FINE)
    assert [tap.source for tap in taps(detector)] == list(sources)
    visits = {visit.name: visit for visit in backbone_visits(detector)}
    assert [visits[name].output_shape[1] for name in sources] == [8, 4]
    after = [visit for visit in visits.values() if visit.source in sources and not visit.name.endswith("add")]
    assert {visit.output_shape[1] for visit in after} == {4, 2}

    network = randomise(build_detector(detector, 2))
    classifier = randomise(build_network(detector.arch, 5), seed=1)
    results: dict[str, Tensor] = {}
    for layer in classifier.layers:
        layer.register_forward_hook(lambda m, _, out, name=layer.layer.name: results.update({name: out}))
        for name, part in layer.named_children():
            part.register_forward_hook(lambda m, _, out, name=f"{layer.layer.name}.{name}": results.update({name: out}))
    load_backbone(network, classifier)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = classifier.features(images)
        maps = network.backbone(images)
    ends = {f"{layer.name}.{layer.parts[-1].name}": layer.name for layer in detector.arch.layers}
    for here, name in zip(maps, sources, strict=False):
        assert torch.equal(here, results[ends.get(name, name)])
    assert torch.equal(maps[2], features)
    assert [x.shape[1] for x in maps] == list(map_channels(detector)[:3])


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("input_size", [64, 96])
def test_extra_layers_have_the_padding_of_the_network(padding: Any, input_size: int) -> None:
    torch.manual_seed(0)
    detector = tiny(TINY, input_size=input_size)
    detector = replace(detector, arch=replace(detector.arch, padding=padding))
    network = randomise(build_detector(detector, 2))
    shapes = [visit.output_shape[1] for visit in detector_visits(detector, 2) if visit.name.endswith("extra.1.expand")]
    assert shapes == [detector.map_sides[2]]
    # Columns of zeros before the first pixel: one by symmetric padding, and by SAME on odd sides only.
    layer = network.extra[0].depthwise.conv
    x = torch.rand(1, layer.in_channels, input_size // 32, input_size // 32)
    begins = 1 if padding == "symmetric" or input_size // 32 % 2 else 0
    padded = torch.nn.functional.pad(x, (begins, 1, begins, 1))
    expected = torch.nn.functional.conv2d(padded, layer.weight, None, 2, groups=layer.groups)
    torch.testing.assert_close(layer(x), expected[:, :, : detector.map_sides[2], : detector.map_sides[2]])


def test_outputs_are_in_the_order_of_the_default_boxes() -> None:
    torch.manual_seed(0)
    detector = tiny(TINY, boxes=FINE, input_size=96)
    network = randomise(build_detector(detector, 3))
    logits, offsets = network(torch.rand(2, 3, 96, 96))
    assert logits.shape == (2, len(detector.default_boxes), 4)
    assert offsets.shape == (2, len(detector.default_boxes), 4)
    assert torch.equal(network.default_boxes, torch.from_numpy(detector.default_boxes))
    # a bias moves the outputs of its own box: the second of the map at output stride 16
    chosen = network.predict[1]["classes"].output.conv.bias
    with torch.no_grad():
        chosen[1 * 4 + 2] += 10
    moved = (network(torch.rand(2, 3, 96, 96))[0] - logits)[0, :, 2] > 5
    places = 12 * 12 + 3 * torch.arange(6 * 6) + 1
    assert torch.equal(torch.where(moved)[0], places)
    widths = network.default_boxes[places, 2]
    assert torch.allclose(widths, torch.tensor(paper_boxes().shapes[0][1][0]))
    corners = corner_boxes(network.default_boxes)
    assert torch.allclose((corners[:, 0] + corners[:, 2]) / 2, network.default_boxes[:, 0])


def test_the_fast_modules_for_training_on_a_cpu_compute_the_same() -> None:
    torch.manual_seed(0)
    plain = build_detector(tiny(TINY, boxes=FINE, input_size=96), 3).double().to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    assert {type(module) for module in fast.modules()} != {type(module) for module in plain.modules()}
    images = torch.rand(4, 3, 96, 96, dtype=torch.float64)
    weights = torch.randn(len(plain.default_boxes), 1, dtype=torch.float64)
    gradients = []
    for network in (plain, fast):
        logits, offsets = network(images)
        gradients.append(
            torch.autograd.grad(((logits.tanh() + offsets[..., :1]) * weights).sum(), network.parameters())
        )
    for here, there in zip(*gradients, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


def test_same_seed_same_weights_and_no_tensor_of_boxes_in_the_state() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_detector(tiny(TINY), 2).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert "default_boxes" not in states[0]
    heads = torch.cat(
        [tensor.flatten() for name, tensor in states[0].items() if name.startswith("predict") and "conv.weight" in name]
    )
    assert abs(float(heads.std()) - 0.03) < 0.003
    with pytest.raises(ValueError, match="num_classes must be 1 or more, but got 0"):
        build_detector(tiny(TINY), 0)


def test_backbone_weights_are_those_of_the_same_architecture() -> None:
    detector = tiny(TINY)
    network = build_detector(detector, 2)
    other = randomise(build_detector(replace(detector, boxes=FINE), 5), seed=3)
    load_backbone(network, other)
    for name, tensor in other.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], tensor)
    load_backbone(network, build_network(replace(detector.arch, dropout=0.5), 3))
    for arch in (replace(detector.arch, padding="symmetric"), arch_of("mnasnet-small")):
        with pytest.raises(ValueError, match="weights for the backbone must be those of architecture"):
            load_backbone(network, build_network(arch, 3))
    pooled = replace(detector, arch=replace(detector.arch, head_pooled=True))
    load_backbone(build_detector(pooled, 2), build_network(pooled.arch, 3))
