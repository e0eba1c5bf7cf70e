"""How much a model's measured latency varies from session to session: plain mean, plain median, and ours.

    python benchmarks/latency_stability.py              (20 sessions idle and 20 loaded: about 45 minutes)
    python benchmarks/latency_stability.py --quick      (3 + 3 sessions, 3 models: about 3 minutes)

A session is a fresh process, as memory lies differently in each. In it every model is measured by a plain loop (wall
clock, one interpreter, warmed up, not pinned: what one writes first) and by `mnas.latency.protocol.measure`, one after
the other and for as long, so that all methods see the same machine. `loaded`: every other core multiplies matrices and
streams through memory meanwhile. Reported over sessions: coefficients of variation; how many intervals hold the mean of
all sessions (the reference against itself: hold 1); how often the faster of two models some 3 % apart is found.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace

from mnas.arch import Arch
from mnas.latency.host import host_unit
from mnas.latency.latency import Calibration
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.latency.script import load
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch


@dataclass(frozen=True)
class Model:
    name: str
    input_size: int
    reference: str = "mobilenetv2"
    head_filters: int = 1280

    def __str__(self) -> str:
        return f"{self.name} {self.input_size} px" + (f" head {self.head_filters}" if self.head_filters != 1280 else "")

    @property
    def arch(self) -> Arch:
        return replace(named_arch(self.name), head_filters=self.head_filters)


MODELS = (
    Model("mnasnet-b1@0.5", 64),
    Model("mnasnet-small/s8", 32, "mobilenetv2/s8"),
    Model("mnasnet-small", 128),
    Model("mnasnet-a1", 128),
    Model("mobilenetv2", 128),
    Model("mnasnet-b1", 192),
    Model("mobilenetv2@1.4", 224),
)
TWINS = (
    (Model("mnasnet-b1@0.5", 64), Model("mnasnet-b1@0.5", 64, head_filters=1400)),
    (Model("mnasnet-a1", 128), Model("mnasnet-a1", 128, head_filters=1600)),
    (Model("mnasnet-b1", 192), Model("mnasnet-b1", 192, head_filters=1840)),
)
"""The same but for the width of the head; how far apart they are is established by all sessions together."""


def plain_times_ms(file: bytes, seconds: float) -> list[float]:
    invoke = load("litert", file, 1, 1)
    for _ in range(5):
        invoke()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or len(times) < 5:
        invoke()
        times.append((time.perf_counter() - start) * 1e3)
    return times


UNIT = host_unit()  # a child process, started by its first use


def session(models: list[Model], calibrations: dict[str, dict[str, object]], seed: int) -> list[dict[str, object]]:
    draw = random.Random(seed)
    rows = []
    for model in draw.sample(models, len(models)):
        file = graph_bytes(model.arch, model.input_size)
        key = f"{model.reference} {model.input_size}"
        reference = make_reference(named_arch(model.reference), model.reference, model.input_size, 1000)
        plain = plain_times_ms(file, 2.0) if draw.random() < 0.5 else []
        ours = measure(UNIT, file, reference, Calibration.from_dict(calibrations[key]))
        plain = plain or plain_times_ms(file, 2.0)
        rows.append(
            {"model": str(model), "mean": statistics.mean(plain), "median": statistics.median(plain), **ours.to_dict()}
        )
    return rows


def disturb(core: int) -> None:
    """Compute-heavy and memory-heavy work in turns on one core, for ever."""
    import numpy as np

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    matrix, stream = np.ones((400, 400), np.float32), np.ones(16_000_000, np.float32)
    while True:
        for _ in range(10):
            matrix @ matrix
        stream *= 1.0


def run_sessions(models: list[Model], sessions: int, seed: int) -> dict[str, list[list[dict[str, object]]]]:
    """idle and loaded -> sessions -> rows; idle and loaded take turns, so that a change of the machine hits both."""
    calibrations = {}
    for reference, size in sorted({(m.reference, m.input_size) for m in models}):
        calibration = calibrate(UNIT, make_reference(named_arch(reference), reference, size, 1000))
        calibrations[f"{reference} {size}"] = calibration.to_dict()
    others = [c for c in range(os.cpu_count() or 1) if c != calibration.pinned_core]
    task = {"models": [vars(m) for m in models], "calibrations": calibrations}
    results: dict[str, list[list[dict[str, object]]]] = {"idle": [], "loaded": []}
    for number in range(sessions):
        for state in ("idle", "loaded"):
            load_processes = [
                multiprocessing.Process(target=disturb, args=(core,), daemon=True)
                for core in (others if state == "loaded" else [])
            ]
            for process in load_processes:
                process.start()
            output = subprocess.run(
                [sys.executable, __file__, "--session"],
                input=json.dumps({**task, "seed": seed + number}),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            ).stdout
            for process in load_processes:
                process.terminate()
                process.join()
            results[state].append(json.loads(output))
            print(f"session {number + 1}/{sessions} {state} done", file=sys.stderr, flush=True)
    return results


def variation(values: list[float]) -> float:
    """Coefficient of variation in per cent."""
    return 100 * statistics.stdev(values) / statistics.mean(values)


def column(sessions: list[list[dict[str, object]]], model: Model, field: str) -> list[float]:
    return [float(row[field]) for rows in sessions for row in rows if row["model"] == str(model)]  # type: ignore[arg-type]


def print_variation(results: dict[str, list[list[dict[str, object]]]], models: list[Model]) -> None:
    print("\n| model | ms | other cores | plain mean | plain median | ours | +- told | covered | seconds (most) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in models:
        for state, sessions in results.items():
            ratios = column(sessions, model, "ratio")
            lows, highs = column(sessions, model, "ratio_low"), column(sessions, model, "ratio_high")
            itself = (model.name, model.head_filters) == (model.reference, 1280)
            truth = 1.0 if itself else math.exp(statistics.mean(map(math.log, ratios)))
            covered = sum(low <= truth <= high for low, high in zip(lows, highs, strict=True))
            told = statistics.mean((h - lo) / (2 * r) for lo, r, h in zip(lows, ratios, highs, strict=True))
            seconds = column(sessions, model, "seconds")
            print(
                f"| {model} | {statistics.mean(column(sessions, model, 'latency_ms')):.2f} | {state} "
                f"| {variation(column(sessions, model, 'mean')):.2f} % "
                f"| {variation(column(sessions, model, 'median')):.2f} % | {variation(ratios):.2f} % "
                f"| {100 * told:.2f} % | {covered}/{len(ratios)} "
                f"| {statistics.mean(seconds):.1f} ({max(seconds):.1f}) |"
            )


def print_ranking(results: dict[str, list[list[dict[str, object]]]], twins: list[tuple[Model, Model]]) -> None:
    print("\n| slower / faster | apart | other cores | plain mean | plain median | ours |\n|---|---|---|---|---|---|")
    for first, second in twins:
        every = [rows for sessions in results.values() for rows in sessions]
        logs = [[math.log(v) for v in column(every, m, "ratio")] for m in (first, second)]
        apart = statistics.mean(logs[1]) - statistics.mean(logs[0])
        for state, sessions in results.items():
            found = {}
            for field in ("mean", "median", "ratio"):
                pairs = zip(column(sessions, first, field), column(sessions, second, field), strict=True)
                found[field] = sum((b > a) == (apart > 0) for a, b in pairs)
            cells = " | ".join(f"{n}/{len(sessions)}" for n in found.values())
            print(f"| {second} / {first} | {100 * math.expm1(apart):.1f} % | {state} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20, help="sessions idle, and as many loaded (default: 20)")
    parser.add_argument("--quick", action="store_true", help="3 sessions, 3 models, 1 pair")
    parser.add_argument("--seed", type=int, default=0, help="order of models and methods (default: 0)")
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.session:
        task = json.load(sys.stdin)
        print(json.dumps(session([Model(**m) for m in task["models"]], task["calibrations"], task["seed"])))
        return
    models, twins = (MODELS[::3], TWINS[1:2]) if options.quick else (MODELS, TWINS)
    every = list(dict.fromkeys([*models, *(m for pair in twins for m in pair)]))
    results = run_sessions(every, 3 if options.quick else options.sessions, options.seed)
    print_variation(results, every)
    print_ranking(results, list(twins))


if __name__ == "__main__":
    main()
