"""Networks of cells as values: every rule, the canonical form of a cell, text forms and fingerprints."""

import copy
import itertools
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnas.arch import Arch
from mnas.architecture import architecture_from_dict, architecture_from_json
from mnas.cell_arch import MAX_PAIRS, OPS, Cell, CellArch, CellSkeleton, Pair, unused_states
from mnas.zoo.architectures import named_arch
from mnas.zoo.cells import CELL_NETWORKS

NASNET_A = CELL_NETWORKS["nasnet-a"][0]
PAIRS = ((0, "sep3", 1, "max3"), (2, "conv1", 0, "identity"))


def random_cell(rng: random.Random, pairs: int | None = None) -> Cell:
    """Any valid cell, not only members of a space."""
    drawn = []
    for number in range(1, (pairs or rng.randint(1, 5)) + 1):
        drawn.append(Pair(rng.randint(0, number), rng.choice(OPS), rng.randint(0, number), rng.choice(OPS)))
    free = [state for state in range(len(drawn) + 2) if rng.random() < 0.3]
    return Cell(pairs=tuple(drawn), concat=tuple(sorted({*free, *unused_states(drawn)})))


def random_arch(rng: random.Random) -> CellArch:
    stem = rng.randint(1, 3)
    skeleton = CellSkeleton(
        cells=tuple(rng.randint(0, 2) for _ in range(rng.randint(2, 4))),
        filters=rng.choice([4, 7, 11, 44]),
        stem_filters=tuple(rng.choice([3, 8, 32]) for _ in range(stem)),
        stem_strides=tuple(rng.choice([1, 2]) for _ in range(stem)),
        stem_cells=rng.randint(0, 2),
        dropout=rng.choice([0.0, 0.5]),
        bn_epsilon=rng.choice([1e-3, 1e-5]),
        bn_momentum=rng.choice([3e-4, 0.1]),
    )
    return CellArch(normal=random_cell(rng), reduction=random_cell(rng), skeleton=skeleton)


def reordered(cell: Cell, rng: random.Random) -> Cell:
    """Return the same cell with its pairs in another order, and the branches of some exchanged."""
    places, done = {0: 0, 1: 1}, []
    while len(done) < len(cell.pairs):
        free = [
            (state, pair)
            for state, pair in enumerate(cell.pairs, 2)
            if state not in places and pair.input1 in places and pair.input2 in places
        ]
        state, pair = rng.choice(free)
        branches = [(places[pair.input1], pair.op1), (places[pair.input2], pair.op2)]
        rng.shuffle(branches)
        places[state] = len(done) + 2
        done.append(Pair(*branches[0], *branches[1]))
    return Cell(pairs=tuple(done), concat=tuple(sorted(places[state] for state in cell.concat)))


