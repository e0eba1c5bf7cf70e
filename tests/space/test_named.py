"""Spaces from TOML files: valid content, and one clear line for everything else."""

import json
import random
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnas.space.factorized import BlockChoices
from mnas.space.named import SPACES, load_space, space_from_dict, space_from_toml

TOML = """
name = "wide-kernels"

[skeleton]
stem_filters = 16
filters = [16, 24, 40]
layers = [1, 2, 3]
strides = [1, 2, 2]
head_filters = 640
activation = "relu6"

[choices]
kernel = [3, 5, 7]
se_ratio = [0, 0.25]

[block.3]
op = ["mbconv4", "mbconv32"]
filters = [1.0, 1.5]
layers = [0, 2]
"""


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(TOML)
    space = load_space(str(path))
    assert (space.name, space.skeleton.activation, space.skeleton.output_stride) == ("wide-kernels", "relu6", 8)
    assert space.block_choices[0] == space.block_choices[1] == BlockChoices(kernel=(3, 5, 7))
    assert space.block_choices[2] == BlockChoices(
        op=("mbconv4", "mbconv32"), kernel=(3, 5, 7), filters=(1.0, 1.5), layers=(0, 2)
    )
    assert space.size == 648**2 * 2 * 3 * 2 * 3 * 2 * 2
    arch = space.decode([len(d.choices) - 1 for d in space.decisions])
    assert arch.block_strings[2] == "r5_k7_s22_e32_i32_o60_se0.25_noskip"
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space


UIB_TOML = """
name = "uib"

[skeleton]
filters = [16, 24]
layers = [1, 2]
strides = [2, 2]
activation = "hardswish"
head_pooled = true
head_norm = false

[choices]
op = ["uib4", "uib4.5"]
kernel = [0, 3]
start_kernel = [0, 5]

[block.1]
op = ["fused1", "mbconv2.25"]
kernel = [3]
activation = ["relu", "network"]
projection_activation = [true, false]
se_gate = ["hardsigmoid"]
se_width = ["middle"]
"""


def test_every_field_of_a_block_in_a_file():
    space = space_from_toml(UIB_TOML)
    assert space.skeleton.head_pooled
    names = [d.name for d in space.decisions if d.name.startswith("block1")]
    assert names[5:] == ["block1.layers", "block1.start_kernel", "block1.activation", "block1.projection_activation"]
    assert space.size == 2**5 * 3**3 * 2**4 * 3**3
    arch = space.decode([len(d.choices) - 1 for d in space.decisions])
    assert arch.block_strings == (
        "r2_k3_s22_e2.25_i32_o20_se0.25_semid_sehard_noskip",
        "r3_a5_k3_s22_e4.5_i20_o32_se0.25_noskip_uib",
    )
    assert (arch.activation, arch.head_pooled, arch.head_norm) == ("hardswish", True, False)
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert space_from_toml('kind = "per-layer"' + UIB_TOML).size == 2**5 * 3**2 * (2**4 * 3**2) ** 2


