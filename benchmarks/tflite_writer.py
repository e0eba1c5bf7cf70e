"""Compare the LiteRT writer of mnas with litert_torch.convert: time to write a network, size and latency of the file.

    python benchmarks/tflite_writer.py [--arch mnasnet-a1] [--input-size 224] [--rounds 30]

litert-torch is no dependency of mnas, and pins torch; without it the table contains only the rows of mnas. For the full
table, make an environment with `python -m venv other` and `other/bin/pip install litert-torch -e .`, and run this
script there.

Rounds alternate between the files (load again, warm up, time). A file's latency is the median over rounds of the
round's fastest inference, with the quartiles; `mnas / litert_torch` is the same for the paired ratios.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnas.nn.network import Network, build_network
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes, write_tflite
from mnas.zoo.architectures import named_arch

INFERENCES = 10


class NHWC(torch.nn.Module):
    """The network with the input of the file, (1, S, S, 3) images."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2))


def litert_torch_writer(network: Network, input_size: int) -> Callable[[], bytes] | None:
    try:
        import litert_torch
    except ImportError:
        return None
    sample = (torch.randn(1, input_size, input_size, 3),)

    def write() -> bytes:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder) / "model.tflite"
            litert_torch.convert(NHWC(network).eval(), sample).export(str(path))
            return path.read_bytes()

    return write


def timed(write: Callable[[], bytes], repeats: int) -> tuple[bytes, list[float]]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model = write()
        seconds.append(time.perf_counter() - start)
    return model, seconds


def fastest_ms(model: bytes, image: np.ndarray) -> float:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    times = []
    for _ in range(2 + INFERENCES):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times[2:])


def latencies(models: Mapping[str, bytes], input_size: int, rounds: int) -> dict[str, list[float]]:
    """Return name -> fastest inference of each round, in milliseconds; the order alternates."""
    image = np.random.default_rng(0).standard_normal((1, input_size, input_size, 3), np.float32)
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds):
        for name in list(models)[:: 1 if number % 2 else -1]:
            times[name].append(fastest_ms(models[name], image))
    return times


def spread(values: Sequence[float], unit: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3f} {unit} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mnasnet-a1")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    arch, size = named_arch(options.arch), options.input_size

    torch.manual_seed(0)
    network = build_network(arch, 1000).eval()
    written = {
        "write_tflite": timed(lambda: write_tflite(network, size), 20),
        "graph_bytes (random weights)": timed(lambda: graph_bytes(arch, size), 20),
    }
    theirs = litert_torch_writer(network, size)
    if theirs is not None:
        written["litert_torch.convert"] = timed(theirs, 3)
    models = {name: model for name, (model, _) in written.items()}
    times = latencies(models, size, options.rounds)

    table = Table("writer", "time, median (quartiles)", "file, bytes", "latency, one thread", title=str(options.arch))
    for name, (model, seconds) in written.items():
        table.add_row(name, spread(seconds, "s"), f"{len(model):,}", spread(times[name], "ms"))
    console = Console()
    console.print(table)
    if theirs is None:
        console.print("litert-torch is not installed here; see --help for how to install it")
        return
    ours, others = times["write_tflite"], times["litert_torch.convert"]
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    console.print(f"latency, mnas / litert_torch: {spread(ratios, 'times')}")
    images = np.random.default_rng(1).standard_normal((3, size, size, 3), np.float32)
    outputs = [run_tflite(models[name], images) for name in ("write_tflite", "litert_torch.convert")]
    difference = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max()
    console.print(f"largest difference of the outputs: {difference:.1e} of the largest output")


if __name__ == "__main__":
    main()
