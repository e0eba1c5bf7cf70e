"""Kills a search with SIGKILL at random moments, resumes it, and compares what is left with a search that was never
killed.

`scenario` is called by test_kill.py in a process of its own (started.py), which forks one for every start. A moment is
a number of calls (into mnas, and of what writes to files and to the database) after which the process kills itself, so
moments are spread over ask, tell, measuring, building the data cache and writing files, however long each takes.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from toy import toy_calibrations, toy_config, toy_plan, toy_problem, toy_space

from mnas.data.load import load_dataset
from mnas.report.html import write_report
from mnas.search.loop import search
from mnas.search.progress import Watcher
from mnas.search.start import initial_trials, read_start
from mnas.study import Beginning, open_run, read_run

WRITES = {"execute", "commit", "write", "fsync", "replace", "rename", "mkdir", "unlink", "flush"}


def start(folder: Path, controller: str, workers: int, trials: int, old: list[Path]) -> None:
    """Run one start of the program, from the data to the report."""

    class Reporting(Watcher):
        def say(self, text):
            pass

        def progress(self, progress):
            pass

        def updated(self, run):
            write_report(run.path)

    dataset = load_dataset("digits", input_size=8, seed=0, cache_dir=folder / "cache")
    problem = toy_problem(layers=(0,) if trials < 30 else (0, 1))
    plan = toy_plan(controller=controller, workers=workers, trials=trials)
    config = toy_config(controller=controller, space=problem.space.space.to_dict(), data_content=dataset.fingerprint)

    def begin():
        members, histories = read_start(list(map(str, old)), problem.space.space, config, folder / "run")
        given = list(initial_trials(members, histories, problem, plan))
        return Beginning(trials=given, attributes={"calibrations": toy_calibrations()})

    with open_run(folder / "run", config, begin) as run:
        run.set("objective", {"form": "soft", "target_latency_ms": 1.5, "alpha": -0.07, "beta": -0.07})
        search(run, problem, plan, Reporting())


def attempt(
    folder: Path, controller: str, workers: int, trials: int, old: list[Path], die_after: int
) -> tuple[bool, int]:
    """Fork, start, kill after a number of calls; return whether the process ended by itself, and the calls made."""
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
            start(folder, controller, workers, trials, old)
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
    """Return all that a finished run must have in common with a run that was never killed."""
    run = read_run(folder / "run")
    trials = [trial.to_dict() for trial in run.trials]
    return {
        "trials": [{k: v for k, v in trial.items() if k not in ("started", "finished")} for trial in trials],
        "updates": {k: v for k, v in run.attributes.items() if k.startswith("update:")},
        "references": [{k: v for k, v in r.items() if k != "measure_s"} for r in run.attributes["references"]],
        "state": run.attributes["state"],
        "weights": sorted(p.name for p in (folder / "run" / "models").iterdir()),
        "front": [t.number for t in run.front],
    }


def scenario(base: Path, controller: str, workers: int, kills: int, seed: int, trials: int, before: int) -> None:
    """Print as JSON what came out. With `before`, each search starts from a run of that many trials, and from a network
    with a name."""
    old: list[Path] = []
    if before:
        start(base / "old", "random", workers, before, [])
        named = base / "named.json"
        named.write_text(toy_space().decode([0] * 12).to_json())
        old = [base / "old" / "run", named]
    assert threading.active_count() == 1, "fork needs one thread"
    finished, total = attempt(base / "whole", controller, workers, trials, old, die_after=-1)
    assert finished
    expected = outcome(base / "whole")
    rng = random.Random(seed)
    done, round_ = 0, 0
    while done < kills:
        folder = base / f"killed{round_}"
        finished = False
        while not finished:
            # mostly early moments, or one start would finish; no kill once all kills are done
            die_after = rng.randint(1, total // 3) if done < kills else -1
            finished, _ = attempt(folder, controller, workers, trials, old, die_after)
            done += not finished
        got = outcome(folder)
        if got != expected:
            print(json.dumps({"expected": expected, "got": got}))
            sys.exit("the resumed run differs from the run that was never killed")
        round_ += 1
    print(json.dumps({"kills": done, "rounds": round_, "calls": total, **expected}))
