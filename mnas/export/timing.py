"""How long exported files take on this machine beside the fp32 LiteRT file of the same network, whatever runs them.

The same protocol as `mnas.latency.host`, for any runtime: batch 1, one thread, rounds of turns against a reference with
both loaded afresh in every round, the fastest time of each. Only inference itself is timed, on input that is there
already, in the runtime's own arrays.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnas.latency.latency import MeasurementError
from mnas.latency.script import TURN_S, ModelError, load, steady
from mnas.latency.statistics import MIN_ROUNDS, Estimate, Round, ratio_of, time_of

MIN_RUNS, MAX_RUNS = 2, 200  # of a turn, the first not counted

Loader = Callable[[], Callable[[], object]]
"""Loads a model afresh; what it returns runs one inference."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one file; milliseconds with their 95 % interval, and the ratio to the reference's with its own."""

    latency_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    """To the fp32 LiteRT file; 1 for that itself."""
    ratio_low: float
    ratio_high: float
    reference_ms: float
    """Of the fp32 LiteRT file in the same rounds."""


def speed(candidate: Loader, reference: Loader, *, budget_s: float) -> Speed:
    """Rounds of both for `budget_s` seconds, and 8 rounds at least.

    Raises:
        MeasurementError: a runtime cannot load or run its model.
    """
    started = time.perf_counter()
    rounds: list[Round] = []
    with steady(None):
        runs = (_turn_runs(candidate), _turn_runs(reference))
        while len(rounds) < MIN_ROUNDS or time.perf_counter() - started < budget_s:
            rounds.append(_round((candidate, reference), runs, mirrored=len(rounds) % 2 == 1))
    own, base = time_of([r.candidate_ms for r in rounds]), time_of([r.reference_ms for r in rounds])
    ratio = Estimate(1.0, 1.0, 1.0) if candidate is reference else ratio_of(rounds)
    return Speed(
        latency_ms=own.value,
        low_ms=own.low,
        high_ms=own.high,
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        reference_ms=base.value,
    )


def _round(loaders: tuple[Loader, Loader], runs: tuple[int, int], *, mirrored: bool) -> Round:
    order = (1, 0) if mirrored else (0, 1)
    loaded = {which: loaders[which]() for which in order}  # who is loaded first alternates too
    times = {which: _run(loaded[which], runs[which] + 1)[1:] for which in order}
    return Round(times[0], times[1])


def _turn_runs(loader: Loader) -> int:
    fastest_ms = min(_run(loader(), 3))
    return min(MAX_RUNS, max(MIN_RUNS, round(TURN_S * 1e3 / fastest_ms)))


def _run(invoke: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each of `runs` inferences, on the wall clock: a runtime may compute in a thread of its own."""
    times_ms = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        invoke()
        times_ms.append((time.perf_counter_ns() - start) / 1e6)
    return times_ms


# Runtimes


def loader_of(path: Path, input_size: int) -> Loader:
    """How the runtime of a .tflite, .onnx or .pte file of ours loads it, for one thread.

    Raises:
        ImportError: the runtime is missing.
    """
    model = path.read_bytes()
    if path.suffix == ".onnx":
        return _onnxruntime(model, input_size)
    return _executorch(model, input_size) if path.suffix == ".pte" else litert_loader(model)


def litert_loader(model: bytes) -> Loader:
    """Of a LiteRT file's bytes."""

    def loading() -> Callable[[], object]:
        try:
            return load("litert", model, 1, 1)
        except ModelError as error:
            raise MeasurementError(str(error)) from None

    return loading


def _onnxruntime(model: bytes, input_size: int) -> Loader:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("running ONNX files needs onnxruntime; pip install 'mnas[onnx]'") from None
    image = {"image": _image(input_size)}

    def loading() -> Callable[[], object]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            session.run(None, image)
        except Exception as error:  # onnxruntime's own have no common base
            raise MeasurementError(f"ONNX Runtime cannot run the model: {' '.join(str(error).split())}") from None
        return lambda: session.run(None, image)

    return loading


def _executorch(model: bytes, input_size: int) -> Loader:
    try:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime
    except ImportError:
        raise ImportError("running ExecuTorch programs needs executorch; pip install 'mnas[executorch]'") from None
    import torch

    image: tuple[Any, ...] = (torch.from_numpy(_image(input_size)),)

    def loading() -> Callable[[], object]:
        portable_lib._unsafe_reset_threadpool(1)
        try:
            program = Runtime.get().load_program(model)
            method = program.load_method("forward")
            assert method is not None
            method.execute(image)
        except RuntimeError as error:
            raise MeasurementError(f"ExecuTorch cannot run the program: {' '.join(str(error).split())}") from None

        def invoke() -> object:
            assert program is not None  # a method computes in its program's memory, which goes with the program
            return method.execute(image)

        return invoke

    return loading


def _image(input_size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random((1, 3, input_size, input_size), np.float32)
