"""Timing of models in rounds, two at a time, on the machine that runs this script.

The script imports nothing of mnas (except for runtime `torch`): the same file runs as a child process on this machine
and, copied, on a board (Python 3.9+ with numpy and the runtime). `python script.py` reads requests from its standard
input, a JSON object a line, answers each with a line, and ends with its input. Requests: {"do": "hello" | "condition" |
"open" | "round" | "close" | "memory", ...}; answers: {"ok": ...}, or {"error": text, "of": "model" | "unit" | "setup"}:
the model's own failure, this machine's, or a package that it lacks.

Each round loads both models again, because the place of weights and activations in memory alone moves a model's time
by a per cent or more. Then each runs for some milliseconds, in an order that alternates, so that a drift of the machine
affects both alike.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

if sys.platform != "win32":
    import resource

LOAD_S = 60.0
"""Limit in seconds for loading a model once the runtime is loaded. The kernel ends a process that takes longer."""
INFERENCE_S, IMAGE_S = 15.0, 1.0
"""Limits in seconds for an inference on one image, and for each further image of its batch."""
REALTIME_S = 120.0
"""Limit in seconds of uninterrupted computing at real-time priority."""
TURN_S = 0.015
"""Length of a model's turn in seconds: about twice what it takes to fill the caches after another model's turn."""
MIN_TURN_RUNS, MAX_TURN_RUNS = 2, 200
Run = Callable[[], Any]
"""Function that runs one inference on fixed input."""


class ModelError(Exception):
    """Failure of a model that the runtime cannot load or run; one line."""


# Loaders of runtimes: bytes, threads, batch -> a function that runs one inference


def _load_litert(model: bytes, threads: int, batch: int, *, xnnpack: bool = True) -> Run:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if model[4:8] != b"TFL3":
        raise ModelError(f"a model must be a LiteRT file (.tflite), but got {len(model)} bytes of another format")
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter: Any = Interpreter(model_content=model, num_threads=threads, experimental_op_resolver_type=resolver)
    for detail in interpreter.get_input_details():
        shape = [int(size) for size in detail["shape"]]
        if len(shape) > 1 and shape[0] != batch:
            interpreter.resize_tensor_input(detail["index"], [batch, *shape[1:]])
    interpreter.allocate_tensors()
    draw = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = draw.uniform(0, 1 if np.issubdtype(detail["dtype"], np.floating) else 100, detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
    return interpreter.invoke  # type: ignore[no-any-return]


def _load_onnxruntime(model: bytes, threads: int, batch: int) -> Run:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int64)": np.int64}
    draw, values = np.random.default_rng(0), {}
    for entry in session.get_inputs():
        if entry.type not in kinds:
            raise ModelError(f"input {entry.name} must be one of {', '.join(kinds)}, but got {entry.type}")
        if len(entry.shape) > 1 and isinstance(entry.shape[0], int) and entry.shape[0] != batch:
            raise ModelError(f"the model takes batches of {entry.shape[0]}, but got {batch=}")
        shape = [batch if i == 0 else size for i, size in enumerate(entry.shape)]
        if not all(isinstance(size, int) for size in shape):
            raise ModelError(
                f"all dimensions of input {entry.name} but the batch must be fixed, but got shape {entry.shape}"
            )
        kind = kinds[entry.type]
        values[entry.name] = draw.uniform(0, 1 if kind is np.float32 else 100, shape).astype(kind)
    return lambda: session.run(None, values)


def _load_executorch(model: bytes, threads: int, batch: int) -> Run:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    if model[4:6] != b"ET":
        raise ModelError(f"a model must be an ExecuTorch program (.pte), but got {len(model)} bytes of another format")
    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(model)
    method = program.load_method("forward")
    assert method is not None
    draw, values = torch.Generator().manual_seed(0), []
    kinds = {6: torch.float32, 0: torch.uint8, 1: torch.int8, 4: torch.int64}  # ExecuTorch's numbers of types
    for index in range(method.metadata.num_inputs()):
        entry = method.metadata.input_tensor_meta(index)
        sizes = tuple(entry.sizes())
        if len(sizes) > 1 and sizes[0] != batch:
            raise ModelError(f"the program takes batches of {sizes[0]}, but got {batch=}")
        if entry.dtype() not in kinds:
            names = ", ".join(map(str, kinds.values()))
            raise ModelError(f"input {index} must be one of {names}, but got type {entry.dtype()} of ExecuTorch")
        kind = kinds[entry.dtype()]
        drawn = torch.rand(sizes, generator=draw)
        values.append(drawn if kind is torch.float32 else (100 * drawn).to(kind))

    def invoke(owner: Any = program) -> Any:  # the program owns the memory in which its method computes
        return method.execute(values)

    return invoke


def _load_torch(model: bytes, threads: int, batch: int) -> Run:
    import torch

    try:
        from mnas.nn.weights import network_of_bytes
    except ImportError:
        raise ModelError("runtime torch needs mnas on the device, because it builds the network itself") from None
    torch.set_num_threads(threads)
    network, info = network_of_bytes(model)
    network = network.eval().to(memory_format=torch.channels_last)
    size = info.input_size
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)

    def invoke() -> Any:
        with torch.inference_mode():
            return network(images)

    return invoke


_load_builtin = functools.partial(_load_litert, xnnpack=False)

RUNTIMES: dict[str, tuple[Callable[[bytes, int, int], Run], str, str, str]] = {
    "litert": (_load_litert, "ai-edge-litert", "LiteRT {} XNNPACK", "ai_edge_litert.interpreter"),
    "litert-builtin": (_load_builtin, "ai-edge-litert", "LiteRT {} without XNNPACK", "ai_edge_litert.interpreter"),
    "onnxruntime": (_load_onnxruntime, "onnxruntime", "ONNX Runtime {}", "onnxruntime"),
    "executorch": (_load_executorch, "executorch", "ExecuTorch {} XNNPACK", "executorch.runtime"),
    "torch": (_load_torch, "torch", "torch {} eager", "mnas.nn.weights"),
}
"""Name of a runtime -> (loader of a model, package, name in a fingerprint, module that imports it)."""


def load(runtime: str, model: bytes, threads: int, batch: int) -> Run:
    """Return a function that runs one inference of `model`, which has run once. Raises ModelError, ImportError.

    A model that takes too long ends the process (`limited`).
    """
    try:
        # import before the clock starts, as importing takes seconds; loading reports a missing package
        with contextlib.suppress(ImportError):
            importlib.import_module(RUNTIMES[runtime][3])
        with limited(LOAD_S):
            invoke = RUNTIMES[runtime][0](model, threads, batch)
        with limited(inference_limit_s(batch)):
            invoke()
    except (ModelError, ImportError):
        raise
    except Exception as error:  # the runtimes' errors have no common base
        raise ModelError(f"{runtime} cannot run the model: {_line(error)}") from None
    return invoke


# Limits


def inference_limit_s(batch: int) -> float:
    """Return the seconds that one inference may take."""
    return INFERENCE_S + IMAGE_S * (batch - 1)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM when the body takes longer, even where it never returns to Python."""
    _alarm(seconds)
    try:
        yield
    finally:
        _alarm(0)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # not on Windows, where the controlling process gives up in the end
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def prioritised(limit_s: float) -> Iterator[bool]:
    """Run this thread above all ordinary programs, for at most `limit_s` seconds of computing in a row.

    The kernel ends a process that takes longer (SIGXCPU), so that no model stops the machine. Yields whether the thread
    has the priority, which a system may not offer or allow.
    """
    realtime = False
    if hasattr(os, "sched_setscheduler") and hasattr(resource, "RLIMIT_RTTIME"):
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        _, most = limits = resource.getrlimit(resource.RLIMIT_RTTIME)
        limit_us = round(1e6 * min(limit_s, REALTIME_S))
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_RTTIME, (limit_us if most < 0 else min(limit_us, most), most))
            # the lowest real-time priority: above all ordinary programs, below other real-time ones
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
            realtime = True
            time.sleep(1e-4)  # waking up at this priority sets the kernel's count back to 0
    try:
        yield realtime
    finally:
        if realtime:
            os.sched_setscheduler(0, *before)
            resource.setrlimit(resource.RLIMIT_RTTIME, limits)


