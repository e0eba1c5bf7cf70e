"""Benchmarks that replace training and measuring: Accel-NASBench from its file, and tables."""

import io
import itertools
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mnas.evaluate.accel_nasbench import DEVICES, SPACE, accel_nasbench
from mnas.evaluate.table import read_table
from mnas.nn.cost import cost
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.named import SPACES
from mnas.space.skeleton import Skeleton
from mnas.zoo.architectures import named_arch

ANB = Path(__file__).parents[3] / "shared" / "data" / "anb" / "anb_dataset_jsons.tar.gz"
needs_anb = pytest.mark.skipif(not ANB.exists(), reason="Accel-NASBench's file is not in ../shared/data/anb")


# Accel-NASBench


@pytest.fixture(scope="module")
def anb():
    return accel_nasbench(ANB)


def their_rows(count: int):
    with tarfile.open(ANB) as archive:
        files = [member for member in archive if member.isfile()]
        for member in files[:: len(files) // count]:
            yield json.load(archive.extractfile(member))


def our_indices(architecture: dict) -> list[int]:
    """Return the indices of one of the authors' rows: expansion, kernel, SE, skip, filters, layers of each block."""
    return [
        index
        for block in range(7)
        for index in (
            {1: 0, 4: 1, 6: 2}[architecture[f"block{block}_e"]],
            {3: 0, 5: 1}[architecture[f"block{block}_k"]],
            int(architecture[f"block{block}_se"]),
            0,
            0,
            architecture[f"block{block}_l"] - 1,
        )
    ]


@needs_anb
def test_the_space_has_their_networks():
    """Equal parameters prove widths, SE and classifier; equal multiply-adds prove strides."""
    for row in their_rows(150):
        costs = cost(SPACE.decode(our_indices(row["architecture"])), 224, 1000)
        assert costs.params == round(row["model_info"]["params"] * 1e6)
        # the authors' also count batch norms: 3 to 15 % more, never less
        assert 1.03 < row["model_info"]["macs"] * 1e6 / costs.macs < 1.15


def test_the_space_is_theirs_in_size_and_says_what_is_in_it():
    assert SPACE.size == SPACE.distinct == (3 * 2 * 2 * 3) ** 6 * (3 * 2 * 2 * 4) == 104_485_552_128
    assert not SPACE.contains(named_arch("mobilenetv2"))
    assert not SPACE.contains(named_arch("mnasnet-a1"))
    b0 = SPACE.decode([2, 0, 1, 0, 0, 1] * 7)
    assert SPACE.encode(b0) == (2, 0, 1, 0, 0, 1) * 7


@needs_anb
def test_held_out_rows_are_predicted_as_well_as_the_authors_do(anb):
    assert anb.accuracy_of.tested == anb.cost_of.tested == 512
    assert anb.accuracy_of.kendall_tau >= 0.90
    assert anb.cost_of.kendall_tau >= 0.94
    assert anb.accuracy_of.r2 >= 0.97
    assert anb.notes == (
        "accel-nasbench: 5,138 rows, top-1 after 16 epochs against latency_zcu102",
        "authors' split: 4,612 rows to learn from, 512 held out; 14 rows in none of its parts are left out",
        "latency_zcu102 is null in 2 rows, which are left out",
        f"top-1: {anb.accuracy_of.describe()}",
        f"latency_zcu102: {anb.cost_of.describe()}",
    )


@needs_anb
def test_scores_are_near_what_was_measured(anb):
    rows = [row for row in their_rows(200) if row["platform_perf"]["latency_zcu102"]["latency_mean"]]
    accuracies, costs = anb.score(np.array([our_indices(row["architecture"]) for row in rows]))
    measured = np.array([row["platform_perf"]["latency_zcu102"]["latency_mean"] for row in rows])
    assert np.abs(accuracies - [row["metrics"]["val_top1"] / 100 for row in rows]).mean() < 0.003
    assert np.abs(costs / measured - 1).mean() < 0.02


def test_the_same_file_gives_the_same_scores_also_where_they_are_sent_to(tmp_path):
    found = accel_nasbench(made(tmp_path))
    rng = np.random.default_rng(1)
    indices = np.stack([rng.integers(len(d.choices), size=500) for d in found.space.values()], 1)
    again, sent = accel_nasbench(made(tmp_path)), pickle.loads(pickle.dumps(found))
    assert again.content == found.content
    for other in (again, sent):
        for one, two in zip(found.score(indices), other.score(indices), strict=True):
            assert one.tobytes() == two.tobytes()
    alone = np.array([found.score(indices[i : i + 1])[1][0] for i in range(20)])
    assert alone.tobytes() == found.score(indices)[1][:20].tobytes()


@needs_anb
def test_efficientnet_b0_is_a_member(anb):
    blocks = SPACE.decode(anb.members["efficientnet-b0"]).blocks
    assert [(b.expansion, b.kernel, b.layers, b.se_ratio) for b in blocks] == [
        (1, 3, 1, 0.25),
        (6, 3, 2, 0.25),
        (6, 5, 2, 0.25),
        (6, 3, 3, 0.25),
        (6, 5, 3, 0.25),
        (6, 5, 4, 0.25),
        (6, 3, 1, 0.25),
    ]


def made(folder: Path, changes: dict[int, object] | None = None, count: int = 120) -> Path:
    """Write a file in Accel-NASBench's format with synthetic values, and some rows replaced (by bytes if given)."""
    rng = np.random.default_rng(0)
    path = folder / "anb.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number in range(count):
            architecture: dict[str, object] = {}
            for block in range(7):
                architecture |= {
                    f"block{block}_e": int(rng.choice([1, 4, 6])),
                    f"block{block}_k": int(rng.choice([3, 5])),
                    f"block{block}_l": int(rng.integers(1, 5 if block == 5 else 4)),
                    f"block{block}_se": bool(rng.integers(2)),
                }
            work = float(sum(v for k, v in architecture.items() if k[-1] in "el"))
            row = {
                "architecture": architecture,
                "metrics": {"val_top1": 40 + work / 4},
                "platform_perf": {
                    device: {f"{device.split('_')[0]}_mean": work if device[0] == "l" else 1000 / work}
                    for device in DEVICES
                },
            }
            row = (changes or {}).get(number, row)
            data = row if isinstance(row, bytes) else json.dumps(row(row) if callable(row) else row).encode()
            info = tarfile.TarInfo(f"./anb_dataset_jsons/result_{number}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def row_of(path: Path, number: int) -> dict:
    with tarfile.open(path) as archive:
        return json.load(archive.extractfile(f"./anb_dataset_jsons/result_{number}.json"))


def test_without_the_authors_split_a_tenth_is_held_out(tmp_path):
    found = accel_nasbench(made(tmp_path), "throughput_a100")
    assert found.cost_unit == "ms/image"
    assert found.accuracy_of.tested == 12
    assert "a tenth of the networks is held out instead of the authors' test split" in found.notes[1]
    # a throughput of 1000 / work images per second is `work` ms per image, like the other device's latency
    assert found.cost_of.kendall_tau == accel_nasbench(tmp_path / "anb.tar.gz").cost_of.kendall_tau


def test_nulls_are_left_out_and_doubles_are_averaged(tmp_path):
    path = made(tmp_path)
    null, double = row_of(path, 3), row_of(path, 4)
    null["platform_perf"]["latency_zcu102"]["latency_mean"] = None
    double["metrics"]["val_top1"] += 2
    path = made(tmp_path, {3: null, 5: double})
    found = accel_nasbench(path)
    assert "latency_zcu102 is null in 1 rows, which are left out" in found.notes
    assert "1 rows repeat a network, which gets their mean" in found.notes
    assert found.content != accel_nasbench(made(tmp_path)).content


def test_a_device_that_is_null_in_all_rows(tmp_path):
    path = made(tmp_path, count=30)
    keys = ("platform_perf", "latency_zcu102", "latency_mean")
    nulls = {number: changed(row_of(path, number), None, *keys) for number in range(30)}
    with pytest.raises(
        ValueError, match=r"anb\.tar\.gz: at least one row must have a value of latency_zcu102, but all 30 have null"
    ):
        accel_nasbench(made(tmp_path, nulls, count=30))


def without(row: dict, *keys: str) -> dict:
    inner = row
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return row


def changed(row: dict, value: object, *keys: str) -> dict:
    inner = row
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: without(r, "architecture", "block3_k"), "result_7.json is not a row of Accel-NASBench: 'block3_k'"),
        (lambda r: without(r, "metrics"), "result_7.json is not a row of Accel-NASBench: 'metrics' is missing"),
        (lambda r: without(r, "platform_perf", "latency_zcu102"), "'latency_zcu102' is missing"),
        (lambda r: changed(r, 5, "architecture", "block0_e"), "block0_e must be one of 1, 4, 6, but got 5"),
        (lambda r: changed(r, 4, "architecture", "block0_l"), "block0_l must be one of 1, 2, 3, but got 4"),
        (lambda r: changed(r, "62", "metrics", "val_top1"), "val_top1 must be a number from 0 to 100, but got '62'"),
        (lambda r: changed(r, None, "metrics", "val_top1"), "val_top1 must be a number from 0 to 100, but got None"),
        (lambda r: changed(r, {"latency_mean": -1}, "platform_perf", "latency_zcu102"), "number above 0 or null"),
        (lambda r: [1], "result_7.json is not a row of Accel-NASBench"),
        (lambda r: b"{", "result_7.json: Expecting property name"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    row = change(row_of(made(tmp_path), 7))
    with pytest.raises(ValueError, match=r"anb\.tar\.gz") as raised:
        accel_nasbench(made(tmp_path, {7: row}))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_benchmark(tmp_path):
    (tmp_path / "text").write_text("not a tar")
    (tmp_path / "cut.tar.gz").write_bytes(made(tmp_path).read_bytes()[:2000])
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name in ("text", "cut.tar.gz"):
        with pytest.raises(ValueError, match=r"cannot be read as anb_dataset_jsons.tar.gz"):
            accel_nasbench(tmp_path / name)
    with pytest.raises(ValueError, match=r"must contain a \.json file for each network, but it has none"):
        accel_nasbench(tmp_path / "empty.tar")
    with pytest.raises(FileNotFoundError):
        accel_nasbench(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^--device must be one of latency_zcu102, .*, but got 'pixel'"):
        accel_nasbench(tmp_path / "text", "pixel")


def test_a_split_that_does_not_fit(tmp_path):
    path = made(tmp_path)
    (tmp_path / "split").mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / "split" / f"{part}_paths.json").write_text(json.dumps(["a/result_1.json"]))
    (tmp_path / "split" / "val_paths.json").write_text('["b/result_999.json"]')
    with pytest.raises(ValueError, match=r"val_paths.json lists result_999.json, which is not among the rows"):
        accel_nasbench(path)
    (tmp_path / "split" / "val_paths.json").write_text("{")
    with pytest.raises(ValueError, match=r"val_paths.json must be a list of paths in JSON"):
        accel_nasbench(path)


def test_indices_that_are_none(tmp_path):
    found = accel_nasbench(made(tmp_path))
    with pytest.raises(ValueError, match=r"of shape \(N, 42\), but got int64 \(2, 3\)"):
        found.score(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"block1.op must be from 0 to 2, but got 3"):
        found.score(np.array([[3, *[0] * 41]]))
    assert found.score(np.zeros((0, 42), int))[0].shape == (0,)


# Tables

OPS, KERNELS = ("conv", "mbconv"), (3, 5, 7)


def write_csv(path: Path, rows, header="op,kernel,accuracy,cost") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def complete():
    return [(op, k, 0.5 + 0.1 * i + 0.01 * k, 1.0 + i + k) for i, op in enumerate(OPS) for k in KERNELS]


def test_a_complete_table_is_looked_up(tmp_path):
    rows = complete()
    found = read_table(write_csv(tmp_path / "t.csv", reversed(rows)))
    assert {name: d.choices for name, d in found.space.items()} == {"op": OPS, "kernel": KERNELS}
    indices = [(OPS.index(op), KERNELS.index(k)) for op, k, _, _ in rows]
    accuracies, costs = found.score(np.array(indices))
    assert accuracies.tolist() == [row[2] for row in rows]
    assert costs.tolist() == [row[3] for row in rows]
    assert found.notes == (
        "t.csv: 6 rows, 2 decisions",
        "complete: all 6 combinations have a row, so values are looked up",
    )
    assert (found.name, found.cost_unit) == ("t", "cost")


def test_rows_of_the_same_choices_have_their_mean(tmp_path):
    found = read_table(write_csv(tmp_path / "t.csv", [*complete(), ("conv", 3, 0.93, 8.0), ("conv", 3, 0.13, 6.0)]))
    assert "2 repeated rows; each combination gets the mean of its rows" in found.notes
    accuracies, costs = found.score(np.array([[0, 0]]))
    assert accuracies[0] == pytest.approx((0.53 + 0.93 + 0.13) / 3)
    assert costs[0] == pytest.approx((4 + 8 + 6) / 3)


def test_a_table_with_holes_is_predicted(tmp_path):
    rows = [
        (*c, 0.3 + 0.05 * c[0] + 0.1 * (c[1] == "b") + 0.01 * c[2] * c[3], 1.0 + c[2] + c[3])
        for c in itertools.product(range(4), "abc", range(4), range(4))
    ]
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(192)]
    rows, holes = mixed[:144], mixed[144:]
    found = read_table(write_csv(tmp_path / "t.csv", rows, "x,letter,y,z,accuracy,cost"))
    accuracies, costs = found.score(np.array([[r[0], "abc".index(r[1]), r[2], r[3]] for r in holes]))
    assert np.abs(accuracies - [r[4] for r in holes]).max() < 0.05
    assert np.abs(costs / [r[5] for r in holes] - 1).max() < 0.1
    assert found.notes[1] == "144 of 192 combinations have a row, so values are predicted"
    assert found.accuracy_of.tested == 14
    assert found.notes[2] == f"accuracy: {found.accuracy_of.describe()}"


def test_a_small_table_with_a_hole_is_predicted_by_more_than_its_mean(tmp_path):
    sizes = list(itertools.product(range(6), range(6)))
    rows = [(a, b, 0.5 + a / 20, 2.0 + b) for a, b in sizes]
    found = read_table(write_csv(tmp_path / "t.csv", rows[:-1], "a,b,accuracy,cost"))
    accuracies, costs = found.score(np.array([[0, 0], [4, 4]]))
    assert accuracies[1] > accuracies[0] + 0.1
    assert costs[1] > costs[0] * 1.5
    assert "nan" not in " ".join(found.notes)


def test_columns_of_other_names_percent_and_ignored(tmp_path):
    rows = [(f"n{i}", op, k, 100 * a, c) for i, (op, k, a, c) in enumerate(complete())]
    path = write_csv(tmp_path / "t.csv", rows, "id,op,kernel,top1,ms")
    found = read_table(path, accuracy="top1", cost="ms", ignore=("id",), percent=True)
    assert list(found.space) == ["op", "kernel"]
    assert found.cost_unit == "ms"
    assert found.score(np.array([[1, 2]]))[0][0] == pytest.approx(0.67)
    plain = read_table(write_csv(tmp_path / "u.csv", complete()))
    assert read_table(write_csv(tmp_path / "v.csv", complete())).content == plain.content


def test_parquet_is_the_same(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(("op", "kernel", "accuracy", "cost"), map(list, zip(*complete(), strict=True)), strict=True))
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert found.content == read_table(write_csv(tmp_path / "t.csv", complete())).content
    columns["cost"][4] = None
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet: row 5: cost must be a number above 0, but got nothing"):
        read_table(tmp_path / "t.parquet")
    parquet.write_table(pa.table([[1], [2], [0.5]], ["op", "op", "accuracy"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="columns must have different names, but got 'op'"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"must be a Parquet file, but it cannot be read"):
        read_table(tmp_path / "t.parquet")


def test_the_choices_of_a_space(tmp_path):
    space = SPACES["mnasnet"]
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        row = [d.choices[rng.integers(len(d.choices))] for d in space.decisions]
        rows.append((*row, 0.5 + 0.01 * row[1], 1.0 + row[1] + row[7]))
    header = ",".join([*space.distributions, "accuracy", "cost"])
    found = read_table(write_csv(tmp_path / "t.csv", rows, header), space=space)
    assert found.space == space.distributions
    assert found.networks is space
    rows[9] = ("mbconv4", *rows[9][1:])
    with pytest.raises(ValueError, match=r"line 11: block1.op must be one of conv, .*mbconv6, but got 'mbconv4'"):
        read_table(write_csv(tmp_path / "t.csv", rows, header), space=space)
    with pytest.raises(
        ValueError,
        match=r"^--space must have a column for each of its decisions in .*t\.csv \(block1.op, .* and 24 more\), "
        r"which has none for 'block7\.layers'$",
    ):
        read_table(write_csv(tmp_path / "t.csv", rows, header.replace("block7.layers", "depth")), space=space)


def test_a_table_of_universal_inverted_bottlenecks(tmp_path):
    space = SPACES["mobilenetv4"]
    columns = list(space.distributions)
    rng = np.random.default_rng(0)
    members = [[rng.integers(len(d.choices)) for d in space.decisions] for _ in range(60)]
    rows = []
    for member in members:
        params = space.params(member)
        rows.append((*params.values(), 0.5 + 0.01 * params["block5.start_kernel"], 1.0 + params["block5.kernel"]))
    assert {row[columns.index("block1.skip")] for row in rows} == {"none"}
    found = read_table(write_csv(tmp_path / "t.csv", rows, ",".join([*columns, "accuracy", "cost"])), space=space)
    assert found.space == space.distributions
    assert found.networks is space


def test_choices_of_true_and_false(tmp_path):
    choices = BlockChoices(
        op=("mbconv2",), kernel=(3,), se_ratio=(0.0,), skip=("none",), filters=(1.0,), layers=(0,),
        projection_activation=(False, True),
    )  # fmt: skip
    skeleton = Skeleton(filters=(8,), layers=(1,), strides=(1,))
    space = FactorizedSpace(name="own", skeleton=skeleton, block_choices=(choices,))
    header = ",".join([*space.distributions, "accuracy", "cost"])
    for false, true in [(False, True), ("false", "true")]:
        rows = [
            ("mbconv2", 3, 0.0, "none", 1.0, 0, act, 0.5 + cost / 10, cost) for act, cost in ((false, 1), (true, 2))
        ]
        found = read_table(write_csv(tmp_path / "t.csv", rows, header), space=space)
        assert found.cost_of(np.array([[0] * 7, [0] * 6 + [1]])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have at least one row, but it has none"),
        ("op,accuracy,cost\n", "must have at least one row, but it has none"),
        ("op,accuracy,latency\nconv,0.5,1\n", "t.csv (op, accuracy, latency), but got 'cost'"),
        ("accuracy,cost\n0.5,1\n", "there must be a column for each decision, but got only accuracy, cost"),
        ("op,op,accuracy,cost\n1,2,3,4\n", "columns must have different names, but got 'op'"),
        ("op,accuracy,cost\nconv,0.5\n", "line 2 must have 3 values, but got 2"),
        ("op,accuracy,cost\na,0.5,1\nb,0.5,\n", "line 3: cost must be a number above 0, but got nothing"),
        ('op,accuracy,cost\n\n"a\nb",0.5,1\n\nb,0.5,\n', "line 6: cost must be a number above 0, but got nothing"),
        ("op,accuracy,cost\na,0.5,1\nb,0.5,0\n", "line 3: cost must be a number above 0, but got 0"),
        ("op,accuracy,cost\na,0.5,1\nb,0.5,inf\n", "line 3: cost must be a number above 0, but got inf"),
        ("op,accuracy,cost\na,0.5,1\nb,good,1\n", "line 3: accuracy must be a number from 0 to 1, but got 'good'"),
        (
            "op,accuracy,cost\na,0.5,1\nb,93.2,1\n",
            "line 3: accuracy must be a number from 0 to 1, but got 93.2; use --percent if",
        ),
        ("op,accuracy,cost\na,0.5,1\n,0.5,1\n", "line 3: op must be one of a, but got nothing"),
        ("id,accuracy,cost\n" + "\n".join(f"n{i},0.5,1" for i in range(101)), "leave it out with --ignore id"),
        ("op,accuracy,cost,x\na,0.5,1,2\nb,0.5,1,3\n", "must have a row for each of its 4 combinations of choices"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv") as raised:
        read_table(tmp_path / "t.csv")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_needed_cannot_be_ignored(tmp_path):
    path = write_csv(tmp_path / "t.csv", complete())
    with pytest.raises(ValueError, match="--ignore must name other columns than --accuracy and --cost, but got 'cost'"):
        read_table(path, ignore=("cost",))


def test_what_is_no_table(tmp_path):
    for content in (b"\x89PNG\x00\x00", b"a,b\n\x00,1\n", b"\xff\xfe\xff"):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ValueError, match="is not a CSV file"):
            read_table(tmp_path / "t.csv")
