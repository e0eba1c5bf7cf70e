"""`script.py` behind a program that fails as devices do: what runs in its place is `client.py` in each unit's folder.

As importing LiteRT takes longer than a measurement, each of these programs is run by a fork of one process that has
imported it (`python faulty.py SOCKET`), a separate process with the streams of the process that asked for it.

`faults.json` beside it lists the faults to come, each {"kind", "at": request, "bytes": only of a candidate of that
size, "times": how often}; what has happened is counted there, as the program dies of some.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mnas.latency.devices.host import LocalChannel
from mnas.latency.devices.scripted import ScriptUnit
from mnas.latency.onboard import script

KINDS = ["die", "hang", "truncate", "garble", "other unit", "zero", "negative", "nan", "full", "lose the file"]
TURN_S = 0.004
"""Length of a model's turn in seconds; these tests compare times only by orders of magnitude."""
CLIENT = """
import os, socket
with socket.socket(socket.AF_UNIX) as zygote:
    zygote.connect({socket!r})
    socket.send_fds(zygote, [{folder!r}.encode()], [0, 1, 2])
    code = zygote.recv(1)
if code != b"\\0":
    os._exit(code[0] if code else 1)
"""


@contextlib.contextmanager
def faulty_programs(folder: Path) -> Iterator[Path]:
    """Yield the socket of the process that programs are forked from; it lives as long as the context."""
    path = folder / "zygote"
    command = [sys.executable, __file__, str(path)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield path
        process.stdin.close()


def faulty_unit(name: str, folder: Path, programs: Path) -> ScriptUnit:
    """Return a unit whose program reads its faults from `folder`."""
    folder.mkdir(exist_ok=True)
    program = folder / "client.py"
    program.write_text(CLIENT.format(socket=str(programs), folder=str(folder)))
    return ScriptUnit(name, lambda: LocalChannel(str(program)))


def plan(folder: Path, *faults: dict[str, object]) -> None:
    (folder / "faults.json").write_text(json.dumps([{"at": "round", "times": 1, **fault} for fault in faults]))


def due(folder: Path, request: dict, opened_bytes: int) -> dict | None:
    path = folder / "faults.json"
    faults = json.loads(path.read_text()) if path.exists() else []
    for fault in faults:
        if fault["at"] == request["do"] and fault["times"] > 0 and fault.get("bytes") in (None, opened_bytes):
            fault["times"] -= 1
            path.write_text(json.dumps(faults))
            return fault
    return None


def scaled(answer: str, factor: float, names: tuple[str, ...]) -> str:
    told = json.loads(answer)
    for name in names:
        told["ok"][name] = [[t * factor for t in times] for times in told["ok"][name]]
    return json.dumps(told)


BEFORE: dict[str, Callable[[dict], None]] = {
    "die": lambda request: os._exit(9),
    "hang": lambda request: time.sleep(600),
    "lose the file": lambda request: os.unlink(request["models"][0]),
}
AFTER: dict[str, Callable[[str, dict], str]] = {
    "truncate": lambda answer, fault: answer[: len(answer) // 2],
    "garble": lambda answer, fault: "\x00\x7f" + answer[::-1],
    "other unit": lambda answer, fault: scaled(answer, 1000, ("wall_ms", "kept_ms")),
    "zero": lambda answer, fault: scaled(answer, 0, ("kept_ms",)),
    "negative": lambda answer, fault: scaled(answer, -1, ("wall_ms", "kept_ms")),
    "nan": lambda answer, fault: scaled(answer, float("nan"), ("kept_ms",)),
    "full": lambda answer, fault: json.dumps({"error": "OSError: No space left on device", "of": "unit"}),
    "speed": lambda answer, fault: scaled(answer, fault["factor"], ("kept_ms",)),
    "another": lambda answer, fault: json.dumps({"ok": {**json.loads(answer)["ok"], "processor": "another"}}),
}


def program(folder: Path) -> None:
    """Pass on requests and answers, with the planned faults."""
    (theirs, requests), (answers, ours) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.dup2(theirs, 0)
        os.dup2(ours, 1)
        for number in (theirs, requests, answers, ours):  # otherwise its input would have no end
            os.close(number)
        script.main()
        os._exit(0)
    os.close(theirs)
    os.close(ours)
    opened_bytes = 0
    with open(requests, "w") as to_real, open(answers) as from_real:
        for line in sys.stdin:
            request = json.loads(line)
            with (folder / "log").open("a") as log:
                log.write(request["do"] + "\n")
            if request["do"] == "open":
                opened_bytes = os.path.getsize(request["models"][0])
            fault = due(folder, request, opened_bytes)
            if fault and fault["kind"] in BEFORE:
                BEFORE[fault["kind"]](request)
            if request["do"] == "memory":  # takes a second, and is tested elsewhere
                answer = '{"ok": null}'
            else:
                to_real.write(line)
                to_real.flush()
                answer = from_real.readline().strip()
            if fault and fault["kind"] in AFTER:
                answer = AFTER[fault["kind"]](answer, fault)
            print(answer, flush=True)


def attend(connection: socket.socket) -> None:
    """Run a program for the client at the other end and send its exit status; it is killed with the client."""
    folder, streams, _, _ = socket.recv_fds(connection, 4096, 3)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        program(Path(folder.decode()))
        os._exit(0)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(bytes([code % 256]))


def main() -> None:
    """Fork for every client, until the input ends."""
    import ai_edge_litert.interpreter
    import numpy as np

    np.random.default_rng(0)
    assert ai_edge_litert.interpreter
    script.TURN_S = TURN_S
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print("listens", flush=True)
        while 0 not in (ready := select.select([0, listener], [], [])[0]):
            assert ready
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                attend(connection)
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    main()
