"""Time to write the LiteRT file of each named network, beside its parameters.

    python benchmarks/writer_time.py [--input-size 224] [--repeats 7] [NAME ...]

`graph_bytes` draws random weights, as a search needs them to measure a candidate; `write_tflite` folds a network's own.
Both are medians over the repeats, in processor seconds (all threads) and in seconds by the clock, without the first
call, which loads libraries. A processor that other programs use lengthens the time by the clock only.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from mnas.nn.cost import cost
from mnas.nn.network import build_network
from mnas.tflite.writer import graph_bytes, write_tflite
from mnas.zoo.architectures import ZOO, named_arch


def medians(write: Callable[[], bytes], repeats: int) -> tuple[float, float]:
    """Return processor seconds and seconds by the clock."""
    processor, clock = [], []
    for _ in range(repeats):
        begin = time.process_time(), time.perf_counter()
        write()
        processor.append(time.process_time() - begin[0])
        clock.append(time.perf_counter() - begin[1])
    return statistics.median(processor), statistics.median(clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="named networks; all without any")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    size = options.input_size

    table = Table("network", title=f"seconds to write a LiteRT file at {size} px: processor / clock")
    for column in ("params", "bytes", "graph_bytes", "write_tflite"):
        table.add_column(column, justify="right")
    graph_bytes(named_arch("mnasnet-small"), size)
    for name in options.names or ZOO:
        arch = named_arch(name)
        network = build_network(arch, 1000).eval()
        length = len(write_tflite(network, size))
        with torch.no_grad():
            times = [
                medians(lambda arch=arch: graph_bytes(arch, size), options.repeats),
                medians(lambda network=network: write_tflite(network, size), options.repeats),
            ]
        cells = [f"{processor:.3f} / {clock:.3f}" for processor, clock in times]
        table.add_row(name, f"{cost(arch, size).params / 1e6:.2f}M", f"{length:,}", *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