def test_a_space_that_a_function_returns(tmp_path, monkeypatch):
    (tmp_path / "own_spaces.py").write_text(
        "from dataclasses import replace\n"
        "from mnas.space.named import SPACES\n"
        "def small():\n    return replace(SPACES['mnasnet'], name='small')\n"
        "def wrong():\n    return {}\n"
        "def broken():\n    raise KeyError('no\\nluck')\n"
    )
    monkeypatch.chdir(tmp_path)
    space = load_space("own_spaces:small")
    assert space == space_from_dict(json.loads(json.dumps(space.to_dict())))
    assert space.name == "small"
    for name, message in [
        ("own_spaces:wrong", "^--space own_spaces:wrong must return a FactorizedSpace, .* but got dict"),
        ("own_spaces:broken", r"^--space own_spaces:broken: calling broken failed: KeyError: 'no\\nluck'"),
        ("own_spaces:absent", "^--space own_spaces:absent: module own_spaces has no attribute absent"),
        (
            "no_such_module:x",
            "^--space no_such_module:x: module no_such_module cannot be imported: ModuleNotFoundError",
        ),
        ("mnasnets", r"--space must be one of .* or module:factory, but got 'mnasnets' \(did you mean mnasnet\?\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_space(name)


def test_a_name_is_enough():
    assert space_from_toml('name = "mnasnet"') == SPACES["mnasnet"]
    assert load_space("mnasnet-no-se") is SPACES["mnasnet-no-se"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a space must have a name"),
        ('name = "a"\ncolour = "red"', "a space has no key colour; its keys are name, skeleton, choices, block"),
        (
            'name = "a"\n[skeleton]\nwidth = 3',
            "[skeleton] has no key width; its keys are filters, layers, strides, stem_filters",
        ),
        (
            'name = "a"\n[choices]\nkernels = [3]',
            "[choices] has no key kernels; its keys are op, kernel, se_ratio, skip",
        ),
        ('name = "a"\n[block.3]\nkernels = [3]', "[block.3] has no key kernels; its keys are op"),
        ('name = "a"\n[block.8]\nkernel = [3]', "[block] has no key 8; its keys are 1, 2, 3, 4, 5, 6, 7"),
        ('name = "a"\n[block.03]\nkernel = [3]', "[block] has no key 03"),
        ('name = "a"\n[[block]]\nkernel = [3]', "[block] must be a table, but got [{'kernel': [3]}]"),
        ('name = "a"\nskeleton = 3', "[skeleton] must be a table, but got 3"),
        ("name = 3", "name must be 1 to 100 characters on one line, but got 3"),
        ('name = ""', "name must be 1 to 100 characters on one line"),
        ('name = "a\\nb"', "name must be 1 to 100 characters on one line"),
        ('name = "a"\n[skeleton]\nfilters = [16]', "must have one number for each block, but got 1, 7 and 7"),
        ('name = "a"\n[skeleton]\nfilters = ["x",24,32,64,96,160,320]', "block 1 of the skeleton: filters must be an"),
        ('name = "a"\n[choices]\nkernel = 3', "[choices]: kernel must be a list of at least one choice, but got 3"),
        ('name = "a"\n[choices]\nkernel = [4]', "[choices]: kernel must be one of 0, 1, 3, 5, 7, but got 4"),
        (
            'name = "a"\n[block.2]\nkernel = [0]',
            "block 2: kernel must be one of 1, 3, 5, 7 where op offers conv, but got 0",
        ),
        ('name = "a"\n[block.2]\nstart_kernel = [1]', "[block.2]: start_kernel must be one of 0, 3, 5, 7, but got 1"),
        (
            'name = "a"\n[choices]\nse_gate = [true]',
            "[choices]: se_gate must be one of sigmoid, hardsigmoid, but got True",
        ),
        ('name = "a"\n[choices]\nfilters = [nan]', "[choices]: a choice of filters must be a number"),
        ('name = "a"\n[block.2]\nskip = [1979-05-27]', "[block.2]: skip must be one of identity, pool, none, but got"),
        ('name = "a"\n[skeleton]\ndropout = inf', "dropout must be a number from 0 to 0.99, but got inf"),
        ('name = "a"\nname = "b"', "not valid TOML: Cannot overwrite a value"),
        ("[[[", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("a = " + "1" * 5000, "not valid TOML"),
    ],
)
def test_what_a_file_may_not_say(tmp_path, text, message):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the message is compared below)
        load_space(str(path))
    assert str(error.value).startswith(f"space file {str(path)!r}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"space file '.*none.toml' cannot be read: No such file or directory"):
        load_space(str(tmp_path / "none.toml"))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_space(str(folder))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be UTF-8 text"):
        load_space(str(binary))
    assert stat.S_ISREG(binary.stat().st_mode)


def test_unknown_names():
    with pytest.raises(
        ValueError,
        match=r"one of mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell, the .*'mnasnt' \(did you mean mnasnet",
    ):
        load_space("mnasnt")
    for name in ("", "x" * 5000, "a\0b"):
        with pytest.raises(ValueError, match="--space must be one of mnasnet"):
            load_space(name)


# Fuzz: the parser returns a space or raises ValueError on one line


def parse(read, text):
    try:
        space = read(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "a space"
        assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert len(message.splitlines()) == 1


@given(st.text())
def test_fuzz_toml_text(text):
    parse(space_from_toml, text)


@settings(max_examples=200)
@given(
    st.integers(0, len(TOML)),
    st.integers(0, 12),
    st.one_of(st.text(max_size=6), st.sampled_from(["[", "]", '"', "=", "0", "-", "e9", "true", "\n"])),
)
def test_fuzz_edited_toml(start, length, inserted):
    parse(space_from_toml, TOML[:start] + inserted + TOML[start + length :])


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.datetimes(), st.times()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
near = st.one_of(
    json_value, st.lists(st.one_of(st.sampled_from([0, 1, 3, 5, 7, 0.25, "conv", "mbconv6", "none"]), json_value))
)
KEYS = [
    "start_kernel",
    "se_gate",
    "name",
    "skeleton",
    "choices",
    "block",
    "op",
    "kernel",
    "se_ratio",
    "skip",
    "filters",
    "layers",
    "strides",
    "2",
]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.randoms(use_true_random=False), st.sampled_from(KEYS), near), min_size=1, max_size=3))
def test_fuzz_changed_values(changes):
    values = space_from_toml(TOML).to_dict()
    for rng, key, value in changes:
        tables = [t for t in (values, *values.values(), values.get("block", {})) if isinstance(t, dict)]
        rng.choice(tables)[key] = value
    parse(space_from_dict, values)


def test_fuzz_keeps_finding_spaces():
    """The changes above are close enough to valid files to reach both outcomes of the parser."""
    rng, read = random.Random(0), 0
    for _ in range(200):
        values = space_from_toml(TOML).to_dict()
        table = rng.choice([values["skeleton"], values["choices"]])
        key = rng.choice(list(table))
        table[key] = rng.choice([[3, 5], [1, 2, 2], 1, ["conv"], "relu"])
        try:
            space_from_dict(values)
            read += 1
        except ValueError:
            pass
    assert 10 < read < 190