# Rounds


class ModelPair:
    """Two models that take turns, open for one measurement."""

    def __init__(self, models: list[tuple[bytes, str]], threads: int, batch: int, first: bool = False) -> None:
        self._models, self._how, self._first = models, (threads, batch), first
        self._clock, self._limit_s = clock_of(threads), inference_limit_s(batch)
        self._inference_s = [0.0, 0.0]
        self.runs = (self._turn_runs(0), self._turn_runs(1))

    def round(self, mirrored: bool) -> dict[str, list[list[float]]]:
        """Load both models, time the first and then the second, or mirrored, and return the milliseconds of each.

        `wall_ms` has all inferences; `kept_ms`, by the clock that counts, leaves out the first of each turn, which
        finds the caches full of the other model.
        """
        order = (1, 0) if mirrored else (0, 1)
        # the model that is loaded first lies elsewhere in memory, so this alternates too
        loaded = {which: self._load(which) for which in order}
        wall: list[list[float]] = [[], []]
        own: list[list[float]] = [[], []]
        for which in order:
            runs = self.runs[which] + 1
            limit_s = max(2.0, 20 * runs * self._inference_s[which])
            with prioritised(limit_s) if self._first else contextlib.nullcontext():
                wall_ms, own_ms = self._time(loaded[which], runs)
            wall[which] += wall_ms
            own[which] += own_ms[1:]
        return {"wall_ms": wall, "kept_ms": own}

    def _load(self, which: int) -> Run:
        model, runtime = self._models[which]
        return load(runtime, model, *self._how)

    def _turn_runs(self, which: int) -> int:
        """Return the number of inferences that fill a turn; the pilot runs warm the machine up as well.

        They take a third of a turn: three of a fast model may all be slow, and turns would then be far too short.
        """
        invoke = self._load(which)
        own_ms: list[float] = []
        while len(own_ms) < 3 or (sum(own_ms) < TURN_S * 1e3 / 3 and len(own_ms) < MAX_TURN_RUNS):
            own_ms += self._time(invoke, 1)[1]
        fastest_ms = max(1e-6, min(own_ms))
        self._inference_s[which] = fastest_ms / 1e3
        return min(MAX_TURN_RUNS, max(MIN_TURN_RUNS, round(TURN_S * 1e3 / fastest_ms)))

    def _time(self, invoke: Run, runs: int) -> tuple[list[float], list[float]]:
        wall_ms, own_ms, clock = [], [], self._clock
        for _ in range(runs):
            _alarm(self._limit_s)
            wall, own = time.perf_counter_ns(), clock()
            invoke()
            own = clock() - own
            wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
            own_ms.append(own / 1e6)
        _alarm(0)
        return wall_ms, own_ms


