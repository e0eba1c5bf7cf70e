"""Compare loops in turns.

Each loop has a separate process, so that settings and warm memory of one do not affect another. They take turns, so
that other load on the machine affects all of them.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Turn:
    images: int
    seconds: float
    waiting_s: float = 0.0
    """Seconds of waiting for the next batch."""
    cpu_s: float = 0.0
    """CPU time of the loop's process, in seconds."""


Run = Callable[[], tuple[int, float]]
"""Function that runs some steps, and returns their number of images and the seconds of waiting for batches."""

Maker = Callable[..., AbstractContextManager[Run]]
"""Function that makes a loop in its process; the context ends after the loop's last turn."""


def in_turns(makers: dict[str, Maker], arguments: tuple[Any, ...], rounds: int) -> dict[str, list[Turn]]:
    """Return the turns of every loop by name, in a rotating order; the first round warms up and does not count.

    Args:
        makers: functions of a module, called with `arguments`.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        ends: dict[str, Connection] = {}
        for name, maker in makers.items():
            ends[name], other = context.Pipe()
            process = context.Process(target=_work, args=(other, maker, arguments))
            process.start()
            other.close()
            stack.callback(process.join)
            stack.callback(ends[name].close)  # which ends the process
            ends[name].recv()  # wait until it is made, so that none is made during another's turn
        found: dict[str, list[Turn]] = {name: [] for name in makers}
        for number in range(rounds + 1):
            for name in _rotated(list(makers), number):
                ends[name].send(None)
                turn = ends[name].recv()
                if number > 0:
                    found[name].append(turn)
    return found


def ratios(ours: list[Turn], theirs: list[Turn], *, cpu: bool = False) -> list[float]:
    """Return the ratio of images per second, round by round; with `cpu`, per second of CPU time."""

    def rate(turn: Turn) -> float:
        return turn.images / (turn.cpu_s if cpu else turn.seconds)

    return [rate(a) / rate(b) for a, b in zip(ours, theirs, strict=True)]


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _rotated(names: list[str], by: int) -> Iterator[str]:
    return (names[(by + index) % len(names)] for index in range(len(names)))


def _work(end: Connection, maker: Maker, arguments: tuple[Any, ...]) -> None:
    with maker(*arguments) as run:
        end.send(None)
        while True:
            try:
                end.recv()
            except EOFError:
                return
            start, cpu = time.perf_counter(), time.process_time()
            images, waiting_s = run()
            end.send(Turn(images, time.perf_counter() - start, waiting_s, time.process_time() - cpu))
