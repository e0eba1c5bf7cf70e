"""Runs with made-up values, written as a search writes them, so that every part of a report has content."""

import dataclasses
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnas.evaluate.evaluation import Evaluation
from mnas.latency.latency import Calibration, Latency
from mnas.nn.cost import cost
from mnas.objective import Objective, Sharing, hypervolume
from mnas.search.measure import shared_latency
from mnas.space.named import load_space
from mnas.study import Draft, Snapshot, State, TrialRecord, open_run
from mnas.study.limits import Skip
from mnas.zoo.architectures import named_arch, reference_arch

INPUT_SIZE = 32
CLASSES = 10
VAL_IMAGES = 2000
SPACE = load_space("mnasnet").with_output_stride(8)
LIMITS = {"latency_limit": 3.0, "max_size_mb": 2.5, "max_memory_mb": 40.0}
OBJECTIVE = Objective(form="soft", target_latency_ms=2.0, alpha=-0.07, beta=-0.07)


SKIPS = (
    Skip(limit="latency", value=7.0, bound=6.0),
    Skip(limit="size", value=3.2, bound=2.5),
    Skip(limit="latency", value=8.0, bound=6.0),
    Skip(limit="memory", value=41.5, bound=40.0),
    Skip(limit="size", value=2.9, bound=2.5),
)
DEVICES = {"host": 2.0, "board": 30.0}
"""T of each device; the second only if a run has two."""


def latency_dict(latency_ms: float, **changes: Any) -> dict[str, Any]:
    return {
        "latency_ms": latency_ms,
        "low_ms": latency_ms * 0.985,
        "high_ms": latency_ms * 1.02,
        "ratio": latency_ms / 2,
        "ratio_low": latency_ms * 0.985 / 2,
        "ratio_high": latency_ms * 1.02 / 2,
        "against": "reference",
        "raw_median_ms": latency_ms * 1.1,
        "runs": 400,
        "rounds": 20,
        "stopped_by": "interval",
        "seconds": 1.5,
        "drift": 0.01,
        "disturbed": 0.05,
        "peak_memory_bytes": 3_000_000,
        "energy_mj": None,
        "unit": "host",
        "source": "measured",
        **changes,
    }


def latencies_of(number: int, latency_ms: float, macs: int, params: int, devices: int) -> dict[str, Latency]:
    """Return latencies on the host, and on a board that depends more on parameters; some are predicted or cached."""
    if devices == 1:
        return {"host": Latency(**latency_dict(latency_ms))}
    board_ms = round(8 * latency_ms + params / 3e5, 5)
    odd: dict[int, dict[str, Any]] = {
        1: {"source": "predicted", "runs": 0, "rounds": 0, "drift": 0.0, "disturbed": 0.0, "peak_memory_bytes": None},
        2: {"source": "cached"},
        3: {"drift": 0.18, "disturbed": 0.62},
    }
    more = {"unit": f"pi-{number % 2}", "peak_memory_bytes": 1_000_000 + 2 * params, "energy_mj": 3 * macs / 1e6}
    return {
        "host": Latency(**latency_dict(latency_ms, **{1: odd[1], 2: odd[2]}.get(number % 5, {}))),
        "board": Latency(**latency_dict(board_ms, **{**more, **odd.get(number % 5, {})})),
    }


def together(latencies: dict[str, Latency]) -> Latency:
    """Combine the latencies of several devices as a search does."""
    sharing = Sharing(targets_ms={device: DEVICES[device] for device in latencies}, weights={})
    return shared_latency(sharing, latencies)


