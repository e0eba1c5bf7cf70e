"""Latency of a small int8 network with LiteRT's HARD_SWISH, and with the operators that mnas writes in its place.

    python benchmarks/int8_hardswish.py [--runs 200]

XNNPACK has no int8 kernel for HARD_SWISH. The files run in turns, one thread; the table shows the fastest twentieth of
the runs, which other programs disturb least.
"""

import argparse
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from rich.console import Console
from rich.table import Table

from mnas.arch import Arch
from mnas.export import litert
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network

BLOCKS = "r1_k3_s11_e1_i16_o16,r2_k3_s22_e4_o24,r3_k5_s22_e4_o40,r3_k3_s22_e6_o80,r2_k3_s22_e6_o112"
SIZE = 96


def files() -> dict[str, bytes]:
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((8, SIZE, SIZE, 3)).astype(np.float32)
    made = {}
    for activation in ("relu", "hardswish"):
        arch = replace(Arch.from_block_strings(BLOCKS), activation=activation)
        network = build_network(arch, 10).eval()
        model = litert.litert_fp32(network, ModelMetadata(arch=arch, input_size=SIZE, unnamed_classes=10))
        made |= {f"{activation}, fp32": model, f"{activation}, int8": litert.litert_int8(model, images)}
    with mock.patch.object(litert, "without_hardswish", lambda given: given):
        made["hardswish, int8 with HARD_SWISH"] = litert.litert_int8(model, images)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    interpreters = {name: Interpreter(model_content=model, num_threads=1) for name, model in files().items()}
    times: dict[str, list[float]] = {name: [] for name in interpreters}
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()
        interpreter.invoke()
    for _ in range(runs):
        for name, interpreter in interpreters.items():
            begin = time.perf_counter()
            interpreter.invoke()
            times[name].append(1e3 * (time.perf_counter() - begin))
    table = Table("file", "ms", title=f"{SIZE} px, one thread, 5 % quantile of {runs} runs")
    for name, taken in times.items():
        table.add_row(name, f"{np.quantile(taken, 0.05):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
