import dataclasses
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from same_function import assert_delegated, assert_same_function, images, outputs, trained_like
from torch import nn

from mnas.arch import Arch
from mnas.block import Block
from mnas.nn.network import Network, build_network
from mnas.ops import OPS
from mnas.space.named import load_space
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes, write_tflite
from mnas.zoo.architectures import ZOO

A1 = ZOO["mnasnet-a1"].arch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, as a second one only waits for the first on tiny tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Random members of the factorized space


def random_member(rng: random.Random, output_stride: int) -> Arch:
    space = load_space("mnasnet").with_output_stride(output_stride)
    return space.decode([rng.randrange(len(decision.choices)) for decision in space.decisions])


def narrow_member(rng: random.Random, output_stride: int) -> Arch:
    """Return members at a quarter of the width; some have features outside the space (7 x 7 kernels, ReLU6)."""
    arch = random_member(rng, output_stride).scale_width(0.25, scale_head=True)
    blocks = [dataclasses.replace(b, kernel=7) if rng.random() < 0.1 else b for b in arch.blocks]
    return dataclasses.replace(arch, blocks=tuple(blocks), activation=rng.choice(("relu", "relu", "relu6")))


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 25)) for seed in range(200)])
def test_random_members_of_the_space_compute_what_torch_computes(seed: int) -> None:
    rng = random.Random(seed)
    output_stride = rng.choice((4, 8, 16, 32))
    full_width = seed % 10 == 0
    arch = (random_member if full_width else narrow_member)(rng, output_stride)
    largest = {4: 21, 8: 49, 16: 65, 32: 97}[output_stride]
    size = rng.randint(max(16, output_stride), largest)
    model = assert_same_function(trained_like(arch, rng.randint(2, 12), seed), size, seed)
    if full_width:
        assert_delegated(model)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_members_of_full_width(seed: int) -> None:
    rng = random.Random(10_000 + seed)
    output_stride = rng.choice((4, 8, 16, 32))
    arch = random_member(rng, output_stride)
    assert_delegated(assert_same_function(trained_like(arch, 10, seed), rng.randint(32, 7 * output_stride + 8), seed))


# Every kind of layer alone

KINDS = [(op, 3 if row.expands else 1) for op, row in OPS.items()]


def one_layer(**changes: object) -> Arch:
    values: dict[str, object] = {"op": "sepconv", "kernel": 3, "stride": 1, "filters": 8, **changes}
    return Arch(blocks=(Block(**values),), stem_filters=8, stem_stride=1, head_filters=24)  # type: ignore[arg-type]


@pytest.mark.sample(10)
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("op", KINDS, ids=lambda op: op[0])
def test_each_op_alone(op: tuple[str, int], kernel: int, stride: int, padding: str) -> None:
    arch = one_layer(op=op[0], expansion=op[1], kernel=kernel, stride=stride, se_ratio=0.25)
    arch = dataclasses.replace(arch, padding=padding)
    for size in (2, 7, 12):  # also smaller than the kernel
        assert_delegated(assert_same_function(trained_like(arch, 5, size), size, size))


@pytest.mark.sample(10)
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("filters", [4, 8, 12], ids=["narrower", "equal", "wider"])
@pytest.mark.parametrize("op", KINDS, ids=lambda op: op[0])
def test_pooled_skip(op: tuple[str, int], filters: int, stride: int, padding: str) -> None:
    arch = one_layer(op=op[0], expansion=op[1], stride=stride, filters=filters, skip="pool")
    arch = dataclasses.replace(arch, padding=padding)
    for size in (3, 8):
        assert_delegated(assert_same_function(trained_like(arch, 5, size), size, size))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_one_pixel_left(padding: str) -> None:
    arch = Arch(
        blocks=tuple(Block(op="mbconv", expansion=3, kernel=5, stride=2, filters=8, skip="pool") for _ in range(3)),
        stem_filters=8,
        head_filters=16,
        padding=padding,  # type: ignore[arg-type]
    )
    for size in (16, 17):
        assert_same_function(trained_like(arch, 3, size), size)


