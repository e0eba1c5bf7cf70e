"""Compare the LiteRT files of mnas with those of litert-torch, the official converter: outputs, latency, size, time.

    python benchmarks/writer_vs_converter.py [NETWORK ...] [--input-size 224] [--sessions 5] [--seconds 8]

NETWORK is a named network, as `mnas latency` takes it; `all` stands for every named network of blocks. The converter is
a child process in the environment that scripts/litert-torch-env makes; without it, the table lists the files of mnas
alone. Both files come from one network of seed 0 with batch-norm statistics of photographs, as after training, and must
compute the same for photographs, within 1e-4 of the largest output.

A session is a process of its own, in which both files take turns for some seconds (`mnas.export.timing`: one thread,
each round loads both afresh). Latencies and ratios are geometric means over the sessions; the interval is Student's t
over the logarithms of their ratios. `operators` counts those of both files, once where both have the same in the same
order. `written in` is the CPU time of write_tflite, the median of five calls, and `theirs in` that of one conversion
without imports. `load` is the machine's load average after the sessions.

Goal: the upper end of the interval is at most 1.02. It takes about a minute for each network, and the first time as
long as the conversion.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from official_converter import ConversionError, Converted, convert, is_installed
from scipy.stats import t as student
from torch import nn

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.export.images import photographs
from mnas.export.timing import Speed, TimedFile, speed
from mnas.latency.statistics import Estimate
from mnas.nn.cost import cost
from mnas.nn.network import Network, build_network
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import write_tflite
from mnas.zoo.architectures import ZOO, named_arch

GOAL_NETWORKS = ("mnasnet-a1", "efficientnet-lite0", "mobilenetv3-small", "mobilenetv4-conv-small")
GOAL = 1.02
"""Largest upper end of the interval of the ratio."""
TOLERANCE = 1e-4
"""Largest difference between the outputs of both files, as a share of the largest output."""


@dataclass(frozen=True)
class Comparison:
    name: str
    params: int
    macs: int
    ours: bytes
    written_s: float
    ours_ms: float
    load: float
    """Average number of runnable programs over the last minute, after the sessions."""
    theirs: Converted | None = None
    theirs_ms: float = math.nan
    ratio: Estimate | None = None
    difference: float = math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {' '.join(GOAL_NETWORKS)}")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--sessions", type=int, default=5, help="processes that time each pair of files")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of timing in each session")
    options = parser.parse_args()
    if options.sessions < 2:
        parser.error(f"--sessions must be 2 or more, because one shows no variation, but got {options.sessions}")
    names = options.networks or [name for name in GOAL_NETWORKS if name in ZOO]
    if names == ["all"]:
        names = [name for name, entry in ZOO.items() if isinstance(entry.arch, Arch)]
    if not is_installed():
        print("litert-torch is not installed; scripts/litert-torch-env installs it")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    try:
        for name in names:
            row = compared(name, options.input_size, options.sessions, options.seconds)
            print(f"| {' | '.join(cells_of(row))} |", flush=True)
    except (ValueError, ConversionError) as error:
        parser.exit(2, f"writer_vs_converter: {error}\n")


def compared(name: str, input_size: int, sessions: int, seconds: float) -> Comparison:
    """Return the comparison for one named network.

    Raises:
        ValueError: the name is unknown, or both files do not compute the same.
        ConversionError: the converter failed.
    """
    network = network_of(named_arch(name), input_size)
    counts = cost(network.arch, input_size, 1000)
    ours, written_s = timed_write(network, input_size)
    theirs = convert(network, input_size) if is_installed() else None
    difference = relative_difference(ours, theirs.content, input_size) if theirs else math.nan
    if theirs and not difference <= TOLERANCE:  # NaN too
        raise ValueError(f"{name}: the outputs of both files differ by {difference:.1e} of the largest output")
    other = TimedFile(theirs.content if theirs else ours)
    found = [speed(TimedFile(ours), other, budget_s=seconds) for _ in range(sessions)]
    ours_ms = statistics.geometric_mean(s.latency_ms for s in found)
    load = os.getloadavg()[0]
    if theirs is None:
        return Comparison(name, counts.params, counts.macs, ours, written_s, ours_ms, load)
    theirs_ms = statistics.geometric_mean(s.reference_ms for s in found)
    ratio = joint_ratio(found)
    return Comparison(
        name, counts.params, counts.macs, ours, written_s, ours_ms, load, theirs, theirs_ms, ratio, difference
    )


def network_of(arch: Architecture, input_size: int) -> Network:
    """Return the network of seed 0 with batch-norm statistics of photographs, gathered as in training."""
    torch.manual_seed(0)
    network = build_network(arch, 1000)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.momentum = None  # the plain mean over all batches
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.3)
    images = torch.from_numpy(photographs(input_size).pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def timed_write(network: Network, input_size: int) -> tuple[bytes, float]:
    """Return the file of mnas and the median CPU seconds of writing it."""
    seconds = []
    for _ in range(5):
        started = time.process_time()
        model = write_tflite(network, input_size)
        seconds.append(time.process_time() - started)
    return model, statistics.median(seconds)


def relative_difference(ours: bytes, theirs: bytes, input_size: int) -> float:
    """Return the largest difference of the outputs for eight photographs, as a share of the largest output.

    Noise is unlike the images of the batch-norm statistics, so a deep network of random weights would magnify it, and
    the rounding of each file.
    """
    images = photographs(input_size).pixels[:8].astype(np.float32) / 127.5 - 1
    outputs = [run_tflite(model, images) for model in (ours, theirs)]
    return float(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[1]).max())


def joint_ratio(found: Sequence[Speed]) -> Estimate:
    """Return the geometric mean of the sessions' ratios and its 95 % interval (Student's t over the logarithms)."""
    logs = [math.log(session.ratio) for session in found]
    middle = statistics.fmean(logs)
    half = float(student.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Estimate(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


HEADINGS = (
    "network", "params", "MACs", "mnas", "litert-torch", "ratio (95 %)", "goal", "operators", "difference", "bytes",
    "their bytes", "written in", "theirs in", "load",
)  # fmt: skip


def cells_of(row: Comparison) -> list[str]:
    """Return the cells of a Markdown table's row, one for each of `HEADINGS`."""
    ours = operators(row.ours)
    cells = dict.fromkeys(HEADINGS, "")
    cells["network"], cells["params"], cells["MACs"] = row.name, f"{row.params:,}", f"{row.macs / 1e6:.0f}M"
    cells["mnas"], cells["operators"] = f"{row.ours_ms:.4g} ms", str(len(ours))
    cells["bytes"], cells["written in"] = f"{len(row.ours):,}", f"{row.written_s:.3f} s"
    cells["load"] = f"{row.load:.1f}"
    if row.theirs is not None and row.ratio is not None:
        theirs = operators(row.theirs.content)
        cells["operators"] = str(len(ours)) if ours == theirs else f"{len(ours)} / {len(theirs)}"
        cells["litert-torch"], cells["their bytes"] = f"{row.theirs_ms:.4g} ms", f"{len(row.theirs.content):,}"
        cells["ratio (95 %)"] = f"{row.ratio.value:.3f} ({row.ratio.low:.3f}-{row.ratio.high:.3f})"
        cells["goal"] = "met" if row.ratio.high <= GOAL else "missed"
        cells["difference"], cells["theirs in"] = f"{row.difference:.1e}", f"{row.theirs.seconds:.1f} s"
    return list(cells.values())


def operators(model: bytes) -> list[int]:
    """Return the builtin codes of a file's operators, in order of execution."""
    parsed = schema.Model.GetRootAs(model)
    codes = [parsed.OperatorCodes(i) for i in range(parsed.OperatorCodesLength())]
    # small codes are in the older field of the two
    numbers = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    graph = parsed.Subgraphs(0)
    return [numbers[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength())]


if __name__ == "__main__":
    main()
