"""Measure the variation of latencies between sessions: plain mean, plain median, and the protocol of mnas.

    python benchmarks/latency_stability.py                          (20 sessions idle and 20 loaded: about 45 minutes)
    python benchmarks/latency_stability.py --quick                  (3 + 3 sessions, 3 models: about 3 minutes)
    python benchmarks/latency_stability.py --over ssh:pi@shelf-1    (on a board; --python: its interpreter with LiteRT)
    python benchmarks/latency_stability.py --over local-sshd        (on this machine, through a separate sshd)

A session is a fresh process, because its memory layout differs. In it, a plain loop (wall clock, one interpreter,
warmed up, not pinned) and `mnas.latency.protocol.measure` measure every model, one after the other and for as long, so
that all methods see the same machine. Over ssh, both run on the board, the plain loop as one command for each model. In
`loaded` sessions, every other core multiplies matrices and streams through memory.

The tables list coefficients of variation over sessions, the number of intervals that contain the mean of all sessions
(for the reference against itself: that contain 1), how often the faster of two models some 3 % apart is found, and the
seconds for each candidate.
"""

import argparse
import asyncio
import contextlib
import inspect
import json
import math
import multiprocessing
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mnas.arch import Arch
from mnas.latency.devices.host import host_unit
from mnas.latency.devices.ssh import ssh_unit
from mnas.latency.devices.ssh_login import log_in, parse_address
from mnas.latency.latency import Calibration, UnitError
from mnas.latency.onboard import script
from mnas.latency.onboard.script import load
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.latency.unit import Unit
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
"""Pairs that differ only in the width of the head; all sessions together give their difference."""


PLAIN_S = 2.0
"""Time of the plain loop, in seconds."""
GOALS = {"idle": 1.0, "loaded": 2.0}
"""Largest coefficient of variation in per cent, at 3 s for each candidate."""


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


def disturb(core: int) -> None:
    """Alternate compute-heavy and memory-heavy work on one core, forever."""
    import numpy as np

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    matrix, stream = np.ones((400, 400), np.float32), np.ones(16_000_000, np.float32)
    while True:
        for _ in range(10):
            matrix @ matrix
        stream *= 1.0


@dataclass(frozen=True)
class Place:
    """The machine that models run on."""

    address: str
    """Address as user@host:port; empty: this machine."""
    python: str
    """Python interpreter on that machine."""

    def unit(self) -> Unit:
        """Return a process or a connection, which starts at its first use."""
        return ssh_unit("board", self.address, python=self.python) if self.address else host_unit()

    def plain_times_ms(self, file: bytes) -> list[float]:
        if not self.address:
            return plain_times_ms(file, PLAIN_S)
        call = f"print(json.dumps(plain_times_ms(sys.stdin.buffer.read(), {PLAIN_S})))"
        source = "\n".join([inspect.getsource(script), inspect.getsource(plain_times_ms), call])
        times: list[float] = json.loads(asyncio.run(self._there(source, file)))
        return times

    @contextlib.contextmanager
    def loaded(self, cores: list[int]) -> Iterator[None]:
        """Keep these cores busy while the context lasts."""
        work = self._disturb_there if self.address else disturb
        processes = [multiprocessing.Process(target=work, args=(core,), daemon=True) for core in cores]
        for process in processes:
            process.start()
        time.sleep(5 if cores and self.address else 0)  # time for the logins
        if not all(process.is_alive() for process in processes):
            sys.exit("the load does not run; check that numpy is installed")
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
                process.join()

    def _disturb_there(self, core: int) -> None:
        end = "import os, sys, threading\n"  # ends the process with the connection
        end += "threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()"
        asyncio.run(self._there("\n".join([end, inspect.getsource(disturb), f"disturb({core})"]), None))

    async def _there(self, source: str, data: bytes | None) -> str:
        """Run `source` on the board with `data` as its input (None: open input), and return its output."""
        code = f'import sys; exec(sys.stdin.buffer.read({len(source.encode())}), {{"__name__": "there"}})'
        command = f"{self.python} -c {shlex.quote(code)}"
        async with (
            await log_in(parse_address(self.address)) as connection,
            connection.create_process(command, encoding=None) as process,
        ):
            process.stdin.write(source.encode() + (data or b""))
            if data is not None:
                process.stdin.write_eof()
            done = await process.wait()
        assert isinstance(done.stdout, bytes)
        if done.exit_status != 0:
            sys.exit(f"{self.address}: {done.stderr!r}")
        return done.stdout.decode()


