"""The cell space: exact counts, its members, the published cells among them, and its TOML form."""

import itertools
import json
import math
import pickle
import random
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnas.cell_arch import OPS, Cell, CellArch, CellSkeleton, Pair, unused_states
from mnas.space.cell import NASNET_OPS, OP_SETS, CellSpace, distinct_cells
from mnas.space.named import SPACES, load_space, space_from_dict, space_from_toml
from mnas.zoo.architectures import named_arch, reference_arch
from mnas.zoo.cells import CELL_NETWORKS

SPACE = SPACES["cell"]


def vectors(space, count, seed=0):
    rng = random.Random(seed)
    return [tuple(rng.randrange(len(d.choices)) for d in space.decisions) for _ in range(count)]


def test_nasnets_space():
    assert len(NASNET_OPS) == 13
    one = math.prod((states * 13) ** 2 for states in range(2, 7))
    assert one == 71_465_842_174_521_600
    assert SPACE.size == one**2
    assert len(SPACE.decisions) == 2 * 5 * 4
    assert [(d.name, d.choices) for d in SPACE.decisions[4:8]] == [
        ("normal.pair2.input1", (0, 1, 2)),
        ("normal.pair2.op1", NASNET_OPS),
        ("normal.pair2.input2", (0, 1, 2)),
        ("normal.pair2.op2", NASNET_OPS),
    ]
    assert SPACE.decisions[20].name == "reduction.pair1.input1"
    assert SPACE.distinct == 380_983_342_099_113**2
    assert SPACE.distinct_is_exact


@pytest.mark.parametrize(("pairs", "ops"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (4, 1)])
def test_distinct_cells_against_enumeration(pairs, ops):
    branches = [[(state, op) for state in range(i + 2) for op in OPS[:ops]] for i in range(pairs)]
    seen = set()
    for drawn in itertools.product(*(itertools.combinations_with_replacement(b, 2) for b in branches)):
        made = tuple(Pair(*one, *other) for one, other in drawn)
        seen.add(Cell(pairs=made, concat=unused_states(made)).canonical())
    assert len(seen) == distinct_cells(pairs, ops)


@pytest.mark.parametrize("concat", ["unused", "all", "chosen"])
def test_distinct_networks_against_enumeration(concat):
    """With a chosen concat the number is only a bound: the unused states are not a choice."""
    space = CellSpace(name="small", pairs=1, ops=("sep3", "avg3"), concat=concat)
    drawn = itertools.product(*(range(len(d.choices)) for d in space.decisions))
    found = {space.decode(vector).fingerprint for vector in drawn}
    assert space.distinct_is_exact == (concat != "chosen")
    if concat == "chosen":
        assert len(found) <= space.distinct < space.size
    else:
        assert len(found) == space.distinct < space.size


@pytest.mark.parametrize("concat", ["unused", "all", "chosen"])
@pytest.mark.parametrize("output_stride", [32, 8, 4])
def test_decode_and_encode_of_random_members(concat, output_stride):
    space = replace(SPACE, concat=concat).with_output_stride(output_stride)
    for vector in vectors(space, 60):
        arch = space.decode(vector)
        assert arch == arch.canonical()
        assert arch.output_stride == output_stride == space.skeleton.output_stride
        canonical = space.encode(arch)
        assert canonical <= vector
        assert space.decode(canonical) == arch
        assert space.encode(space.decode(canonical)) == canonical
        assert space.indices(space.params(vector)) == vector


def test_one_vector_by_hand():
    space = CellSpace(name="two", pairs=2, ops=("sep3", "identity", "max3"))
    assert space.ops == ("identity", "max3", "sep3")  # in the order of all
    assert len(space.decisions) == 16
    arch = space.decode((1, 2, 0, 1, 0, 0, 2, 2, 0, 1, 0, 1, 1, 0, 0, 2))
    assert arch.normal == Cell(pairs=((0, "max3", 1, "sep3"), (0, "identity", 2, "sep3")), concat=(3,))
    assert arch.reduction == Cell(pairs=((0, "max3", 0, "max3"), (0, "sep3", 1, "identity")), concat=(2, 3))
    assert space.encode(arch) == (0, 1, 1, 2, 0, 0, 2, 2, 0, 1, 0, 1, 0, 2, 1, 0)


def test_what_is_in_the_output():
    space = CellSpace(name="one", pairs=2, ops=("sep3",), concat="chosen")
    assert [d.name for d in space.decisions[8:11]] == ["normal.concat0", "normal.concat1", "normal.concat2"]
    chain = (0, 0, 1, 0, 2, 0, 2, 0)  # the second pair uses the sum of the first
    normal = [space.decode((*chain, *taken, *chain, 0, 0, 0)).normal for taken in [(0, 0, 0), (1, 0, 0), (0, 1, 1)]]
    assert [cell.concat for cell in normal] == [(3,), (0, 3), (1, 2, 3)]
    apart = (0, 0, 0, 0, 0, 0, 1, 0)  # state 2 is in the output, chosen or not
    assert space.decode((*apart, 0, 0, 1, *apart, 0, 0, 0)).normal.concat == (2, 3)
    assert space.encode(space.decode((*apart, 0, 0, 1, *apart, 0, 0, 0)))[8:11] == (0, 0, 0)


@pytest.mark.parametrize("name", CELL_NETWORKS)
def test_published_cells_are_members(name):
    """Return the space of all operations on the network's own stack, with a chosen concat."""
    arch = CELL_NETWORKS[name][0]
    space = CellSpace(name="theirs", ops=OPS, pairs=len(arch.normal.pairs), concat="chosen", skeleton=arch.skeleton)
    assert space.decode(space.encode(arch)) == arch.canonical()
    assert space.decode(space.encode(arch)).fingerprint == arch.fingerprint


