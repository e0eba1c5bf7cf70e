"""Latency on this machine: LiteRT with XNNPACK, batch 1, timed in rounds against a reference model.

Each round makes new interpreters, as where weights and activations come to lie in memory alone moves a model's time by
a per cent or more; then candidate and reference run for some milliseconds each, in an order that alternates, so that a
drift of the machine hits both alike. There are two references, the model that a run is compared with and the same at
a fraction of its width: what the neighbours of a shared cache do to a model depends on how large it is, so a candidate
takes turns with the one that is nearer to its own size.
"""

import contextlib
import functools
import gc
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mnas.arch import Arch
from mnas.latency.latency import Against, Calibration, Latency, MeasurementError
from mnas.latency.statistics import MIN_ROUNDS, Round, latency_of, ratio_of, stop_reason, time_of
from mnas.tflite.writer import graph_bytes

TURN_S = 0.015
"""Length of a model's turn: about twice what it takes to fill the caches after another model's."""
MIN_TURN_RUNS, MAX_TURN_RUNS = 2, 200
LIGHT_WIDTH = 0.35
"""Width multiplier of the light reference."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What candidates are timed against."""

    name: str
    input_size: int
    file: bytes
    """The LiteRT file."""
    light_file: bytes
    """Of the same model at `LIGHT_WIDTH`."""

    def nearest(self, model: bytes) -> Against:
        """Which of the two is nearer to `model` in size."""
        return "light" if len(model) ** 2 < len(self.file) * len(self.light_file) else "reference"


def make_reference(arch: Arch, name: str, input_size: int, num_classes: int) -> Reference:
    """The reference `arch` with its light companion, as LiteRT files with random weights.

    Raises:
        ValueError: the input is too small for the strides.
    """
    file = graph_bytes(arch, input_size, num_classes)
    light_file = graph_bytes(arch.scale_width(LIGHT_WIDTH), input_size, num_classes)
    # widths are rounded up to 8: a narrow reference has no lighter companion, and needs none
    return Reference(name=name, input_size=input_size, file=file, light_file=min(light_file, file, key=len))


def calibrate(reference: Reference, *, threads: int = 1, budget_s: float = 8.0) -> Calibration:
    """Measure both references on this machine, in rounds against each other, for `budget_s` seconds.

    Raises:
        ValueError: a reference is no LiteRT file, or a number is out of its range.
        MeasurementError: the runtime cannot load or run it.
    """
    if not 1 <= threads <= 1024:
        raise ValueError(f"threads must be from 1 to 1024, but got {threads}")
    _require_seconds(budget_s)
    core = _measuring_core() if threads == 1 else None
    started = time.perf_counter()
    rounds: list[Round] = []
    with steady(core) as realtime:
        files = (reference.light_file, reference.file)
        runs = (_turn_runs(files[0], threads), _turn_runs(files[1], threads))
        while len(rounds) < MIN_ROUNDS or time.perf_counter() - started < budget_s:
            light, base = _round(files, runs, threads, mirrored=len(rounds) % 2 == 1)
            rounds.append(Round(light.kept_ms, base.kept_ms))
    level, share = time_of([r.reference_ms for r in rounds]), ratio_of(rounds)
    return Calibration(
        reference=reference.name,
        reference_ms=level.value,
        low_ms=level.low,
        high_ms=level.high,
        light_ratio=share.value,
        light_ratio_low=share.low,
        light_ratio_high=share.high,
        input_size=reference.input_size,
        threads=threads,
        device=device_fingerprint(),
        pinned_core=core,
        realtime=realtime,
    )


def measure(
    model: bytes, reference: Reference, calibration: Calibration, *, budget_s: float = 3.0, interval: float = 0.01
) -> Latency:
    """Latency of `model` (a LiteRT file) on the device that `calibration` was made on, with its number of threads.

    Goes on until the ratio's 95 % interval is at most +-`interval` (0.01: 1 %), or `budget_s` seconds are spent.

    Raises:
        ValueError: a file is no LiteRT file, the calibration is another device's, or a number is out of its range.
        MeasurementError: the runtime cannot load or run a model.
    """
    _require_seconds(budget_s)
    if not 0 < interval < 1:
        raise ValueError(f"interval must be a share between 0 and 1, but got {interval}")
    check_device(calibration)
    started = time.perf_counter()
    rounds: list[Round] = []
    wall_ms: list[float] = []
    stopped_by = None
    with steady(calibration.pinned_core):
        against = reference.nearest(model)
        files = (model, reference.file if against == "reference" else reference.light_file)
        runs = (_turn_runs(files[0], calibration.threads), _turn_runs(files[1], calibration.threads))
        last = time.perf_counter()
        while stopped_by is None:
            candidate, base = _round(files, runs, calibration.threads, mirrored=len(rounds) % 2 == 1)
            rounds.append(Round(candidate.kept_ms, base.kept_ms))
            wall_ms += candidate.wall_ms
            now = time.perf_counter()
            spent_s, round_s, last = now - started, now - last, now
            stopped_by = stop_reason(
                rounds, interval=interval, seconds=spent_s, next_round_s=round_s, budget_s=budget_s
            )
    return latency_of(
        rounds,
        calibration,
        against=against,
        raw_median_ms=float(np.median(wall_ms)),
        runs=len(wall_ms),
        stopped_by=stopped_by,
        seconds=time.perf_counter() - started,
    )


@functools.cache
def _fingerprint() -> tuple[tuple[str, str | int], ...]:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux names the model only here
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                processor = line.partition(":")[2].strip()
                break
    return (
        ("processor", processor),
        ("machine", platform.machine()),
        ("cores", os.cpu_count() or 1),
        ("os", platform.system()),
        ("runtime", f"LiteRT {importlib.metadata.version('ai-edge-litert')} XNNPACK"),
    )