def test_one_channel_and_one_class() -> None:
    arch = Arch(
        blocks=(Block(op="sepconv", kernel=3, stride=1, filters=1, se_ratio=1.0),), stem_filters=1, head_filters=8
    )
    network = trained_like(arch, 1, 1)
    x = images(8, 0, 3)
    np.testing.assert_allclose(run_tflite(write_tflite(network, 8), x), outputs(network, x), rtol=1e-4, atol=1e-5)


def test_relu6_is_clipped_where_relu_is_not() -> None:
    arch = one_layer(op="mbconv", expansion=3)
    clipped = dataclasses.replace(arch, activation="relu6")
    networks = [trained_like(a, 5, 0) for a in (arch, clipped)]
    for network in networks:
        with torch.no_grad():
            network.stem.norm.bias.fill_(8.0)
        assert_same_function(network, 8)
    assert not np.allclose(outputs(networks[0], images(8, 0)), outputs(networks[1], images(8, 0)), rtol=1e-2)


# Whole networks


@pytest.mark.sample(20)
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if isinstance(entry.arch, Arch)])
def test_published_networks_at_224(name: str, padding: str) -> None:
    arch = dataclasses.replace(ZOO[name].arch, padding=padding)
    assert_delegated(assert_same_function(trained_like(arch, 1000, 1), 224))


@pytest.mark.parametrize("seed", range(4))
def test_statistics_of_real_training_steps(seed: int) -> None:
    arch = dataclasses.replace(narrow_member(random.Random(1000 + seed), 16), bn_momentum=0.3)
    torch.manual_seed(seed)
    network = build_network(arch, 4).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    labels = torch.randint(4, (8,))
    for step in range(3):
        x = torch.from_numpy(images(32, step, 8)).permute(0, 3, 1, 2)
        loss = nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network.stem.norm.running_var.std() > 0
    assert_same_function(network.eval(), 32, count=2)


