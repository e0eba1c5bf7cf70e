"""Accel-NASBench: an MnasNet space on ImageNet, with latency and throughput of six accelerators.

Ahmad et al., "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS" (arXiv:2404.08005), and its file
`anb_dataset_jsons.tar.gz` (github.com/afzalxo/Accel-NASBench): 5,138 networks, trained for 16 epochs by a proxy scheme.
The authors predict all others by gradient-boosted trees, and mnas refits such trees on their rows.

The file does not describe the networks, but the authors' code does: EfficientNet-B0's widths and strides. All 5,138
`params` are reproduced exactly with squeeze-and-excitation at a quarter of a layer's input.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import itertools
import lzma
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mnas.evaluate.benchmark import Benchmark, Indices, Values
from mnas.evaluate.regressor import fit_regressor, hold_out
from mnas.readers import open_regular, parse_json, read_json
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.skeleton import Skeleton

DEVICES: dict[str, str] = {
    "latency_zcu102": "ms",
    "latency_vck190": "ms",
    "throughput_a100": "ms/image",
    "throughput_3090": "ms/image",
    "throughput_tpuv2": "ms/image",
    "throughput_tpuv3": "ms/image",
    "throughput_zcu102": "ms/image",
    "throughput_vck190": "ms/image",
}
"""Devices in the file -> unit of the cost; images per second become milliseconds per image."""

_LAYERS = (-1, 0, 1)
_CHOICES = BlockChoices(
    op=("sepconv", "mbconv4", "mbconv6"),
    kernel=(3, 5),
    se_ratio=(0.0, 0.25),
    skip=("identity",),
    filters=(1.0,),
    layers=_LAYERS,
)
SPACE = FactorizedSpace(
    name="accel-nasbench",
    skeleton=Skeleton(filters=(16, 24, 40, 80, 112, 192, 320), layers=(2,) * 7, strides=(1, 2, 2, 2, 1, 2, 1)),
    block_choices=tuple(
        BlockChoices(**{f.name: getattr(_CHOICES, f.name) for f in fields(_CHOICES)} | {"layers": (*_LAYERS, 2)})
        if block == 5
        else _CHOICES
        for block in range(7)
    ),
)
"""The authors' space as one of mnas; decisions that it lacks (skip, filters) have one choice."""

_FIELDS = ("e", "k", "se", "skip", "filters", "l")
"""The authors' names of a block's decisions, in the order of mnas."""
_THEIRS: dict[str, tuple[object, ...]] = {"e": (1, 4, 6), "k": (3, 5), "se": (False, True), "l": (1, 2, 3, 4)}
_MAX_ROW_BYTES = 1_000_000
_MAX_ARCHIVE_BYTES = 128 << 20
"""Maximum size of the archive, unpacked; the published one has 11 MB."""
_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}
"""First two bytes of a file -> function that unpacks it."""

MEMBERS = {
    # B0 in this space, from the authors' code, EfficientNetSS.efficientnet_b0 (its activation is another)
    "efficientnet-b0": (1, 6, 6, 6, 6, 6, 6, 3, 3, 5, 3, 5, 5, 3, 1, 2, 2, 3, 3, 4, 1),
}


@dataclass(frozen=True)
class _Row:
    indices: tuple[int, ...]
    accuracy: float
    cost: float | None


def accel_nasbench(path: Path, device: str = "latency_zcu102") -> Benchmark:
    """Return the benchmark of `anb_dataset_jsons.tar.gz` at `path`, top-1 accuracy against `device`.

    If the authors' `split/{train,val,test}_paths.json` is beside it, the trees learn from train and val, and test is
    held out; else a tenth of the networks is held out.

    Raises:
        ValueError: an unknown device, or a file of another kind; one line that names the place.
    """
    if device not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}, but got {device!r}")
    rows = _read_rows(path, device)
    if all(row.cost is None for row in rows.values()):
        raise ValueError(f"{path}: at least one row must have a value of {device}, but all {len(rows):,} have null")
    parts, notes = _read_split(path.parent / "split", rows)
    notes = [f"accel-nasbench: {len(rows):,} rows, top-1 after 16 epochs against {device}", *notes]
    indices, accuracies, costs, tested = _merged(rows, parts, device, notes)
    ordered = np.ones(indices.shape[1], bool)
    measured = ~np.isnan(costs)
    try:
        accuracy = fit_regressor(indices, accuracies, tested, ordered=ordered, logarithmic=False)
        cost = fit_regressor(indices[measured], costs[measured], tested[measured], ordered=ordered, logarithmic=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    digest = hashlib.sha256(device.encode())
    for array in (indices, accuracies, costs, tested):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Benchmark(
        name="accel-nasbench",
        space=SPACE.distributions,
        cost_unit=DEVICES[device],
        accuracy_of=accuracy,
        cost_of=cost,
        content=digest.hexdigest(),
        notes=(*notes, f"top-1: {accuracy.describe()}", f"{device}: {cost.describe()}"),
        networks=SPACE,
        members={name: _named(numbers) for name, numbers in MEMBERS.items()},
    )


def _read_rows(path: Path, device: str) -> dict[str, _Row]:
    """Return the rows by file name."""
    rows: dict[str, _Row] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpacked(path)), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse() or not member.name.endswith(".json"):
                    continue  # a link is not a row
                if member.size > _MAX_ROW_BYTES:
                    raise ValueError(f"{path}: {member.name} must be under 1 MB, but got {member.size:,} bytes")
                file = archive.extractfile(member)
                assert file is not None  # None stands for members that are no files
                name = Path(member.name).name
                try:
                    rows[name] = _row(parse_json(file.read(), _MAX_ROW_BYTES), device)
                except (KeyError, TypeError) as error:
                    raise ValueError(f"{path}: {name} is not a row of Accel-NASBench: {_missing(error)}") from None
                except ValueError as error:
                    raise ValueError(f"{path}: {name}: {' '.join(str(error).split())}") from None
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.strerror and error.filename:
            raise
        is_table = path.suffix.lower() in (".csv", ".parquet")
        hint = "; for a CSV or Parquet table, add --benchmark table" if is_table else ""
        raise ValueError(f"{path} cannot be read as anb_dataset_jsons.tar.gz ({error}){hint}") from None
    if not rows:
        raise ValueError(f"{path} must contain a .json file for each network, but it has none")
    return rows