def clock_of(threads: int) -> Callable[[], int]:
    """Return the clock: processor time where one thread does all the work, so that preemption does not count.

    Processor time is the whole process's, as a runtime may compute in a thread of its own, and nothing else runs in
    this process. Windows counts it in ticks of 16 ms, so wall-clock time serves there.
    """
    return time.process_time_ns if threads == 1 and sys.platform != "win32" else time.perf_counter_ns


@contextlib.contextmanager
def steady(core: int | None) -> Iterator[None]:
    """Keep this thread on `core`, without garbage collection, and restore both at the end.

    A system that cannot pin is left as it is. With None nothing is pinned (a runtime's own threads would all inherit
    the one core).
    """
    collecting, affinity = gc.isenabled(), None
    gc.disable()
    try:
        if core is not None and hasattr(os, "sched_setaffinity"):
            previous = os.sched_getaffinity(0)
            if core in previous:  # a container's cores may have changed since the calibration
                os.sched_setaffinity(0, {core})
                affinity = previous
        yield
    finally:
        if affinity is not None:
            os.sched_setaffinity(0, affinity)
        if collecting:
            gc.enable()


def measuring_core() -> int | None:
    """Return the fastest allowed core (the paper's one big core), the last of equals: interrupts prefer the first."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return max(os.sched_getaffinity(0), key=lambda core: (_mhz(core, "cpuinfo_max_freq") or 0, core))


# Identity and state of the machine


def fingerprint(runtime: str) -> dict[str, str | int]:
    """Return what must be equal for latencies to compare; with the board's name and highest clock where available."""
    _, package, title, _ = RUNTIMES[runtime]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"runtime {runtime} needs {package} on the device: pip install {package}") from None
    core = measuring_core()
    details = {"board": _board(), "max_mhz": None if core is None else _mhz(core, "cpuinfo_max_freq")}
    return {
        "processor": processor_of(_text("/proc/cpuinfo") or "") or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "os": platform.system(),
        "runtime": title.format(version),
        **{name: value for name, value in details.items() if value is not None},
    }


