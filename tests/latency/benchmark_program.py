"""`benchmark_model` for simulated phones: it runs LiteRT, and prints what the official tool prints.

`CLIENT` is the program that is pushed to a phone. As importing LiteRT takes longer than a round, each of its calls is
run by a fork of one process that has imported it (`python benchmark_program.py` prints the port), a process of its own.
`PHONE_ROOT/fault` makes it fail: {"kind": ..., "calls": [numbers of the calls, from 1, that load a model]}.
"""

import json
import os
import resource
import socket
import sys
import time

CLIENT = """#!{python} -SI
import json, os, signal, socket, sys, time

root = os.environ["PHONE_ROOT"]
flags = dict(f.lstrip("-").split("=", 1) for f in sys.argv[1:] if "=" in f)


def text_of(name, default):
    try:
        with open(os.path.join(root, name)) as file:
            return file.read()
    except OSError:
        return default


number = int(text_of("calls", "0")) + ("graph" in flags)
with open(os.path.join(root, "calls.new"), "w") as file:
    file.write(str(number))
os.replace(file.name, os.path.join(root, "calls"))
fault = json.loads(text_of("fault", "{{}}"))
kind = fault.get("kind") if "graph" in flags and number in fault.get("calls", ()) else None
if kind == "hang":
    time.sleep(600)
elif kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif kind == "lost":
    os.remove(flags["graph"])
elif kind == "vanish":
    with open(os.environ["PHONES"], "w") as file:
        file.write("{{}}")
    time.sleep(600)
clock = os.path.join(root, "sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq")
if fault.get("kind") == "slow":
    with open(clock, "w") as file:
        file.write("1200000\\n" if kind == "slow" else text_of(clock.replace("scaling_cur", "cpuinfo_max"), ""))
with socket.create_connection(("127.0.0.1", int(os.environ["PHONE_ZYGOTE"]))) as connection:
    connection.sendall(json.dumps(flags).encode() + b"\\n")
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
if not answer:
    sys.exit(139)
given = json.loads(answer)
text = given["text"]
if kind == "truncated":
    text = text[: text.rindex("count=") + 30]
elif kind == "garbled":
    text = text.replace("avg", chr(0xFFFD) * 3)
elif kind == "silent":
    text = ""
elif kind in ("milliseconds", "zero", "negative", "nan"):
    import re

    change = {{
        "milliseconds": lambda v: format(float(v) / 1000, ".6g"),
        "zero": lambda v: "0",
        "negative": lambda v: "-" + v,
        "nan": lambda v: "nan",
    }}[kind]
    head, end = text.split("Initialized session", 1)
    end = re.sub(r"(?<=[=:] )[0-9.e+]+(?=,|\\n)|(?<=(?:irst|curr|.min|.max|.avg|.std)=)[0-9.e+]+| [0-9.]+(?=ms)",
                 lambda m: " " * m[0].startswith(" ") + change(m[0].strip()), end)
    text = head + "Initialized session" + end
sys.stdout.write(text)
sys.stdout.flush()
sys.exit(given["code"])
"""


def client() -> bytes:
    """Write the program."""
    return CLIENT.format(python=sys.executable).encode()


def six(value: float) -> str:
    """Return the number as a C++ stream prints it, with 6 digits."""
    return f"{value:.6g}"


