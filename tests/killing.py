"""Kills a search with SIGKILL at random moments, resumes it, and compares what is left with a search that was never
killed.

Run as a program by test_kill.py: `python killing.py FOLDER CONTROLLER WORKERS KILLS SEED`. It imports everything once
and then forks one process for every start. A moment is a number of calls (into mnas, and of what writes to files and to
the database) after which the process kills itself, so moments are spread over ask, tell, measuring, building the data
cache and writing files, however long each takes.
"""

import hashlib
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from mnas.evaluate.evaluation import Evaluation, EvaluationError
from mnas.latency.latency import Latency

from mnas.arch import Arch

TRIALS, BATCH = 22, 6  # not a multiple: the last batch is cut short
WRITES = {"execute", "commit", "write", "fsync", "replace", "rename", "mkdir", "unlink", "flush"}


def number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def evaluate(arch: Arch, seed: int, weights_path: Path) -> Evaluation:
    """A function of architecture and seed; every seventh network fails."""
    time.sleep(0.01)
    if number_of(arch.fingerprint) % 7 == 0:
        raise EvaluationError("diverged: on purpose")
    accuracy = (number_of(f"{arch.fingerprint}/{seed}") % 1000) / 1000
    weights_path.write_bytes(arch.fingerprint.encode())
    return Evaluation(
        accuracy=accuracy, accuracies=(accuracy,), val_images=1000, train_s=0.01, images_per_s=1e5, epochs=1
    )


def measure(arch: Arch) -> tuple[Latency, int]:
    """A function of the architecture."""
    latency_ms = 1 + (number_of(arch.fingerprint) % 1000) / 1000
    return (
        Latency(
            latency_ms=latency_ms,
            low_ms=latency_ms * 0.99,
            high_ms=latency_ms * 1.01,
            ratio=latency_ms,
            ratio_low=latency_ms * 0.99,
            ratio_high=latency_ms * 1.01,
            raw_median_ms=latency_ms,
            runs=10,
            rounds=5,
            stopped_by="interval",
            seconds=0.1,
        ),
        1000,
    )


def start(folder: Path, controller: str, workers: int) -> None:
    """What one start of the program does, from the data to the report."""
    from mnas.data.load import load_dataset

    from mnas.objective import Objective
    from mnas.report.html import write_report
    from mnas.search import Plan, Problem, Watcher, search
    from mnas.space.factorized import BlockChoices, FactorizedSpace
    from mnas.space.skeleton import Skeleton
    from mnas.study import open_run
    from mnas.zoo.architectures import reference_arch

    class Reporting(Watcher):
        def say(self, text):
            pass

        def progress(self, progress):
            pass

        def updated(self, run):
            write_report(run.path)

    dataset = load_dataset("digits", input_size=8, seed=0, cache_dir=folder / "cache")
    # small, so that networks are drawn twice
    choices = BlockChoices(op=("sepconv", "mbconv3"), se_ratio=(0.0,), filters=(1.0,), skip=("identity", "none"))
    skeleton = Skeleton(filters=(16, 24), layers=(1, 1), strides=(1, 2), stem_filters=16, head_filters=64)
    space = FactorizedSpace(name="toy", skeleton=skeleton, block_choices=(choices, choices))
    problem = Problem(
        space=space,
        input_size=8,
        num_classes=len(dataset.classes),
        measure=measure,
        evaluate=evaluate,
        references={"mobilenetv2": reference_arch(skeleton)},
        objective=Objective(form="soft", target_latency_ms=1.5, alpha=-0.07, beta=-0.07),
    )
    plan = Plan(
        controller=controller,
        seed=1,
        trials=TRIALS,
        hours=1.0,
        workers=workers,
        candidates_per_update=BATCH,
        latency_limit=1.2,
        keep_models_mb=1,
    )
    with open_run(folder / "run", {"controller": controller, "data": "digits", "content": dataset.fingerprint}) as run:
        run.set("objective", {"form": "soft", "target_latency_ms": 1.5, "alpha": -0.07, "beta": -0.07})
        search(run, problem, plan, Reporting())


def attempt(folder: Path, controller: str, workers: int, die_after: int) -> tuple[bool, int]:
    """Fork, start, kill after so many calls: (whether it came to its end, calls made)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        calls = 0
        package = str(Path(sys.modules["mnas"].__file__).parent)

        def hook(frame, event, function):
            nonlocal calls
            ours = event == "call" and frame.f_code.co_filename.startswith(package)
            if ours or (event == "c_call" and function.__name__ in WRITES):
                calls += 1
                if calls == die_after:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.setprofile(hook)
            start(folder, controller, workers)
            sys.setprofile(None)
            os.write(writer, str(calls).encode())
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        calls = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return False, die_after
    assert os.WEXITSTATUS(status) == 0, "the search ended with an error"
    return True, int(calls)


def outcome(folder: Path) -> dict:
    """Everything that a finished run must have in common with one never killed."""
    from mnas.study import read_run

    run = read_run(folder / "run")
    facts = ("fingerprint", "same_as", "error", "seed", "latency", "evaluation", "reward", "params", "macs")
    return {
        "trials": [
            [t.number, t.state.name, t.params, t.values, {f: t.user_attrs.get(f) for f in facts}] for t in run.trials
        ],
        "updates": {k: v for k, v in run.attributes.items() if k.startswith("update:")},
        "references": [{k: v for k, v in r.items() if k != "measure_s"} for r in run.attributes["references"]],
        "state": run.attributes["state"],
        "weights": sorted(p.name for p in (folder / "run" / "models").iterdir()),
        "front": [t.number for t in run.front],
    }


def main() -> None:
    base, controller, workers, kills, seed = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    for heavy in ("mnas.data.load", "mnas.report.html", "mnas.search"):
        importlib.import_module(heavy)  # not at the top: worker processes, which import this file too, start faster
    assert threading.active_count() == 1, "fork needs one thread"
    rng = random.Random(seed)
    finished, total = attempt(base / "whole", controller, workers, die_after=-1)
    assert finished
    expected = outcome(base / "whole")
    done, round_ = 0, 0
    while done < kills:
        folder = base / f"killed{round_}"
        finished = False
        while not finished:
            # mostly early moments, or one start would finish; when all kills are done, none
            die_after = rng.randint(1, total // 3) if done < kills else -1
            finished, _ = attempt(folder, controller, workers, die_after)
            done += not finished
        got = outcome(folder)
        if got != expected:
            print(json.dumps({"expected": expected, "got": got}))
            sys.exit("the resumed run differs from the one never killed")
        round_ += 1
    print(json.dumps({"kills": done, "rounds": round_, "calls": total, **expected}))


if __name__ == "__main__":
    main()