# Rules


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": ()}, f"a cell must have 1 to {MAX_PAIRS} pairs, but got 0"),
        ({"pairs": PAIRS[:1] * 7, "concat": (2,)}, f"a cell must have 1 to {MAX_PAIRS} pairs, but got 7"),
        ({"pairs": 3}, "pairs of a cell must be a list, but got 3"),
        ({"pairs": ((0, "sep3", 1),)}, "pair 1 must be [input, op, input, op], but got (0, 'sep3', 1)"),
        ({"pairs": ("abcd",)}, "pair 1 must be [input, op, input, op], but got 'abcd'"),
        ({"pairs": (PAIRS[0], (3, "conv1", 0, "identity"))}, "an input of pair 2 must be an integer from 0 to 2"),
        ({"pairs": (PAIRS[0], (2, "conv1", True, "sep3"))}, "an input of pair 2 must be an integer from 0 to 2"),
        ({"pairs": (PAIRS[0], (2, "conv9", 0, "sep3"))}, "an op of pair 2 must be one of identity, conv1x3, conv1x7"),
        ({"pairs": (PAIRS[0], (2, ["sep3"], 0, "sep3"))}, "an op of pair 2 must be one of identity, conv1x3"),
        ({"concat": 3}, "concat of a cell must be a list, but got 3"),
        ({"concat": ()}, "concat must name at least one state, in ascending order, but got []"),
        ({"concat": (3, 2)}, "concat must name at least one state, in ascending order, but got [3, 2]"),
        ({"concat": (3, 3)}, "concat must name at least one state, in ascending order, but got [3, 3]"),
        ({"concat": (4,)}, "a state in concat must be an integer from 0 to 3, but got 4"),
        ({"concat": (2,)}, "every state must be used by a later pair or by concat, but [3] are unused"),
    ],
)
def test_each_rule_of_a_cell_has_its_own_error(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the message is compared below)
        Cell(**{"pairs": PAIRS, "concat": (3,), **changed})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cells": 4}, "cells must be a list of 1 to 6 numbers, but got 4"),
        ({"cells": ()}, "cells must be a list of 1 to 6 numbers, but got ()"),
        ({"cells": (4, -1, 4)}, "each of cells must be an integer from 0 to 100, but got -1"),
        ({"cells": (50, 60, 4)}, "a network must have 1 to 100 cells, but got 118"),
        ({"cells": (0,), "stem_cells": 0}, "a network must have 1 to 100 cells, but got 0"),
        ({"filters": 3}, "filters must be an integer from 4 to 2048, but got 3"),
        ({"filters": 44.0}, "filters must be an integer from 4 to 2048, but got 44.0"),
        ({"stem_filters": (32, 32)}, "one number for each convolution, but got 2 and 1"),
        ({"stem_strides": (3,)}, "each of stem_strides must be an integer from 1 to 2, but got 3"),
        ({"stem_cells": 3}, "stem_cells must be an integer from 0 to 2, but got 3"),
        ({"dropout": 1}, "dropout must be a number from 0 to 0.99, but got 1"),
        ({"bn_epsilon": 0}, "bn_epsilon must be a number from 1e-09 to 1, but got 0"),
        ({"bn_momentum": "a"}, "bn_momentum must be a number from 1e-09 to 1, but got 'a'"),
    ],
)
def test_each_rule_of_a_skeleton_has_its_own_error(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CellSkeleton(**changed)
    assert message in str(error.value)


def test_fields_must_be_cells():
    with pytest.raises(ValueError, match="normal must be a Cell, but got None"):
        CellArch(normal=None, reduction=NASNET_A.reduction)
    with pytest.raises(ValueError, match="skeleton must be a CellSkeleton, but got 3"):
        replace(NASNET_A, skeleton=3)


# The stack of cells


def test_the_plan_of_nasnet_mobile():
    assert CellSkeleton().plan == (
        *(("reduction", 11), ("reduction", 22)),
        *[("normal", 44)] * 4,
        *[("reduction", 88), *[("normal", 88)] * 4],
        *[("reduction", 176), *[("normal", 176)] * 4],
    )
    assert CellSkeleton().output_stride == 32


def test_output_stride_takes_the_earliest_strides_out():
    found = {s: NASNET_A.with_output_stride(s) for s in (32, 16, 8, 4)}
    assert all(arch.output_stride == stride for stride, arch in found.items())
    stems = {s: (arch.skeleton.stem_strides, arch.skeleton.stem_cells) for s, arch in found.items()}
    assert stems == {32: ((2,), 2), 16: ((1,), 2), 8: ((1,), 1), 4: ((1,), 0)}
    darts = CELL_NETWORKS["darts-v2"][0].with_output_stride(8).skeleton
    assert (darts.stem_strides, darts.stem_filters) == ((1, 1, 2), (24, 48, 48))
    for bad in (64, 3, 0, -2, 8.0):
        with pytest.raises(ValueError, match="output stride must be"):
            NASNET_A.with_output_stride(bad)
    for bad in (2, 1):
        with pytest.raises(ValueError, match="must be at least 4 with 2 reduction cells between the stages, but got"):
            NASNET_A.with_output_stride(bad)


def test_widths_are_even():
    scaled = NASNET_A.scale_width(0.5).skeleton
    assert (scaled.filters, scaled.stem_filters) == (22, (16,))
    assert NASNET_A.scale_width(0.25).skeleton.filters == 12  # 11 would not be an even number
    assert NASNET_A.scale_width(0.01).skeleton.filters == 4
    assert NASNET_A.scale_width(1.0) == NASNET_A
    with pytest.raises(ValueError, match="width multiplier must be a number from"):
        NASNET_A.scale_width(0)


def test_input_must_not_be_smaller_than_the_strides():
    NASNET_A.check_input_size(32)
    with pytest.raises(ValueError, match="--input-size must be at least the output stride 32, but got 31"):
        NASNET_A.check_input_size(31)
    with pytest.raises(ValueError, match="--input-size must be an integer"):
        NASNET_A.check_input_size(32.5)


# The canonical form


def test_order_makes_no_difference():
    rng = random.Random(0)
    for _ in range(300):
        cell = random_cell(rng)
        canonical = cell.canonical()
        assert canonical.canonical() == canonical
        assert reordered(cell, rng).canonical() == canonical


def test_the_canonical_cell_is_the_first_of_all_that_are_the_same():
    """Compare with all orders of pairs and branches."""
    rng = random.Random(1)
    for _ in range(100):
        cell = random_cell(rng, pairs=rng.randint(1, 4))
        ways = set()
        for order in itertools.permutations(range(len(cell.pairs))):
            places = {0: 0, 1: 1, **{old + 2: new + 2 for new, old in enumerate(order)}}
            for turned in itertools.product((False, True), repeat=len(order)):
                pairs = []
                for old, turn in zip(order, turned, strict=True):
                    a, op_a, b, op_b = cell.pairs[old]
                    a, b = places[a], places[b]
                    pairs.append(Pair(b, op_b, a, op_a) if turn else Pair(a, op_a, b, op_b))
                if all(max(p.input1, p.input2) < state for state, p in enumerate(pairs, 2)):
                    ways.add(Cell(pairs=pairs, concat=tuple(sorted(places[s] for s in cell.concat))))
        assert cell in ways
        assert cell.canonical().indices == min(way.indices for way in ways)
        assert {way.canonical() for way in ways} == {cell.canonical()}


def test_what_does_make_a_difference():
    """Cells that a careless rule would confuse."""
    cells = [
        Cell(pairs=((0, "sep3", 1, "max3"), (0, "sep3", 2, "max3")), concat=(3,)),
        Cell(pairs=((0, "sep3", 1, "max3"), (0, "max3", 2, "sep3")), concat=(3,)),
        Cell(pairs=((0, "max3", 1, "sep3"), (0, "sep3", 2, "max3")), concat=(3,)),
        Cell(pairs=((0, "sep3", 1, "max3"), (0, "sep3", 2, "max3")), concat=(2, 3)),
        Cell(pairs=((0, "sep3", 1, "max3"), (0, "sep3", 1, "max3")), concat=(2, 3)),
        Cell(pairs=((0, "sep3", 1, "max3"),), concat=(2,)),
    ]
    assert len({cell.canonical() for cell in cells}) == len(cells)


# Text forms


def test_round_trips_of_random_architectures():
    rng = random.Random(0)
    for _ in range(200):
        arch = random_arch(rng)
        assert architecture_from_json(arch.to_json()) == arch
        assert CellArch.from_dict(copy.deepcopy(arch.to_dict())).fingerprint == arch.fingerprint
        assert pickle.loads(pickle.dumps(arch)) == arch
        assert arch.canonical().fingerprint == arch.fingerprint
        twin = replace(arch, normal=reordered(arch.normal, rng), reduction=reordered(arch.reduction, rng))
        assert twin.fingerprint == arch.fingerprint


def test_fingerprints_are_pinned():
    """Fingerprints are keys in studies: a change here loses cached results."""
    assert NASNET_A.fingerprint == "9475debaabc9e2ef"
    assert CELL_NETWORKS["darts-v2"][0].fingerprint == "257d3a3061738934"


def test_fingerprint_does_not_depend_on_the_process():
    code = "from mnas.zoo.architectures import named_arch; print(named_arch('nasnet-a').fingerprint)"
    for seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == NASNET_A.fingerprint


def test_json_says_which_kind_it_is():
    values = json.loads(NASNET_A.to_json())
    assert values["kind"] == "cell"
    assert architecture_from_dict(values) == NASNET_A
    blocks = named_arch("mnasnet-a1")
    assert "kind" not in json.loads(blocks.to_json())  # as in files from before cells existed
    assert architecture_from_json(blocks.to_json()) == blocks
    with pytest.raises(ValueError, match="kind must be cell, or absent for blocks, but got 'blocks'"):
        architecture_from_dict({**blocks.to_dict(), "kind": "blocks"})
    with pytest.raises(ValueError, match="architecture has unknown fields 'kind'"):
        Arch.from_dict(NASNET_A.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.update(depth=3),
            "architecture has unknown fields 'depth'; its fields are normal, reduction, skeleton",
        ),
        (lambda v: v.pop("normal"), "architecture lacks the fields normal"),
        (lambda v: v["normal"].pop("concat"), "normal cell lacks the fields concat"),
        (lambda v: v["reduction"].update(pair=3), "reduction cell has unknown fields 'pair'"),
        (lambda v: v.update(normal=[]), "normal cell must be a mapping of fields, but got []"),
        (lambda v: v["skeleton"].update(cells=None), "cells must be a list of 1 to 6 numbers, but got None"),
        (lambda v: v["normal"]["pairs"].append([0]), "pair 6 must be [input, op, input, op], but got [0]"),
        (lambda v: v["normal"]["concat"].append("7"), "a state in concat must be an integer from 0 to 6, but got '7'"),
    ],
)
def test_bad_json(change, message):
    values = NASNET_A.to_dict()
    change(values)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        architecture_from_json(json.dumps(values))
    assert message in str(error.value)