def condition() -> dict[str, Any]:
    """Return the machine's state in degrees Celsius, megahertz and shares; None where it does not report a value."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    zones = [_number(f"/sys/class/thermal/thermal_zone{i}/temp") for i in range(32)]
    degrees = [zone / 1000 for zone in zones if zone is not None and 0 < zone < 200_000]
    # on a Raspberry Pi, bits 0-3 are the present state
    throttled = _number("/sys/devices/platform/soc/soc:firmware/get_throttled", base=16)
    core = measuring_core()
    return {
        "model": _board(),
        "temperature_c": max(degrees, default=None),
        "cores": [
            {"core": c, "max_mhz": _mhz(c, "cpuinfo_max_freq"), "governor": _text(_frequency(c, "scaling_governor"))}
            for c in cores
        ],
        "clock_mhz": None if core is None else _mhz(core, "scaling_cur_freq"),
        "max_clock_mhz": None if core is None else _mhz(core, "cpuinfo_max_freq"),
        "throttled": None if throttled is None else bool(throttled & 0xF),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def processor_of(cpuinfo: str) -> str:
    """Return the processor's name in Linux's /proc/cpuinfo; for ARM the numbers of maker and core instead."""
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())]
    values_of = {name: [v for k, v in fields if k == name] for name in ("CPU implementer", "CPU part", "model name")}
    arm = {"/".join(core) for core in zip(values_of["CPU implementer"], values_of["CPU part"])}  # noqa: B905 (Python 3.9)
    return ", ".join(sorted(arm)) or "".join(values_of["model name"][:1])


def _board() -> str | None:
    """Return the machine's name without its revision, as boards of one model are alike."""
    name = _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name")
    return name and name.partition(" Rev ")[0]


def _frequency(core: int, name: str) -> str:
    return f"/sys/devices/system/cpu/cpu{core}/cpufreq/{name}"


def _mhz(core: int, name: str) -> int | None:
    khz = _number(_frequency(core, name))
    return None if khz is None else khz // 1000


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path) as file:
        return file.read().strip("\0\n ") or None
    return None


def _number(path: str, base: int = 10) -> int | None:
    with contextlib.suppress(ValueError):
        return int(_text(path) or "", base)
    return None