def session(
    place: Place, models: list[Model], calibrations: dict[str, dict[str, object]], seed: int
) -> list[dict[str, object]]:
    draw = random.Random(seed)
    unit, rows = place.unit(), []
    for model in draw.sample(models, len(models)):
        file = graph_bytes(model.arch, model.input_size)
        key = f"{model.reference} {model.input_size}"
        reference = make_reference(named_arch(model.reference), model.reference, model.input_size, 1000)
        plain = place.plain_times_ms(file) if draw.random() < 0.5 else []
        ours = measure(unit, file, reference, Calibration.from_dict(calibrations[key]))
        plain = plain or place.plain_times_ms(file)
        rows.append(
            {
                "model": str(model),
                "mean": statistics.mean(plain),
                "median": statistics.median(plain),
                "plain_s": sum(plain) / 1e3,
                **ours.to_dict(),
            }
        )
    unit.close()
    return rows


def run_sessions(
    place: Place, models: list[Model], sessions: int, seed: int
) -> dict[str, list[list[dict[str, object]]]]:
    """Return idle and loaded -> sessions -> rows; they alternate, so that a change of the machine affects both."""
    calibrations, unit = {}, place.unit()
    for reference, size in sorted({(m.reference, m.input_size) for m in models}):
        calibration = calibrate(unit, make_reference(named_arch(reference), reference, size, 1000))
        calibrations[f"{reference} {size}"] = calibration.to_dict()
    cores = [int(core["core"]) for core in unit.condition().cores] or list(range(os.cpu_count() or 1))
    unit.close()
    others = [core for core in cores if core != calibration.pinned_core]
    task = {"place": vars(place), "models": [vars(m) for m in models], "calibrations": calibrations}
    results: dict[str, list[list[dict[str, object]]]] = {"idle": [], "loaded": []}
    for number in range(sessions):
        for state in ("idle", "loaded"):
            with place.loaded(others if state == "loaded" else []):
                done = subprocess.run(
                    [sys.executable, __file__, "--session"],
                    input=json.dumps({**task, "seed": seed + number}),
                    capture_output=True,
                    text=True,
                )
            if done.returncode != 0:
                sys.exit(done.stderr[-2000:])
            results[state].append(json.loads(done.stdout))
            print(f"session {number + 1}/{sessions} {state} done", file=sys.stderr, flush=True)
    return results


def variation(values: list[float]) -> float:
    """Return the coefficient of variation in per cent."""
    return 100 * statistics.stdev(values) / statistics.mean(values)


def column(sessions: list[list[dict[str, object]]], model: Model, field: str) -> list[float]:
    return [float(row[field]) for rows in sessions for row in rows if row["model"] == str(model)]  # type: ignore[arg-type]


