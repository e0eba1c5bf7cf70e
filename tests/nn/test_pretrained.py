"""Weights from other sources: outputs equal the source model's bit for bit, misfits are errors, and no code runs."""

import argparse
import math
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from mnas.arch import Arch
from mnas.metadata import ModelMetadata
from mnas.nn import published
from mnas.nn.network import Network, build_network
from mnas.nn.pretrained import arch_changes, load_pretrained, pretrained_info
from mnas.nn.weights import save_weights
from mnas.zoo.architectures import named_arch
from mnas.zoo.weights import TIMM, TORCHVISION, published_name


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights, and batch-norm statistics as after training, such that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def saved(model: nn.Module, path: Path) -> str:
    torch.save(model.state_dict(), path)
    return str(path)


def outputs(model: nn.Module, size: int = 65) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))


def assert_equal_outputs(theirs: nn.Module, network: Network, size: int = 65) -> None:
    expected = outputs(theirs, size)
    assert expected.std() > 0.05  # constant outputs would agree with any other network
    assert torch.equal(outputs(network, size), expected)


# All networks of timm and torchvision


def test_the_names_are_all_that_timm_and_torchvision_have():
    ours = {model.name for model in TIMM.values()}
    patterns = (
        "mnasnet*",
        "semnasnet*",
        "mobilenetv[123]*",
        "mobilenetv4_conv_small*",
        "lcnet_*",
        "tinynet_a",
        "fbnetc*",
    )
    others = {  # another head, stem or depth
        "mobilenetv1_100h", "mobilenetv3_large_150d", "mobilenetv3_rw", "mobilenetv3_small_050",
        "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050",
    }  # fmt: skip
    assert {model for pattern in patterns for model in timm.list_models(pattern)} - ours == others
    assert all(timm.is_model(model) for model in ours)
    assert set(TORCHVISION.values()) == {
        model
        for model in torchvision.models.list_models(torchvision.models)
        if model.startswith(("mnasnet", "mobilenet_", "efficientnet_b0"))
    }


@pytest.mark.parametrize("name", TIMM)
def test_outputs_equal_timms(name, tmp_path):
    theirs = randomise(timm.create_model(TIMM[name].name, bn_eps=TIMM[name].bn_epsilon))
    network = load_pretrained(saved(theirs, tmp_path / "w.pth"), named_arch(name), None, name=name)
    assert not network.training
    assert_equal_outputs(theirs, network)
    norm = network.stem.norm
    assert (norm.eps, norm.momentum) == (theirs.bn1.eps, theirs.bn1.momentum) == (TIMM[name].bn_epsilon, 0.1)


@pytest.mark.parametrize("name", TORCHVISION)
def test_outputs_equal_torchvisions(name, tmp_path):
    theirs = randomise(torchvision.models.get_model(TORCHVISION[name]))
    network = load_pretrained(saved(theirs, tmp_path / "w.pth"), named_arch(name), None, name=name)
    if name.startswith("mobilenetv3"):  # its hidden layer is linear, whose sums have another order
        expected = outputs(theirs)
        assert (outputs(network) - expected).abs().max() <= 1e-5 * expected.abs().max()
    else:
        assert_equal_outputs(theirs, network)
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(network.arch.bn_epsilon, network.arch.bn_momentum)}


@pytest.mark.parametrize("width", [0.35, 0.5, 1.4])
def test_outputs_equal_torchvisions_mobilenetv2_at_other_widths(width, tmp_path):
    theirs = randomise(torchvision.models.mobilenet_v2(width_mult=width))
    name = f"mobilenetv2@{width}"
    assert_equal_outputs(theirs, load_pretrained(saved(theirs, tmp_path / "w.pth"), named_arch(name), None, name=name))