def test_text_that_is_no_json():
    for text in ("", "{", "[" * 100_000, b"\xff\xfe\x00", "1" * 5000):
        with pytest.raises(ValueError, match="must be JSON"):
            architecture_from_json(text)


# Fuzz: the parser returns an architecture or raises ValueError on one line


def parse(text):
    try:
        arch = architecture_from_json(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "an architecture"
        assert architecture_from_json(arch.to_json()) == arch
        assert arch.canonical().fingerprint == arch.fingerprint
    assert len(message.splitlines()) == 1


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(OPS)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
names = st.one_of(
    st.sampled_from(["kind", "normal", "reduction", "skeleton", "pairs", "concat", *CellSkeleton().to_dict()]),
    st.text(),
)
places = st.sampled_from([(), ("normal",), ("reduction",), ("skeleton",)])


@settings(max_examples=200)
@given(st.lists(st.tuples(places, names, json_value), min_size=1, max_size=3))
def test_fuzz_json_with_changed_fields(changes):
    values = NASNET_A.to_dict()
    for place, name, value in changes:
        target = values
        for key in place:
            target = target.get(key) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[name] = value
    parse(json.dumps(values))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["normal", "reduction"]), st.integers(0, 4), st.integers(0, 3), json_value),
        min_size=1,
        max_size=3,
    )
)
def test_fuzz_json_with_changed_pairs(changes):
    values = NASNET_A.to_dict()
    for cell, pair, place, value in changes:
        values[cell]["pairs"][pair][place] = value
    parse(json.dumps(values))