def print_variation(results: dict[str, list[list[dict[str, object]]]], models: list[Model]) -> None:
    print("\n| model | ms | other cores | plain mean | plain median | mnas | +- reported | covered | seconds (most) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in models:
        for state, sessions in results.items():
            ratios = column(sessions, model, "ratio")
            lows, highs = column(sessions, model, "ratio_low"), column(sessions, model, "ratio_high")
            itself = (model.name, model.head_filters) == (model.reference, 1280)
            truth = 1.0 if itself else math.exp(statistics.mean(map(math.log, ratios)))
            covered = sum(low <= truth <= high for low, high in zip(lows, highs, strict=True))
            reported = statistics.mean((h - lo) / (2 * r) for lo, r, h in zip(lows, ratios, highs, strict=True))
            seconds = column(sessions, model, "seconds")
            print(
                f"| {model} | {statistics.mean(column(sessions, model, 'latency_ms')):.2f} | {state} "
                f"| {variation(column(sessions, model, 'mean')):.2f} % "
                f"| {variation(column(sessions, model, 'median')):.2f} % | {variation(ratios):.2f} % "
                f"| {100 * reported:.2f} % | {covered}/{len(ratios)} "
                f"| {statistics.mean(seconds):.1f} ({max(seconds):.1f}) |"
            )


def print_ranking(results: dict[str, list[list[dict[str, object]]]], twins: list[tuple[Model, Model]]) -> None:
    print(
        "\n| slower / faster | difference | other cores | plain mean | plain median | mnas |\n|---|---|---|---|---|---|"
    )
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


def print_summary(results: dict[str, list[list[dict[str, object]]]], models: list[Model]) -> None:
    print("\n| other cores | method | variation: median model | worst model | seconds a candidate (most) | goal |")
    print("|---|---|---|---|---|---|")
    for state, sessions in results.items():
        for method, field, spent in (
            ("plain mean", "mean", "plain_s"),
            ("plain median", "median", "plain_s"),
            ("mnas", "ratio", "seconds"),
        ):
            found = [variation(column(sessions, model, field)) for model in models]
            seconds = [second for model in models for second in column(sessions, model, spent)]
            goal = f"{GOALS[state]:g} % at 3 s" if method == "mnas" else ""
            print(
                f"| {state} | {method} | {statistics.median(found):.2f} % | {max(found):.2f} % "
                f"| {statistics.mean(seconds):.1f} ({max(seconds):.1f}) | {goal} |"
            )


@contextlib.contextmanager
def opened(over: str, python: str) -> Iterator[Place]:
    """Yield the place that --over names. Raises ValueError if it names none."""
    if over.startswith("ssh:"):
        yield Place(over.removeprefix("ssh:"), python)
    elif over == "host":
        yield Place("", sys.executable)
    elif over == "local-sshd":
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests/latency"))
        import sshd

        if sshd.PATH is None:
            raise ValueError("local-sshd needs Debian's openssh-server; scripts/install-test-tools installs it")
        with tempfile.TemporaryDirectory() as folder, sshd.running_sshd(Path(folder)) as server:
            os.environ["HOME"] = str(server.home)  # contains the key and known_hosts
            os.environ.pop("SSH_AUTH_SOCK", None)
            yield Place(server.address, sys.executable)
    else:
        raise ValueError(f"--over must be host, local-sshd or ssh:USER@HOST:PORT, but got {over!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--over", default="host", help="host, local-sshd or ssh:USER@HOST:PORT (default: host)")
    parser.add_argument(
        "--python", default="python3", help="Python of a board, with LiteRT and numpy (default: python3)"
    )
    parser.add_argument(
        "--sessions", type=int, default=20, help="number of idle sessions, and of loaded ones (default: 20)"
    )
    parser.add_argument("--quick", action="store_true", help="3 sessions, 3 models, 1 pair")
    parser.add_argument("--seed", type=int, default=0, help="order of models and methods (default: 0)")
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.session:
        task = json.load(sys.stdin)
        models = [Model(**m) for m in task["models"]]
        print(json.dumps(session(Place(**task["place"]), models, task["calibrations"], task["seed"])))
        return
    if options.sessions < 2 and not options.quick:
        parser.error(f"--sessions must be 2 or more, because one shows no variation, but got {options.sessions}")
    models, twins = (MODELS[::3], TWINS[1:2]) if options.quick else (MODELS, TWINS)
    every = list(dict.fromkeys([*models, *(m for pair in twins for m in pair)]))
    try:
        with opened(options.over, options.python) as place:
            results = run_sessions(place, every, 3 if options.quick else options.sessions, options.seed)
    except (ValueError, ImportError, UnitError) as error:
        sys.exit(f"latency_stability: {error}")
    print_variation(results, every)
    print_ranking(results, list(twins))
    print_summary(results, every)


if __name__ == "__main__":
    main()