def test_torchvisions_first_mnasnet_had_an_unscaled_stem(tmp_path):
    theirs = torchvision.models.mnasnet0_5()
    first = torchvision.models.mnasnet1_0()
    for index in (0, 1, 3, 4, 6, 7):
        theirs.layers[index] = first.layers[index]
    theirs.layers[8][0].layers[0] = nn.Conv2d(16, 48, 1, bias=False)
    theirs.layers[8][0].layers[1] = nn.BatchNorm2d(48)
    theirs.layers[8][0].layers[3] = nn.Conv2d(48, 48, 3, stride=2, padding=1, groups=48, bias=False)
    theirs.layers[8][0].layers[4] = nn.BatchNorm2d(48)
    theirs.layers[8][0].layers[6] = nn.Conv2d(48, 16, 1, bias=False)
    source = saved(randomise(theirs), tmp_path / "w.pth")
    network = load_pretrained(source, named_arch("mnasnet-b1@0.5"), None, name="mnasnet-b1@0.5")
    assert_equal_outputs(theirs, network)


@pytest.mark.parametrize("name", ["mnasnet-a1", "mnasnet-b1", "mnasnet-small"])
def test_outputs_equal_pytorchcvs(name, tmp_path):
    models = pytest.importorskip("pytorchcv.models.mnasnet")
    theirs = randomise(getattr(models, name.replace("-", "_"))())
    network = load_pretrained(saved(theirs, tmp_path / "w.pth"), named_arch(name), None, name=name)
    expected = outputs(
        theirs, 224
    )  # it takes no other size, because it ends with a 7x7 pool, whose sums have another order
    assert (outputs(network, 224) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_small_with_the_published_first_layer_is_another_function(tmp_path):
    theirs = randomise(timm.create_model("mnasnet_small"))
    source = saved(theirs, tmp_path / "w.pth")
    arch = named_arch("mnasnet-small")
    network = load_pretrained(source, arch, None, name="mnasnet-small")
    assert arch_changes(arch, network.arch) == (
        "block 1 r1_k3_s11_e1_i8_o8 (not r1_k3_s11_e1_i8_o8_noskip), bn_epsilon 1e-05 (not 0.001), "
        "bn_momentum 0.1 (not 0.01), padding symmetric (not same)"
    )
    assert torch.equal(outputs(network), outputs(theirs))
    # a trial or a file of the same blocks, whatever its name
    assert torch.equal(outputs(load_pretrained(source, arch, None, name="an-arch.json")), outputs(theirs))
    published = replace(network.arch, blocks=(arch.blocks[0], *network.arch.blocks[1:]))
    other = build_network(published, 1000)
    other.load_state_dict(network.state_dict())
    assert (outputs(other.eval()) - outputs(theirs)).abs().max() > 1e-3


def test_a_name_at_another_stride_takes_the_weights(tmp_path):
    theirs = randomise(timm.create_model("mnasnet_small"))
    source = saved(theirs, tmp_path / "w.pth")
    network = load_pretrained(source, named_arch("mnasnet-small/s8"), None, name="mnasnet-small/s8")
    assert network.arch.output_stride == 8
    assert torch.equal(network.layers[3].expand.conv.weight, theirs.blocks[2][1].conv_pw.weight)


# Containers of weights

TINY = Arch.from_block_strings("r1_k3_s11_e1_i8_o8,r1_k3_s22_e3_o16_se0.25")


def tiny(classes: int = 3) -> Network:
    return randomise(build_network(replace(TINY, head_filters=16), classes))


def load(source, classes=None, **options) -> Network:
    return load_pretrained(str(source), replace(TINY, head_filters=16), classes, name="tiny.json", **options)


def wrapped_files(state, folder: Path) -> dict[str, object]:
    prefixed = {f"module.{key}": value for key, value in state.items()}
    compiled = {f"module._orig_mod.{key}": value for key, value in state.items()}
    wrong = {key: value + 1 for key, value in state.items()}
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    namespace = argparse.Namespace(model="tiny", lr=0.1)
    return {
        "plain": state,
        "nested": {"state_dict": state, "epoch": 3, "args": namespace},
        "model": {"model": prefixed, "optimizer": {"param_groups": [1, 2]}},
        "averaged": {"state_dict": wrong, "state_dict_ema": state},
        "torchvision": {"model": wrong, "model_ema": prefixed | {"n_averaged": torch.tensor(3)}},
        "compiled": OrderedDict(compiled),
        "old": old,
    }


def test_nests_prefixes_averages_and_half_precision(tmp_path):
    network = tiny()
    for name, content in wrapped_files(network.state_dict(), tmp_path).items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert torch.equal(outputs(load(tmp_path / f"{name}.pth")), outputs(network)), name
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    assert torch.equal(outputs(load(tmp_path / "w.safetensors")), outputs(network))
    torch.save(network.state_dict(), tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(outputs(load(tmp_path / "legacy.bin")), outputs(network))
    torch.save(tiny().half().state_dict(), tmp_path / "half.pt")
    half = load(tmp_path / "half.pt")
    assert half.classifier.weight.dtype == torch.float32
    assert torch.allclose(outputs(half), outputs(network), atol=1e-2)


def test_a_file_of_ours_says_how_it_computes(tmp_path):
    arch = replace(TINY, head_filters=16, padding="symmetric", bn_epsilon=1e-5)
    network = randomise(build_network(arch, 2))
    info = ModelMetadata(
        arch=arch, classes=("a", "b"), mean=(0.1,) * 3, std=(0.2,) * 3, input_size=32, accuracy=0.5, crop=0.9
    )
    save_weights(tmp_path / "w.safetensors", network, info)
    loaded = load(tmp_path / "w.safetensors")
    assert loaded.arch == arch
    assert torch.equal(outputs(loaded), outputs(network))
    source = str(tmp_path / "w.safetensors")
    assert pretrained_info(source, loaded, name="tiny.json") == info
    assert pretrained_info(source, loaded, name="tiny.json", classes=("c", "d")).accuracy is None
    bare = load_pretrained(source, replace(TINY, head_filters=16, dropout=0.5, stem_stride=1), 2, name="tiny.json")
    assert bare.arch == replace(arch, dropout=0.5, stem_stride=1)


def test_a_file_of_ours_of_another_architecture(tmp_path):
    for index, other in enumerate((replace(TINY, head_filters=24), Arch.from_block_strings("r1_k3_s11_e1_i8_o8"))):
        info = ModelMetadata(
            arch=other, classes=("a", "b"), mean=(0.1,) * 3, std=(0.2,) * 3, input_size=32, accuracy=None
        )
        save_weights(tmp_path / f"{index}.safetensors", build_network(other, 2), info)
    assert message_of(tmp_path / "0.safetensors").endswith(
        "0.safetensors' must contain weights of tiny.json, "
        "but got those of another architecture: head_filters 24 (not 16)"
    )
    assert "of another architecture: 1 blocks (not 2), head_filters 1280" in message_of(tmp_path / "1.safetensors")


def test_a_new_classifier(tmp_path):
    network = tiny(3)
    source = saved(network, tmp_path / "w.pth")
    fresh = load(source, 5, new_classifier=True)
    assert fresh.classifier.weight.shape == (5, 16)
    assert torch.equal(fresh.head.conv.weight, network.head.conv.weight)
    same = load(source, 3, new_classifier=True)
    assert not torch.equal(same.classifier.weight, network.classifier.weight)
    with pytest.raises(ValueError, match="have 3 classes, but 5 are required; to replace the classifier, train with"):
        load(source, 5)
    headless = {k: v for k, v in network.state_dict().items() if not k.startswith("classifier")}
    torch.save(headless, tmp_path / "headless.pth")
    assert torch.equal(load(tmp_path / "headless.pth", 4, new_classifier=True).head.conv.weight, fresh.head.conv.weight)


# Metadata of weights


def test_what_their_evaluation_does(tmp_path):
    network = build_network(named_arch("mnasnet-b1@0.35"), 1000)
    for source, crop in (("timm", 0.875), ("torchvision", 224 / 232)):
        info = pretrained_info(source, network, name="mnasnet-b1@0.75")
        assert (info.input_size, info.crop, info.accuracy) == (224, crop, None)
        assert info.mean == (0.485, 0.456, 0.406)
        assert info.std == (0.229, 0.224, 0.225)
        assert (info.classes[0], info.classes[999], len(set(info.classes))) == ("tench", "toilet tissue", 1000)
    assert pretrained_info("torchvision", network, name="mnasnet-b1").crop == 224 / 256
    assert pretrained_info("any.pth", network, name="mnasnet-b1").crop == 0.875
    with pytest.raises(
        ValueError, match=r"--class-file must name each of the 3 outputs, but got 1000 names of ImageNet"
    ):
        pretrained_info("any.pth", tiny(3), name="tiny.json")
    assert pretrained_info("any.pth", tiny(2), name="tiny.json", classes=["a", "b"]).classes == ("a", "b")


def test_timms_and_torchvisions_classes_are_in_the_same_order():
    from timm.data import ImageNetInfo

    timms = ImageNetInfo().label_descriptions()
    ours = pretrained_info("timm", build_network(named_arch("mnasnet-a1@0.35"), 1000), name="mnasnet-a1").classes
    same = [
        a.split()[0].lower().strip(",") == b.split()[0].lower().strip(",") for a, b in zip(ours, timms, strict=True)
    ]
    assert sum(same) > 900  # the others have different names


def test_downloads_are_timms_and_torchvisions(monkeypatch):
    """The only place where downloads cannot run; the test passes the content that they would return."""
    asked = []

    def create(name, pretrained):
        asked.append((name, pretrained))
        return randomise(create_model(name))

    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(published, "_require_reachable", lambda config: None)
    network = load_pretrained("timm", named_arch("mnasnet-small/s32"), 1000, name="mnasnet-small/s32")
    assert asked == [("mnasnet_small", True)]
    assert_equal_outputs(randomise(create_model("mnasnet_small")), network)

    def fetch(self, **options):
        assert options["weights_only"]
        asked.append((str(self), options["check_hash"]))
        return randomise(torchvision.models.mnasnet0_5()).state_dict()

    monkeypatch.setattr(torchvision.models.MNASNet0_5_Weights, "get_state_dict", fetch)
    network = load_pretrained("torchvision", named_arch("mnasnet-b1@0.50"), 1000, name="mnasnet-b1@0.50")
    assert asked[1] == ("MNASNet0_5_Weights.IMAGENET1K_V1", True)
    assert_equal_outputs(randomise(torchvision.models.mnasnet0_5()), network)


def test_a_download_that_fails_has_its_line(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr(published, "_require_reachable", lambda config: None)
    line = (
        r"^timm could not download the weights of semnasnet_100, which are not in the cache \S+: no route to host; "
        r"give them as a file instead \(--weights FILE\)$"
    )
    with pytest.raises(ValueError, match=line):
        load_pretrained("timm", named_arch("mnasnet-a1"), 1000, name="mnasnet-a1")
    with pytest.raises(ValueError, match=r"no route to host; use --weights pretrained, or give them as a "):
        load_pretrained("timm", named_arch("efficientnet-lite0"), 1000, name="efficientnet-lite0")


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("timm", "mnasnet-a1@0.6", r"^timm has the networks mnasnet-a1@0.5, .*, but got 'mnasnet-a1@0.6'$"),
        ("torchvision", "mnasnet-a1", r"^torchvision has the networks mnasnet-b1@0.5, .*, but got 'mnasnet-a1'$"),
        ("timm", "runs/a#3", r"^timm has the networks .*, but got 'runs/a#3'$"),
        ("timm", "mnasnet-a1@1.4", r"^timm has weights for mnasnet-a1@0.75, .*\(semnasnet_140 has none\)$"),
        (
            "nowhere.pth",
            "mnasnet-a1",
            r"^--weights must be timm, torchvision, pretrained or a .safetensors, .*, which does not exist$",
        ),
    ],
)
def test_sources_that_have_none(source, name, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(source, named_arch("mnasnet-a1"), 1000, name=name)


# Weights that do not fit, and files without weights


def message_of(source, classes=None) -> str:
    with pytest.raises(ValueError, match=r"weights|tensors") as caught:
        load(source, classes)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_what_is_missing_unexpected_and_of_another_shape(tmp_path):
    source = saved(randomise(timm.create_model("mnasnet_small")), tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"^the weights of '.*small.pth' for mnasnet-a1 must fit") as caught:
        load_pretrained(source, named_arch("mnasnet-a1"), 1000, name="mnasnet-a1")
    text = str(caught.value)
    assert "\n" not in text
    assert " missing (blocks.1.1.conv_pw.weight, blocks.1.1.bn1.weight, blocks.1.1.bn1.bias and " in text
    assert " unexpected (blocks." in text
    assert " of another shape (conv_stem.weight (8, 3, 3, 3) instead of (32, 3, 3, 3), " in text
    state = tiny().state_dict()
    torch.save({k: v for k, v in state.items() if k != "head.norm.bias"} | {"extra": torch.zeros(1)}, tmp_path / "w")
    assert "1 missing (head.norm.bias); 1 unexpected (extra)" in message_of(tmp_path / "w")
    torch.save(state | {"classifier.weight": torch.zeros(3, 5)}, tmp_path / "w")
    assert "classifier.weight (3, 5) instead of (3, 16)" in message_of(tmp_path / "w")


def test_tensors_of_another_kind_of_network(tmp_path):
    source = saved(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.pth")
    assert "must be named as in mnas, timm, torchvision's MNASNet, " in message_of(source)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "must contain a state dict, but got list" in message_of(tmp_path / "list.pth")
    torch.save({"stem.conv.weight": 3}, tmp_path / "number.pth")
    assert "of tensors only, but got stem.conv.weight" in message_of(tmp_path / "number.pth")


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_in_a_file_is_never_run(tmp_path, recwarn):
    mark = tmp_path / "ran"
    torch.save({"state_dict": tiny().state_dict(), "more": Code(mark)}, tmp_path / "zip.pth")
    for protocol in (0, 2, 5):
        (tmp_path / f"plain{protocol}.pkl").write_bytes(pickle.dumps(Code(mark), protocol))
    torch.save(Code(mark), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tiny(), tmp_path / "module.pth")
    for name, code in (
        ("zip.pth", "mkdir"),
        ("plain0.pkl", "mkdir"),
        ("plain2.pkl", "mkdir"),
        ("plain5.pkl", "mkdir"),
        ("legacy.pth", "mkdir"),
        ("module.pth", "Network"),
    ):
        text = message_of(tmp_path / name)
        assert "must contain tensors only" in text, name
        assert code in text
        assert "which mnas does not run; save the model's state_dict() instead" in text
        assert not recwarn.list
        assert "weights_only" not in text  # torch's own message explains how to run it anyway
    assert not mark.exists()
    torch.jit.script(nn.Linear(1, 1)).save(tmp_path / "script.pt")
    assert "is TorchScript, which is code; save its state_dict() instead" in message_of(tmp_path / "script.pt")


def test_damaged_files(tmp_path):
    state = tiny().state_dict()
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    for name in ("zip.pth", "legacy.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
            path = tmp_path / f"cut-{name}"
            path.write_bytes(whole[: int(share * len(whole))])
            origin = "not in safetensors format" if name == "w.safetensors" else "was not written by torch.save"
            assert f"is damaged or {origin}" in message_of(path), (name, share)
    for content in (b"hello, this is text", b"\x80\x02", b"PK\x03\x04" + bytes(100), bytes(1000), b"cos\nsystem\n"):
        (tmp_path / "other.pth").write_bytes(content)
        assert "weights file" in message_of(tmp_path / "other.pth")
    assert "which is a folder" in message_of(tmp_path)


def test_zoo_names_however_they_are_written():
    for name in ("mnasnet-a1@0.5", "mnasnet-a1@0.50/s8", "mnasnet-a1@000.5"):
        assert published_name(name) == "mnasnet-a1@0.5"
    assert published_name("mnasnet-a1@1.0") == "mnasnet-a1"


def test_weights_that_are_not_finite(tmp_path):
    arch = named_arch("mnasnet-small@0.25")
    state = build_network(arch, 5).state_dict()
    state["layers.0.project.conv.weight"][0] = math.nan
    path = str(tmp_path / "w.pth")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"got NaN or infinity in layers\.0\.project\.conv\.weight$"):
        load_pretrained(path, arch, None, name="mnasnet-small@0.25")