class Tool:
    """One call of the program."""

    def __init__(self, flags: dict[str, str]) -> None:
        self.flags, self.lines = flags, ["STARTING!"]

    def log(self, text: str, severity: str = "INFO: ") -> None:
        self.lines.append(severity + text)

    def number(self, name: str, default: float) -> float:
        return float(self.flags.get(name, default))

    def run(self) -> int:
        self.lines = ["INFO: STARTING!"]
        self.log("Log parameter values verbosely: [0]")
        if "graph" not in self.flags:
            self.log("Please specify the name of your TF Lite input file with --graph", "ERROR: ")
            return 1
        for flag, title in (("num_runs", "Min num runs"), ("num_threads", "Num threads"), ("graph", "Graph")):
            self.log(f"{title}: [{self.flags.get(flag, '')}]")
        self.log(f"Use xnnpack: [{int(self.flags.get('use_xnnpack') == 'true')}]")
        try:
            self._time()
        except (ValueError, RuntimeError, OSError) as error:
            self.log(" ".join(str(error).split()), "ERROR: ")
            self.log("Benchmarking failed.", "ERROR: ")
            return 1
        return 0

    def _time(self) -> None:
        start_kb, started = memory_kb(), time.perf_counter_ns()
        invoke = self._load()
        init_kb, init_us = memory_kb(), (time.perf_counter_ns() - started) // 1000
        self.log(f"The input model file size (MB): {six(os.path.getsize(self.flags['graph']) / 1e6)}")
        self.log(f"Initialized session in {six(init_us / 1e3)}ms.")
        warm_up = self._phase(invoke, self.number("warmup_runs", 1), self.number("warmup_min_secs", 0.5))
        timed = self._phase(invoke, self.number("num_runs", 50), self.number("min_secs", 1))
        mean = [sum(times) / len(times) for times in (warm_up, timed)]
        self.log(
            f"Inference timings in us: Init: {init_us}, First inference: {warm_up[0]}, "
            f"Warmup (avg): {six(mean[0])}, Inference (avg): {six(mean[1])}"
        )
        self.log(
            "Memory footprint delta from the start of the tool (MB): "
            f"init={six((init_kb - start_kb) / 1024)} overall={six((memory_kb() - start_kb) / 1024)}"
        )

    def _load(self):
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kind = (
            OpResolverType.AUTO
            if self.flags.get("use_xnnpack") == "true"
            else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        interpreter = Interpreter(
            model_path=self.flags["graph"],
            num_threads=int(self.number("num_threads", 1)),
            experimental_op_resolver_type=kind,
        )
        for detail in interpreter.get_input_details():
            if detail["name"] == self.flags.get("input_layer"):
                shape = [int(size) for size in self.flags["input_layer_shape"].split(",")]
                interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()
        draw = np.random.default_rng(0)
        values = [
            (d["index"], draw.uniform(0, 1, d["shape"]).astype(d["dtype"])) for d in interpreter.get_input_details()
        ]

        # the simulated phone is idle whatever else this machine does, so one thread's own time counts
        clock = time.process_time_ns if self.number("num_threads", 1) == 1 else time.perf_counter_ns

        def invoke() -> int:
            for index, value in values:
                interpreter.set_tensor(index, value)
            started = clock()
            interpreter.invoke()
            return max(1, (clock() - started) // 1000)

        return invoke

    def _phase(self, invoke, runs: float, seconds: float) -> list[int]:
        self.log(
            f"Running benchmark for at least {runs:g} iterations and at least {seconds:g} seconds but terminate if "
            f"exceeding {self.number('max_secs', 150):g} seconds."
        )
        times, started = [], time.perf_counter()
        while (spent := time.perf_counter() - started) < self.number("max_secs", 150):
            if len(times) >= runs and spent >= seconds:
                break
            times.append(invoke())
        count, low, high = len(times), min(times), max(times)
        if low == high:
            given = f"count={count} curr={low}" + "(all same)" * (count > 1)
        else:
            mean = sum(times) / count
            spread = int((sum(t * t for t in times) / count - mean * mean) ** 0.5)
            given = f"count={count} first={times[0]} curr={times[-1]} min={low} max={high} avg={six(mean)} std={spread}"
        ranked = sorted(times)
        percentiles = " ".join(f"{n}={ranked[int(q * (count - 1))]}" for n, q in (("p5", 0.05), ("median", 0.5)))
        self.log(f"{given} {percentiles} p95={ranked[int(0.95 * (count - 1))]}\n")
        return times


def memory_kb() -> int:
    """Return the peak memory of this process, as the tool reads it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve() -> None:
    """Fork for every connection, until the parent has ended."""
    import signal

    import ai_edge_litert.interpreter  # noqa: F401 (this is what takes its time)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.5)
    print(listener.getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.settimeout(None)
        if os.fork() == 0:
            tool = Tool(json.loads(connection.makefile().readline()))
            code = tool.run()
            connection.sendall(json.dumps({"code": code, "text": "\n".join(tool.lines) + "\n"}).encode())
            os._exit(0)
        connection.close()


if __name__ == "__main__":
    serve()