def peak_memory_bytes(path: str, runtime: str, threads: int, batch: int) -> int | None:
    """Return how much a process grows at most while it loads the model and runs it once; None except on Linux.

    The measurement needs a process of its own, whose memory nothing has used before.
    """
    if not sys.platform.startswith("linux"):
        return None
    alone = ["-P"] if sys.version_info >= (3, 11) else []
    request = {"do": "grow", "model": path, "runtime": runtime, "threads": threads, "batch": batch}
    command = [sys.executable, *alone, __file__, str(os.getpid())]
    limit_s = 2 * LOAD_S + inference_limit_s(batch)  # includes the time to start the runtime
    try:
        done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{runtime} did not run the model once within {limit_s:g} s") from None
    if done.returncode != 0:
        raise ModelError(f"{runtime} ended its process with status {done.returncode} while it ran the model once")
    answer = json.loads(done.stdout)
    if "ok" in answer:
        return int(answer["ok"])
    raise ModelError(answer["error"]) if answer["of"] == "model" else RuntimeError(answer["error"])


def _grown_bytes(path: str, runtime: str, threads: int, batch: int) -> int:
    """Return how much this process grows, without the runtime's package and the model's file."""
    with contextlib.suppress(ImportError):  # loading reports a missing package
        importlib.import_module(RUNTIMES[runtime][3])
        importlib.import_module("numpy").random.default_rng(0).random()  # the generator of the input is loaded here
    model = _read(path)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak to the present use
    before = _status_kb("VmRSS")
    handle = load(runtime, model, threads, batch)
    grown = _status_kb("VmHWM") - before
    del handle
    return 1024 * max(0, grown)


def _status_kb(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


# Requests and answers


class Server:
    """Answers requests, with one pair of models open at a time."""

    def __init__(self) -> None:
        self._pair: ModelPair | None = None
        self._open = contextlib.ExitStack()

    def answer(self, request: dict[str, Any]) -> Any:
        """Return the answer to a request. Raises ModelError for the model's own failure, others for this machine's."""
        do, how = request["do"], (request.get("runtime", "litert"), request.get("threads", 1), request.get("batch", 1))
        if do == "hello":
            return fingerprint(how[0])
        if do == "condition":
            return condition()
        if do == "memory":
            return peak_memory_bytes(request["model"], *how)
        if do == "grow":
            return _grown_bytes(request["model"], *how)
        if do == "open":
            models = [(_read(model), runtime) for model, runtime in zip(request["models"], request["runtimes"])]  # noqa: B905 (Python 3.9)
            return self._begin(models, request["core"], *how[1:])
        if do == "round" and self._pair is not None:
            return self._pair.round(request["mirrored"])
        if do == "close":
            self.close()
            return None
        raise ValueError(f"request must be known and fit the open models, but got {do!r}")

    def close(self) -> None:
        self._pair = None
        self._open.close()

    def _begin(
        self, models: list[tuple[bytes, str]], core: int | str | None, threads: int, batch: int
    ) -> dict[str, Any]:
        self.close()
        chosen = measuring_core() if core == "auto" else core
        ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        pinned = chosen if threads == 1 and chosen in ours else None
        self._open.enter_context(steady(pinned))
        self._pair = ModelPair(models, threads, batch, first=pinned is not None)
        realtime = False
        if pinned is not None:
            with prioritised(1.0) as realtime:  # whether turns will have the priority
                pass
        return {"core": pinned, "realtime": realtime, "runs": self._pair.runs}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def end_with(parent: int) -> None:
    """Make this process end when its parent does, as `mnas.children.end_with` does, which a board does not have."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Serve until the input ends. Standard output is for answers, so a runtime's prints go to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.platform != "win32":
        for number in (signal.SIGALRM, signal.SIGXCPU):  # the signals that end a model that takes too long
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    server = Server()
    for line in io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"):
        try:
            reply: dict[str, Any] = {"ok": server.answer(json.loads(line))}
        except ModelError as error:
            reply = {"error": _line(error), "of": "model"}
        except ImportError as error:
            reply = {"error": _line(error), "of": "setup"}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {_line(error)}", "of": "unit"}
        print(json.dumps(reply), file=answers, flush=True)
    server.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the parent's process number
        end_with(int(sys.argv[1]))
    main()