def test_published_cells_in_their_authors_spaces():
    """PNASNet and DARTS concatenate all sums; NASNet-A's published cells break their own rule."""
    pnasnet, darts, nasnet = (named_arch(name) for name in ("pnasnet-5", "darts-v2", "nasnet-a"))
    assert CellSpace(name="a", ops="pnas", concat="all", skeleton=pnasnet.skeleton).contains(pnasnet)
    assert CellSpace(name="b", ops="darts", concat="all", pairs=4, skeleton=darts.skeleton).contains(darts)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CellSpace(name="c", skeleton=nasnet.skeleton).encode(nasnet)
    assert "the normal cell is not in space c: concat must be the states [2, 3, 4, 5, 6], but got [1, 2," in str(
        error.value
    )


def test_what_is_not_in_the_space():
    member = SPACE.decode(vectors(SPACE, 1)[0])
    pairs = (Pair(0, "dilsep3", 0, "sep3"),) * 5
    cases = [
        (named_arch("mnasnet-a1"), "space cell has networks of cells, but got one of blocks"),
        (member.with_output_stride(8), "the skeleton must be that of space cell (stem convolutions 32/2, stem cells 2"),
        (
            replace(member, normal=Cell(pairs=pairs, concat=unused_states(pairs))),
            "the normal cell is not in space cell: an op of pair 1 must be one of identity, conv1x3",
        ),
        (
            replace(member, reduction=Cell(pairs=member.reduction.pairs[:1], concat=(2,))),
            "the reduction cell is not in space cell: it must have 5 pairs, but got 1",
        ),
    ]
    for arch, message in cases:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            SPACE.encode(arch)
        assert message in str(error.value)
        assert not SPACE.contains(arch)
    with pytest.raises(ValueError, match="space mnasnet has networks of blocks, but got one of cells"):
        SPACES["mnasnet"].encode(member)
    with pytest.raises(ValueError, match="space per-layer has networks of blocks, but got one of cells"):
        SPACES["per-layer"].encode(member)


@pytest.mark.parametrize(("width", "output_stride"), [(1.0, 32), (0.5, 16), (0.25, 4)])
def test_the_reference_is_mobilenetv2_of_the_same_stride_and_about_the_width(width, output_stride):
    space = SPACE.scaled(width).with_output_stride(output_stride)
    reference = reference_arch(space.reference_skeleton)
    assert reference.output_stride == output_stride
    if width == 1:
        assert reference == named_arch("mobilenetv2")
    assert reference.stem_filters == pytest.approx(32 * space.skeleton.filters / 44, abs=2)


def test_optuna_draws_members():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        params = study.ask(SPACE.distributions).params
        assert SPACE.params(SPACE.indices(params)) == params
        assert SPACE.contains(SPACE.decode(SPACE.indices(params)))


# As a value and a file

TOML = """
name = "darts-like"
kind = "cell"
pairs = 4
ops = "darts"
concat = "all"

[skeleton]
cells = [2, 2, 2]
filters = 16
stem_filters = [16]
stem_cells = 1
"""


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "cells.toml"
    path.write_text(TOML)
    space = load_space(str(path))
    assert (space.pairs, space.ops, space.concat) == (4, OP_SETS["darts"], "all")
    assert space.skeleton == CellSkeleton(
        cells=(2, 2, 2), filters=16, stem_filters=(16,), stem_cells=1, dropout=0.2, bn_momentum=0.01
    )
    assert space.skeleton.output_stride == 16
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert isinstance(space.decode(vectors(space, 1)[0]), CellArch)
    assert space_from_toml('name = "cell"\nkind = "cell"') == SPACE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs = 0", "pairs must be an integer from 1 to 6, but got 0"),
        ("pairs = 2.5", "pairs must be an integer from 1 to 6, but got 2.5"),
        ('ops = "mine"', "ops must be one of nasnet, pnas, darts, but got 'mine'"),
        ("ops = []", "ops must be a list of at least one operation, or the name of a set, but got []"),
        ('ops = ["sep3", "sep4"]', "an op must be one of identity, conv1x3"),
        ('ops = ["sep3", "sep3"]', "ops must not repeat an operation, but got sep3, sep3"),
        ("ops = 3", "ops must be a list of at least one operation, or the name of a set, but got 3"),
        ('concat = "none"', "concat must be one of unused, all, chosen, but got 'none'"),
        ("choices = 3", "a space has no key choices; its keys are name, skeleton, pairs, ops, concat, kind"),
        ("[skeleton]\nlayers = [1]", "[skeleton] has no key layers; its keys are cells, filters, stem_filters"),
        ("[skeleton]\nfilters = 2", "filters must be an integer from 4 to 2048, but got 2"),
    ],
)
def test_what_a_file_may_not_say(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        space_from_toml('name = "a"\nkind = "cell"\n' + text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(OPS)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["name", "kind", "pairs", "ops", "concat", "skeleton", "cells", "filters", "stem_filters", "stem_cells"]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(KEYS), json_value), min_size=1, max_size=3))
def test_fuzz_changed_values(changes):
    """The parser returns a space or raises ValueError on one line."""
    values = SPACE.to_dict()
    for inside, key, value in changes:
        skeleton = values.get("skeleton")
        (skeleton if inside and isinstance(skeleton, dict) else values)[key] = value
    try:
        space = space_from_dict(values)
    except ValueError as error:
        message = str(error)
    else:
        message = "a space"
        assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert len(message.splitlines()) == 1
