"""A search problem that costs nothing: accuracy and latency are functions of the architecture.

Only light imports at the top: worker processes import this file.
"""

import hashlib
import math
import os
import signal
import time
from pathlib import Path

from mnas.arch import Arch
from mnas.candidate import Candidate
from mnas.evaluate.evaluation import Evaluation, EvaluationError, Step
from mnas.latency.latency import Latency


def number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def evaluate(candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
    """Evaluate as a function of architecture and seed; every seventh network fails."""
    arch = candidate.arch
    time.sleep(0.01)
    if number_of(arch.fingerprint) % 7 == 0:
        raise EvaluationError("diverged: on purpose")
    accuracy = (number_of(f"{arch.fingerprint}/{seed}") % 1000) / 1000
    weights_path.write_bytes(arch.fingerprint.encode())
    return Evaluation(
        accuracy=accuracy, accuracies=(accuracy,), val_images=1000, train_s=0.01, images_per_s=1e5, epochs=1
    )


def latency_of(arch: Arch) -> Latency:
    """A function of the architecture."""
    latency_ms = 1 + (number_of(arch.fingerprint) % 1000) / 1000
    return Latency(
        latency_ms=latency_ms,
        low_ms=latency_ms * 0.99,
        high_ms=latency_ms * 1.01,
        ratio=latency_ms,
        ratio_low=latency_ms * 0.99,
        ratio_high=latency_ms * 1.01,
        against="reference",
        raw_median_ms=latency_ms,
        runs=10,
        rounds=5,
        stopped_by="interval",
        seconds=0.1,
        drift=0.0,
        disturbed=0.0,
        peak_memory_bytes=None,
        energy_mj=None,
        unit="host",
        source="measured",
    )


def measure(candidates):
    """Measure number -> candidate on a device named host."""
    from mnas.latency.fleet.fleet import Measured

    for number, candidate in candidates.items():
        yield number, Measured(latencies={"host": latency_of(candidate.arch)}, size_bytes=1000)


def evaluate_or_die(candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
    """Evaluate like `evaluate`, but let the process die where that fails, as with the out-of-memory killer."""
    try:
        return evaluate(candidate, step, seed, weights_path)
    except EvaluationError:
        os.kill(os.getpid(), signal.SIGKILL)
        raise


def evaluate_on_full_disk(candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
    """Write to a device that is always full."""
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"weights")
    raise AssertionError


def toy_space(layers=(0,)):
    """Return a space of 64 networks, or 256 with more choices of layers, so that networks are drawn twice."""
    from mnas.space.factorized import BlockChoices, FactorizedSpace
    from mnas.space.skeleton import Skeleton

    choices = BlockChoices(
        op=("sepconv", "mbconv3"), se_ratio=(0.0,), filters=(1.0,), skip=("identity", "none"), layers=layers
    )
    skeleton = Skeleton(filters=(16, 24), layers=(1, 1), strides=(1, 2), stem_filters=16, head_filters=64)
    return FactorizedSpace(name="toy", skeleton=skeleton, block_choices=(choices, choices))


def toy_problem(evaluate=evaluate, layers=(0,), **changes):
    """The problem; `changes` are fields of `Problem`."""
    from mnas.objective import Objective, Sharing
    from mnas.search.problem import Problem
    from mnas.space.candidates import CandidateSpace
    from mnas.zoo.architectures import reference_arch

    space = toy_space(layers)
    fields = {
        "space": CandidateSpace(space=space, input_sizes=(8,)),
        "num_classes": 10,
        "measure": measure,
        "size_bytes": lambda candidate: 1000,
        "evaluate": evaluate,
        "references": {"mobilenetv2": Candidate(arch=reference_arch(space.skeleton), input_size=8)},
        "objective": Objective(form="soft", target_latency_ms=1.5, alpha=-0.07, beta=-0.07),
        "sharing": Sharing(targets_ms={"host": 1.5}, weights={}),
    }
    return Problem(**{**fields, **changes})


def toy_plan(**changes):
    """Six candidates an update, one worker, and a limit that skips a few; `changes` are fields of `Plan`."""
    from mnas.search.problem import Plan

    fields = {
        "controller": "ppo",
        "seed": 1,
        "trials": 22,
        "hours": 1.0,
        "workers": 1,
        "candidates_per_update": 6,
        "latency_limit": 1.2,
        "max_size_mb": math.inf,
        "max_memory_mb": math.inf,
        "keep_models_mb": 1.0,
    }
    return Plan(**{**fields, **changes})


def toy_calibrations(reference_ms=1.0):
    """Return the calibrations of a device named host, with this latency of the reference."""
    from mnas.latency.latency import Calibration

    told = Calibration(
        reference="mobilenetv2",
        reference_ms=reference_ms,
        low_ms=reference_ms * 0.99,
        high_ms=reference_ms * 1.01,
        light_ratio=0.3,
        light_ratio_low=0.29,
        light_ratio_high=0.31,
        input_size=8,
        runtime="litert",
        threads=1,
        batch=1,
        unit="host",
        device={"cpu": "toy"},
        session_error=0.004,
        pinned_core=None,
        realtime=False,
    )
    return {"host": [told.to_dict()]}


def toy_config(**changes):
    """Return the part of a run's configuration that other runs compare."""
    fields = {
        "data": "toy",
        "seed": 1,
        "max_images_per_class": 0,
        "space": toy_space().to_dict(),
        "input_size": 8,
        "data_content": "images",
        "proxy": {"epochs": 1},
        "device": "host",
        "latency_threads": "auto",
        "latency": "measured",
    }
    return {**fields, **changes}


def toy_trial(arch, number=0, **changes):
    """Return the record of a newly drawn trial of `arch`; `changes` are fields of it."""
    import dataclasses

    from mnas.search.candidate import candidate_record

    return dataclasses.replace(
        candidate_record(Candidate(arch=arch, input_size=8), number, {}, toy_problem(), toy_plan()), **changes
    )


def toy_evaluation(accuracy, val_images=360):
    """Return the evaluation of a training with this accuracy."""
    return Evaluation(
        accuracy=accuracy,
        accuracies=(accuracy,),
        val_images=val_images,
        train_s=0.01,
        images_per_s=1e5,
        epochs=1,
    )


def toy_run(path, trials=8):
    """Write a finished run of the toy problem to disk, with all that `mnas search` stores."""
    import dataclasses

    from test_search import Listener

    from mnas.search.loop import search
    from mnas.study import Beginning, open_run

    problem = toy_problem()
    attributes = {
        "calibrations": toy_calibrations(),
        "objective": dataclasses.asdict(problem.objective),
        "other_objectives": [],
        "sharing": dataclasses.asdict(problem.sharing),
        "provenance": {
            "mnas": "0.1.0",
            "versions": {"torch": "2.15.0"},
            "devices": {"host": {"cpu": "toy"}},
            "data": {"name": "toy", "classes": [str(i) for i in range(10)], "val_images": 1000, "skipped": 0},
            "command": "mnas search",
        },
    }
    with open_run(path, toy_config(), lambda: Beginning(attributes=attributes)) as run:
        search(run, problem, toy_plan(trials=trials), Listener())


# Candidates at several sizes, from scratch and from parents


def accuracy_of(candidate: Candidate, step: Step) -> float:
    """Larger inputs are better; the features of a parent tell most of what its fine-tuning reaches."""
    noise = number_of(f"{candidate.arch.fingerprint}/{candidate.input_size}/{step}") % 100 / 20_000
    known = 0.3 if candidate.parent else 0.0
    return 0.3 + known + candidate.input_size / 400 + noise - (0.1 if step == "features" else 0.0)


def evaluate_sized(candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
    """Evaluate in steps, as a function of the candidate."""
    assert step == "training" or candidate.parent
    accuracy = accuracy_of(candidate, step)
    if step == "training":
        weights_path.write_bytes(candidate.arch.fingerprint.encode())
    return Evaluation(
        accuracy=accuracy, accuracies=(accuracy,), val_images=100_000, train_s=0.01, images_per_s=1e5, epochs=1,
        fidelity="frozen features" if step == "features" else "fine-tuned" if candidate.parent else "from scratch",
    )  # fmt: skip


def sized_latency_ms(candidate: Candidate) -> float:
    """Proportional to the pixels, and to the filters of the last block."""
    return candidate.input_size**2 / 1000 * candidate.arch.blocks[-1].filters / 64


def measure_sized(candidates):
    """Measure number -> candidate on a device named host."""
    import dataclasses

    from mnas.latency.fleet.fleet import Measured

    for number, candidate in candidates.items():
        ms = sized_latency_ms(candidate)
        latency = dataclasses.replace(
            latency_of(candidate.arch), latency_ms=ms, low_ms=ms * 0.99, high_ms=ms * 1.01, ratio=ms,
            ratio_low=ms * 0.99, ratio_high=ms * 1.01,
        )  # fmt: skip
        yield number, Measured(latencies={"host": latency}, size_bytes=1000)