def test_writing_leaves_the_network_as_it_was() -> None:
    network = trained_like(one_layer(), 3, 0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    write_tflite(network, 8)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_layout_and_type_of_the_weights_make_no_difference() -> None:
    network = trained_like(one_layer(op="mbconv", expansion=3, se_ratio=0.25), 3, 0)
    model = write_tflite(network, 8)
    assert write_tflite(network.to(memory_format=torch.channels_last), 8) == model
    assert write_tflite(network.double(), 8) == model
    half = network.bfloat16()
    rounded = write_tflite(half, 8)
    assert rounded == write_tflite(half.float(), 8) != model


def test_softmax() -> None:
    network = trained_like(one_layer(), 6, 0)
    model = write_tflite(network, 8, softmax=True)
    expected = torch.from_numpy(outputs(network, images(8, 0, 2))).softmax(1)
    np.testing.assert_allclose(run_tflite(model, images(8, 0, 2)), expected, atol=1e-6)
    assert_delegated(model)


# The file


def test_same_network_same_bytes() -> None:
    arch = narrow_member(random.Random(5), 8)
    once, again = (write_tflite(trained_like(arch, 10, 3), 32, labels=[str(i) for i in range(10)]) for _ in range(2))
    assert once == again
    assert once != write_tflite(trained_like(arch, 10, 4), 32, labels=[str(i) for i in range(10)])


def test_size_is_the_weights_and_little_else() -> None:
    network = build_network(A1, 1000)
    params = sum(p.numel() for p in network.parameters())
    # folding turns gamma and beta into one bias; names, shapes and operators are the overhead
    assert 0 < len(write_tflite(network, 224)) - 4 * (params - _norm_channels(network)) < 64 * 1024


def _norm_channels(network: Network) -> int:
    return sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_graph_of_the_file() -> None:
    model = write_tflite(trained_like(A1, 1000, 0), 224)
    interpreter = Interpreter(model_content=model)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert (image["name"], list(image["shape"]), image["dtype"]) == ("image", [1, 224, 224, 3], np.float32)
    assert (logits["name"], list(logits["shape"]), logits["dtype"]) == ("logits", [1, 1000], np.float32)
    root = schema.ModelT.InitFromPackedBuf(model)
    assert all(code.version == 1 and code.deprecatedBuiltinCode == code.builtinCode for code in root.operatorCodes)
    names = [tensor.name for tensor in root.subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert {b"block1.0.depthwise/kernel", b"block3.0.se.reduce/bias", b"block7.0.project"} <= set(names)
    # 2 for stem and head, 16 layers of 2 or 3 convolutions, 8 with two more and MEAN, LOGISTIC, MUL, 9 ADD; MEAN, FC
    operators = root.subgraphs[0].operators
    assert len(operators) == 2 + (2 + 15 * 3) + 8 * 5 + 9 + 2


def test_every_buffer_is_aligned() -> None:
    model = write_tflite(trained_like(one_layer(op="mbconv", expansion=3, se_ratio=0.5), 3, 0), 8)
    root = schema.Model.GetRootAs(model)
    assert root.Buffers(0).DataIsNone()
    for i in range(1, root.BuffersLength()):
        data = root.Buffers(i).DataAsNumpy()
        start = data.__array_interface__["data"][0] - np.frombuffer(model, np.uint8).__array_interface__["data"][0]
        assert start % 16 == 0


# The fast path


def test_graph_bytes_is_the_graph_that_is_shipped() -> None:
    for seed in range(5):
        arch = narrow_member(random.Random(seed), 8)
        quick = schema.ModelT.InitFromPackedBuf(graph_bytes(arch, 40, 10))
        whole = schema.ModelT.InitFromPackedBuf(write_tflite(trained_like(arch, 10, 0), 40))
        assert _skeleton(quick) == _skeleton(whole)


def _skeleton(model: schema.ModelT) -> list[object]:
    graph = model.subgraphs[0]
    tensors = [(t.name, t.type, tuple(t.shape), len(_data(model, t))) for t in graph.tensors]
    operators = [
        (op.opcodeIndex, *map(tuple, (op.inputs, op.outputs)), vars(op.builtinOptions) if op.builtinOptions else None)
        for op in graph.operators
    ]
    return [tensors, operators, [code.builtinCode for code in model.operatorCodes]]


def _data(model: schema.ModelT, tensor: schema.TensorT) -> bytes:
    data = model.buffers[tensor.buffer].data
    return b"" if data is None else bytes(data)


def test_graph_bytes_has_sane_activations_and_leaves_torch_alone() -> None:
    state = torch.get_rng_state()
    for arch, size in ((A1, 224), (narrow_member(random.Random(7), 4), 32)):
        model = graph_bytes(arch, size)
        assert model == graph_bytes(arch, size) != graph_bytes(arch, size, seed=1)
        logits = run_tflite(model, images(size, 0))
        assert np.isfinite(logits).all()
        assert 1e-3 < logits.std() < 1e5
    assert torch.equal(state, torch.get_rng_state())


# Faults


def test_too_small_an_input() -> None:
    with pytest.raises(ValueError, match=r"^input_size must be at least the output stride 32, but got 31"):
        write_tflite(build_network(A1, 10), 31)
    with pytest.raises(ValueError, match="input_size must be at least the output stride 32, but got 16"):
        graph_bytes(A1, 16)
    with pytest.raises(ValueError, match="a model must have either class names or a number of unnamed classes"):
        graph_bytes(A1, 32, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_diverged_weights(value: float) -> None:
    network = trained_like(one_layer(), 3, 0)
    with torch.no_grad():
        module = network.layers[0].depthwise
        (module.norm.running_var if value < 0 else module.conv.weight).view(-1)[0] = value
    with pytest.raises(ValueError, match=r"finite.*block1\.0\.depthwise"):
        write_tflite(network, 8)