def synthetic_trial(
    number: int, state: State, rng: random.Random, error: str = "diverged: loss is nan", devices: int = 1
) -> TrialRecord:
    """Return a random member of the space; the later its number, the better of several it is."""
    picks = []
    for _ in range(min(8, 1 + number // 20)):
        indices = [rng.randrange(len(d.choices)) for d in SPACE.decisions]
        arch = SPACE.decode(indices)
        costs = cost(arch, INPUT_SIZE, CLASSES)
        latency_ms = round((0.25 + costs.macs / 55e6) * rng.uniform(0.9, 1.15), 5)
        accuracy = 0.93 - 0.5 * math.exp(-costs.macs / 35e6) - 0.05 * rng.random()
        accuracy = round(accuracy * VAL_IMAGES) / VAL_IMAGES
        picks.append((OBJECTIVE.reward(accuracy, latency_ms), accuracy, latency_ms, arch, costs, indices))
    reward, accuracy, latency_ms, arch, costs, indices = max(picks, key=lambda p: p[0])
    record = TrialRecord(
        number=number, state="running", arch=arch, fingerprint=arch.fingerprint, params=costs.params, macs=costs.macs,
        input_size=INPUT_SIZE, seed=number, size_bytes=4 * costs.params + 30_000, choices=SPACE.params(indices),
    )  # fmt: skip
    if state == "running":
        return record
    latencies = latencies_of(number, latency_ms, costs.macs, costs.params, devices)
    latency = together(latencies)
    measured = replace(record, latency=latency, latencies=latencies)
    if state == "failed":
        return replace(measured, state="failed", error=error)
    if state == "skipped":
        skip = SKIPS[number % len(SKIPS)]  # files over the size limit are not measured
        return replace(record if skip.limit == "size" else measured, state="skipped", skipped=skip)
    evaluation = Evaluation(
        accuracy=accuracy, accuracies=(accuracy,), val_images=VAL_IMAGES, train_s=9.5, images_per_s=5000.0, epochs=5
    )
    reward = OBJECTIVE.reward(accuracy, latency.latency_ms)
    return replace(measured, state="complete", accuracy=accuracy, evaluation=evaluation, reward=reward)


def diagnostics(update: int) -> dict[str, Any]:
    entropies = {
        d.name: math.log(len(d.choices)) * math.exp(-update * (0.05 + 0.02 * (i % 5)))
        for i, d in enumerate(SPACE.decisions)
    }
    return {
        "kl": 0.01 / (1 + update),
        "clip_fraction": 0.2 - 0.01 * update,
        "baseline": 0.7,
        "mean_reward": 0.7,
        "entropy_per_decision": entropies,
    }


def surrogate_diagnostics(update: int) -> dict[str, Any]:
    weights = {d.name: 0.2 * (i % 11) for i, d in enumerate(SPACE.decisions)}
    told = {"trials": 10 * (update + 1), "logarithm": False, "noise": 0.01, "weights": weights}
    return {"trials": 10 * (update + 1), "objectives": [told | {"left_out_r2": 0.1 * update + 0.2 * i} for i in (0, 1)]}


TOLD = {"ppo": diagnostics, "surrogate": surrogate_diagnostics, "random": lambda update: {}}


def update_figures(trials: list[TrialRecord], update: int, controller: str) -> dict[str, Any]:
    done = [t for t in trials if t.state == "complete"]
    return {
        "trials": len(trials),
        "hypervolume": hypervolume([t.point for t in done], (1 / CLASSES, 4.0)),
        "best_reward": max((t.reward for t in done), default=None),
        "diagnostics": TOLD[controller](update),
    }


def synthetic_snapshot(
    path: Path,
    states: list[State],
    *,
    batch: int = 10,
    controller: str = "ppo",
    set_up: bool = True,
    error: str = "diverged: loss is nan",
    class_names: tuple[str, ...] = ("cat", "dog"),
    status: str = "running",
    devices: int = 1,
) -> Snapshot:
    """Return a run with trials in such states, in memory; the same for the same arguments."""
    rng = random.Random(0)
    attributes: dict[str, Any] = {
        "config": {"data": "digits", "space": SPACE.to_dict(), "input_size": INPUT_SIZE, "seed": 7, **LIMITS}
    }
    if set_up:
        attributes |= attributes_before_the_first_trial(class_names, status, devices)
    trials = [synthetic_trial(number, state, rng, error, devices) for number, state in enumerate(states)]
    for update in range(len(states) // batch):
        figures = update_figures(trials[: (update + 1) * batch], update, controller)
        attributes[f"update:{update}"] = figures
    return Snapshot(path, attributes, trials)


def store(snapshot: Snapshot) -> None:
    """Write the run to disk as a search would."""
    with open_run(snapshot.path, snapshot.attributes["config"]) as run:
        for name, value in snapshot.attributes.items():
            run.set(name, value)
        for trial in snapshot.trials:
            run.add(Draft(record=trial, distributions=SPACE.distributions))


def calibration_dict(unit: str, reference_ms: float, unit_scale: float = 1.0) -> dict[str, Any]:
    return Calibration(
        reference="mobilenetv2",
        reference_ms=reference_ms,
        low_ms=0.99 * reference_ms,
        high_ms=1.01 * reference_ms,
        light_ratio=0.3,
        light_ratio_low=0.29,
        light_ratio_high=0.31,
        input_size=INPUT_SIZE,
        runtime="litert",
        threads=1,
        batch=1,
        unit=unit,
        device={"cpu": "Test CPU", "cores": 2, "os": "Linux", "runtime": "ai-edge-litert 2.3"},
        session_error=0.004,
        pinned_core=1,
        realtime=False,
        unit_scale=unit_scale,
    ).to_dict()


def attributes_before_the_first_trial(class_names: tuple[str, ...], status: str, devices: int) -> dict[str, Any]:
    """Return the attributes that a search stores once it has loaded the data and timed the reference networks."""
    targets_ms = dict(list(DEVICES.items())[:devices])
    calibrations = {"host": [calibration_dict("host", 2.0)]}
    if devices == 2:
        calibrations["board"] = [calibration_dict(f"pi-{i}", 30.0, scale) for i, scale in enumerate((0.984, 1.016))]
    data = {"name": "digits", "fingerprint": "ab" * 8, "classes": list(class_names), "val_images": VAL_IMAGES}
    known = {"mobilenetv2": {}, "mnasnet-a1": {}}
    for name, factor in (("mobilenetv2", 1.0), ("mnasnet-a1", 1.15)):
        each = {device: Latency(**latency_dict(factor * target_ms)) for device, target_ms in targets_ms.items()}
        latencies = {device: latency.to_dict() for device, latency in each.items()}
        known[name] = {"name": name, "latencies": latencies, "latency": together(each).to_dict()}
    archs = [reference_arch(SPACE.reference_skeleton).to_dict(), named_arch("mnasnet-a1").to_dict()]
    trained = {**known["mobilenetv2"], "arch": archs[0], "accuracy": 0.84}
    failed = {**known["mnasnet-a1"], "arch": archs[1], "accuracy": None}
    return {
        "state": {"status": status, "reason": "trials" if status == "finished" else ""},
        "objective": dataclasses.asdict(OBJECTIVE),
        "sharing": {"targets_ms": targets_ms, "weights": {}},
        "calibrations": calibrations,
        "references": [
            {**trained, "params": 2_236_682, "macs": 88_000_000},
            {**failed, "params": 2_600_000, "macs": 90_000_000},
        ],
        "provenance": {
            "mnas": "0.1.0",
            "versions": {"torch": "2.15.0"},
            "devices": {device: units[0]["device"] for device, units in calibrations.items()},
            "data": data,
            "command": "mnas search --data digits",
        },
    }