def _unpacked(path: Path) -> bytes:
    """Return the archive without its compression; a limit on its size keeps a bomb from filling the memory."""
    with open_regular(path) as packed:
        opened = _PACKED.get(packed.read(2), contextlib.nullcontext)
        packed.seek(0)
        with opened(packed) as file:
            content: bytes = file.read(_MAX_ARCHIVE_BYTES + 1)
    if len(content) > _MAX_ARCHIVE_BYTES:
        raise ValueError(f"{path} must have at most {_MAX_ARCHIVE_BYTES:,} bytes unpacked, but it has more")
    return content


def _missing(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _row(values: Any, device: str) -> _Row:
    architecture = values["architecture"]
    indices = []
    for block, name in itertools.product(range(7), _FIELDS):
        if name in _THEIRS:
            key, choices = f"block{block}_{name}", _THEIRS[name][: 4 if name != "l" or block == 5 else 3]
            if architecture[key] not in choices or type(architecture[key]) is not type(choices[0]):
                raise ValueError(f"{key} must be one of {', '.join(map(str, choices))}, but got {architecture[key]!r}")
            indices.append(choices.index(architecture[key]))
        else:
            indices.append(0)
    top1 = values["metrics"]["val_top1"]
    if type(top1) not in (int, float) or not 0 <= top1 <= 100:
        raise ValueError(f"val_top1 must be a number from 0 to 100, but got {top1!r}")
    kind = device.split("_")[0]
    measured = values["platform_perf"][device][f"{kind}_mean"]
    if measured is not None and (type(measured) not in (int, float) or not 0 < measured < float("inf")):
        raise ValueError(f"{device} must be a number above 0 or null, but got {measured!r}")
    cost = None if measured is None else measured if kind == "latency" else 1000 / measured
    return _Row(tuple(indices), top1 / 100, cost)


def _read_split(folder: Path, rows: Mapping[str, _Row]) -> tuple[dict[str, bool], list[str]]:
    """Return file name -> whether it is held out, for the rows in use; and notes for the user."""
    if not folder.is_dir():
        names = sorted(rows, key=lambda name: (rows[name].indices, name))
        different = sorted({rows[name].indices for name in names})
        held = dict(zip(different, hold_out(len(different)).tolist(), strict=True))
        note = f"{folder} does not exist, so a tenth of the networks is held out instead of the authors' test split"
        return {name: held[rows[name].indices] for name in names}, [note]
    parts: dict[str, bool] = {}
    for part in ("train", "val", "test"):
        file = folder / f"{part}_paths.json"
        try:
            listed = [Path(name).name for name in read_json(file)]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{file} must be a list of paths in JSON, but got {' '.join(str(error).split())}"
            ) from None
        for name in listed:
            if name not in rows:
                raise ValueError(f"{file} lists {name}, which is not among the rows")
            parts[name] = part == "test"
    note = (
        f"authors' split: {sum(not t for t in parts.values()):,} rows to learn from, {sum(parts.values()):,} held out"
    )
    rest = len(rows) - len(parts)
    return parts, [note + (f"; {rest} rows in none of its parts are left out" if rest else "")]


def _merged(
    rows: Mapping[str, _Row], parts: Mapping[str, bool], device: str, notes: list[str]
) -> tuple[Indices, Values, Values, NDArray[np.bool_]]:
    """Return indices, accuracy, cost (NaN where unknown) and whether it is held out, for each different network.

    A network with several rows has their means, and is held out if one of the rows is.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in parts:
        groups.setdefault(rows[name].indices, []).append(name)
    if len(groups) < len(parts):
        notes.append(f"{len(parts) - len(groups)} rows repeat a network, which gets their mean")
    unknown = sum(rows[name].cost is None for name in parts)
    if unknown:
        notes.append(f"{device} is null in {unknown} rows, which are left out")
    ordered = sorted(groups.items())
    costs = [[cost for n in names if (cost := rows[n].cost) is not None] for _, names in ordered]
    return (
        np.array([indices for indices, _ in ordered], np.int64),
        np.array([np.mean([rows[n].accuracy for n in names]) for _, names in ordered]),
        np.array([np.mean(group) if group else np.nan for group in costs], np.float64),
        np.array([any(parts[n] for n in names) for _, names in ordered]),
    )


def _named(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return indices from expansions, kernels and layers of the seven blocks, all with squeeze-and-excitation."""
    expansions, kernels, layers = numbers[:7], numbers[7:14], numbers[14:]
    return tuple(
        index
        for e, k, count in zip(expansions, kernels, layers, strict=True)
        for index in (_THEIRS["e"].index(e), _THEIRS["k"].index(k), 1, 0, 0, count - 1)
    )
