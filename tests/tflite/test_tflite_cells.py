"""LiteRT files of networks of cells compute what the torch networks compute, and XNNPACK delegates all operators."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from same_function import assert_delegated, assert_same_function, images, trained_like

from mnas.cell_arch import OPS, Cell, CellArch, CellSkeleton
from mnas.nn.cost import cost
from mnas.nn.network import build_network
from mnas.space.cell import CellSpace
from mnas.tflite.graph import MOST_JOINED, Graph
from mnas.tflite.metadata import read_metadata
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes, write_tflite
from mnas.zoo.architectures import named_arch
from mnas.zoo.cells import CELL_NETWORKS

NARROW = CellSkeleton(filters=8, cells=(1, 1), stem_filters=(6,))
SPACE = CellSpace(name="narrow", ops=OPS, concat="chosen", skeleton=NARROW)


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread, as a second one only waits for the first on tiny tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_member(rng, output_stride):
    space = SPACE.with_output_stride(output_stride)
    return space.decode([rng.randrange(len(d.choices)) for d in space.decisions])


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 12)) for seed in range(24)])
def test_random_members_of_the_space_compute_what_torch_computes(seed):
    rng = random.Random(seed)
    output_stride = rng.choice((2, 4, 8, 16))
    arch = random_member(rng, output_stride)
    size = rng.randint(max(8, output_stride), 2 * output_stride + 9)
    model = assert_same_function(trained_like(arch, rng.randint(2, 12), seed), size, seed)
    if seed % 4 == 0:
        assert_delegated(model)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_members_of_full_width(seed):
    rng = random.Random(10_000 + seed)
    space = CellSpace(name="full", ops=OPS, concat=rng.choice(("unused", "all", "chosen")))
    space = space.with_output_stride(rng.choice((4, 8, 16, 32)))
    arch = space.decode([rng.randrange(len(d.choices)) for d in space.decisions])
    size = rng.randint(space.skeleton.output_stride, 7 * space.skeleton.output_stride + 8)
    assert_delegated(assert_same_function(trained_like(arch, 10, seed), size, seed, at_most=1e20))


@pytest.mark.sample(15)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", OPS)
def test_each_op_alone(op, stride):
    """Inputs have the cell's width, or that of the first cell's second input; some are smaller than a kernel."""
    cell = Cell(pairs=((0, op, 1, op),), concat=(2,))
    skeleton = CellSkeleton(cells=(0, 0) if stride == 2 else (1,), stem_cells=0, filters=8, stem_filters=(5,))
    arch = CellArch(normal=cell, reduction=cell, skeleton=skeleton)
    for size in (4, 7):
        assert_delegated(assert_same_function(trained_like(arch, 5, size), size, size))


@pytest.mark.parametrize("states", [(0, 1, 2), (0, 2), (1, 2), (2,)])
@pytest.mark.parametrize("size", [16, 17, 20, 23])
def test_inputs_in_the_output_of_a_reduction_cell(states, size):
    """Inputs are reduced to the size of the output; odd sizes get zeros after the last row and column."""
    cell = Cell(pairs=((0, "identity", 1, "max3"),), concat=states)
    arch = CellArch(normal=cell, reduction=cell, skeleton=CellSkeleton(cells=(1, 1), stem_cells=1, filters=6))
    assert_delegated(assert_same_function(trained_like(arch, 5, size), size, size))


def test_one_pixel_left():
    for size in (16, 31):
        for seed in range(2):
            assert_same_function(trained_like(random_member(random.Random(seed), 16), 3, size), size)


def test_many_values_side_by_side():
    """Each concatenation has at most as many values as XNNPACK delegates."""
    for count in range(2, 12):
        graph = Graph()
        inputs = {f"in{i}": graph.value(f"in{i}", (1, 2, 2, i + 1)) for i in range(count)}
        joined = graph.concat("joined", list(inputs.values()))
        assert joined.shape == (1, 2, 2, count * (count + 1) // 2)
        root = schema.ModelT.InitFromPackedBuf(graph.to_bytes(inputs=inputs, outputs={"joined": joined}, metadata={}))
        sizes = [len(operator.inputs) for operator in root.subgraphs[0].operators]
        assert max(sizes) <= MOST_JOINED
        assert sum(sizes) - (len(sizes) - 1) == count


# Whole networks


@pytest.mark.parametrize("name", CELL_NETWORKS)
def test_published_networks(name):
    """The input size is odd, and half of the published one, as the operators are the same at any size; 224 is slow."""
    arch = CELL_NETWORKS[name][0]
    assert_delegated(assert_same_function(trained_like(arch, 10, 1), 65, at_most=1e12))  # sums of sums are large


@pytest.mark.slow
@pytest.mark.parametrize("name", CELL_NETWORKS)
def test_published_networks_at_224(name):
    assert_delegated(assert_same_function(trained_like(CELL_NETWORKS[name][0], 1000, 1), 224, at_most=1e12))


def test_statistics_of_real_training_steps():
    arch = random_member(random.Random(7), 4)
    torch.manual_seed(0)
    network = build_network(arch, 4).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(3):
        x = torch.from_numpy(images(24, step, 8)).permute(0, 3, 1, 2)
        loss = torch.nn.functional.cross_entropy(network(x), torch.arange(8) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same_function(network.eval(), 24, count=2)


def test_the_file_describes_its_network():
    arch = random_member(random.Random(3), 8)
    metadata = read_metadata(write_tflite(trained_like(arch, 3, 0), 16, labels=["a", "b", "c"]))
    assert (metadata.arch, metadata.input_size, metadata.classes) == (arch, 16, ("a", "b", "c"))


def test_operators_and_their_versions():
    model = graph_bytes(named_arch("amoebanet-a"), 64, 10)
    root = schema.ModelT.InitFromPackedBuf(model)
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    versions = {codes[code.builtinCode]: code.version for code in root.operatorCodes}
    assert set(versions.values()) == {1}
    assert set(versions) == {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RELU", "ADD", "CONCATENATION", "SLICE"),
        *("MEAN", "FULLY_CONNECTED"),
    }
    # DARTS has ordinary depthwise convolutions, and dilated ones, which version 1 does not have
    darts = schema.ModelT.InitFromPackedBuf(graph_bytes(named_arch("darts-v2"), 64, 10))
    depthwise = Counter(c.version for c in darts.operatorCodes if codes[c.builtinCode] == "DEPTHWISE_CONV_2D")
    assert depthwise == {1: 1, 2: 1}


def test_graph_bytes_is_the_graph_that_is_shipped():
    for seed in range(3):
        arch = random_member(random.Random(seed), 8)
        quick, whole = (
            schema.ModelT.InitFromPackedBuf(model)
            for model in (graph_bytes(arch, 24, 10), write_tflite(trained_like(arch, 10, 0), 24))
        )
        for model in (quick, whole):
            model.shapes = [(t.name, tuple(t.shape), t.type) for t in model.subgraphs[0].tensors]
            model.wiring = [(o.opcodeIndex, *o.inputs, *o.outputs) for o in model.subgraphs[0].operators]
        assert (quick.shapes, quick.wiring) == (whole.shapes, whole.wiring)


def test_random_weights_keep_activations_sane():
    """Activations neither overflow nor become denormal, whatever the cells."""
    for seed in range(12):
        rng = random.Random(seed)
        space = CellSpace(name="deep", ops=OPS, skeleton=CellSkeleton(filters=8)).with_output_stride(4)
        arch = space.decode([rng.randrange(len(d.choices)) for d in space.decisions])
        logits = run_tflite(graph_bytes(arch, 16, 10), images(16, 0))
        assert np.isfinite(logits).all()
        assert 1e-12 < logits.std() < 1e12


def test_params_of_the_file():
    arch = random_member(random.Random(1), 8)
    size = len(graph_bytes(arch, 16, 10))
    assert 0 < size - 4 * cost(arch, 16, 10).params < 200_000


def test_too_small_an_input():
    with pytest.raises(ValueError, match=r"^input_size must be at least the output stride 32, but got 31"):
        graph_bytes(named_arch("nasnet-a"), 31)


def test_diverged_weights():
    network = trained_like(random_member(random.Random(0), 8), 3, 0)
    with torch.no_grad():
        network.cells.parts["stem/conv1"].conv.weight.view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=r"finite.*stem\.conv1"):
        write_tflite(network, 16)