def device_fingerprint() -> dict[str, str | int]:
    """What must be equal for latencies to be comparable: processor, machine, cores, os, runtime with its version."""
    return dict(_fingerprint())


def check_device(calibration: Calibration) -> None:
    """Raise ValueError, naming what differs, if `calibration` was made on another device or runtime than this one."""
    here = device_fingerprint()
    if differing := [name for name in here if calibration.device.get(name) != here[name]]:
        there = ", ".join(f"{name} {calibration.device.get(name)!r} there, {here[name]!r} here" for name in differing)
        raise ValueError(f"the calibration was made on another device ({there}); go on there, or begin another run")


@contextlib.contextmanager
def steady(core: int | None) -> Iterator[bool]:
    """Keep this thread on `core`, above all other programs, without garbage collection; all is restored at the end.

    Yields whether it has real-time priority. What the system does not offer or allow is left out; with None nothing
    is pinned (a runtime's own threads would all inherit the one core).
    """
    collecting, affinity, realtime = gc.isenabled(), None, False
    gc.disable()
    policy = None
    try:
        if core is not None and hasattr(os, "sched_setaffinity"):
            previous = os.sched_getaffinity(0)
            if core in previous:  # a container may have moved since the calibration
                os.sched_setaffinity(0, {core})
                affinity = previous
            policy = os.sched_getscheduler(0), os.sched_getparam(0)
            with contextlib.suppress(PermissionError):
                # the lowest real-time priority: above all ordinary programs, below whatever else needs it
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
                realtime = True
        yield realtime
    finally:
        if realtime and policy is not None:
            os.sched_setscheduler(0, *policy)
        if affinity is not None:
            os.sched_setaffinity(0, affinity)
        if collecting:
            gc.enable()


def _measuring_core() -> int | None:
    """The fastest core allowed (as the paper's one big core), the last of equals: interrupts prefer the first."""
    if not hasattr(os, "sched_getaffinity"):
        return None

    def megahertz(core: int) -> int:
        try:
            return int(Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq").read_text())
        except (OSError, ValueError):
            return 0

    return max(os.sched_getaffinity(0), key=lambda core: (megahertz(core), core))


class _Times:
    """Times of one model in one round: `wall_ms` of all inferences, `kept_ms` without the first of each turn."""

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.kept_ms: list[float] = []


def _turn_runs(model: bytes, threads: int) -> int:
    """Inferences that fill a turn; the pilot runs warm the machine up as well."""
    fastest_ms = min(_run(load(model, threads), _clock(threads), 3)[1])
    return min(MAX_TURN_RUNS, max(MIN_TURN_RUNS, round(TURN_S * 1e3 / fastest_ms)))


def _round(
    models: tuple[bytes, bytes], runs: tuple[int, int], threads: int, *, mirrored: bool
) -> tuple[_Times, _Times]:
    """Load both models, and time the first and then the second, `runs` inferences each; or mirrored."""
    order = (1, 0) if mirrored else (0, 1)
    # who is loaded first has its memory elsewhere, so this alternates too
    loaded = {which: load(models[which], threads) for which in order}
    times = (_Times(), _Times())
    for which in order:
        wall_ms, own_ms = _run(loaded[which], _clock(threads), runs[which] + 1)
        times[which].wall_ms += wall_ms
        times[which].kept_ms += own_ms[1:]  # the first finds the caches full of the other model
    return times


def _clock(threads: int) -> Callable[[], int]:
    """Nanoseconds of processor time where one thread does all the work, so that being preempted does not count.

    Windows counts processor time in ticks of 16 ms.
    """
    return time.thread_time_ns if threads == 1 and sys.platform != "win32" else time.perf_counter_ns


def _run(invoke: Callable[[], None], clock: Callable[[], int], runs: int) -> tuple[list[float], list[float]]:
    """Wall-clock and `clock` milliseconds of `runs` inferences."""
    wall_ms, own_ms = [], []
    for _ in range(runs):
        wall, own = time.perf_counter_ns(), clock()
        invoke()
        own = clock() - own
        wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
        own_ms.append(own / 1e6)
    if min(own_ms) <= 0:
        raise MeasurementError(f"the clock did not advance over an inference: {min(own_ms)} ms")
    return wall_ms, own_ms


def load(model: bytes, threads: int) -> Callable[[], None]:
    """A LiteRT file -> a call that runs one inference of it, on fixed random input.

    Raises:
        ValueError: `model` is no LiteRT file.
        MeasurementError: the runtime has no memory or no kernel for it, or it fails on its first inference.
    """
    require_litert(model)
    try:
        interpreter: Any = Interpreter(model_content=model, num_threads=threads)
    except ValueError as error:
        raise ValueError(f"a model must be a LiteRT file (.tflite), but the runtime says: {_line(error)}") from None
    try:
        interpreter.allocate_tensors()
        draw = np.random.default_rng(0)
        for detail in interpreter.get_input_details():
            values = draw.uniform(0, 1 if np.issubdtype(detail["dtype"], np.floating) else 100, detail["shape"])
            interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError, MemoryError) as error:
        raise MeasurementError(f"LiteRT cannot run the model: {_line(error)}") from None
    return interpreter.invoke  # type: ignore[no-any-return]


def require_litert(model: bytes) -> None:
    """Raise ValueError unless `model` begins as a LiteRT file does."""
    if model[4:8] != b"TFL3":
        raise ValueError(f"a model must be a LiteRT file (.tflite), but got {len(model)} bytes of something else")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _require_seconds(budget_s: float) -> None:
    if not 0 < budget_s < float("inf"):
        raise ValueError(f"measuring budget must be more than 0 s, but got {budget_s}")
