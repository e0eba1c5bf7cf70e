"""`script.py` behind a program that fails as devices do; a copy of this file lies in each unit's folder.

`faults.json` beside it lists the faults to come, each {"kind", "at": request, "bytes": only of a candidate of that
size, "times": how often}; what has happened is counted there, as the program dies of some.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mnas.latency import script
from mnas.latency.host import LocalChannel
from mnas.latency.scripted import ScriptUnit

FOLDER = Path(__file__).parent
KINDS = ["die", "hang", "truncate", "garble", "other unit", "zero", "negative", "nan", "full", "lose the file"]


def faulty_unit(name: str, folder: Path) -> ScriptUnit:
    """A unit whose program reads its faults from `folder`."""
    folder.mkdir(exist_ok=True)
    program = folder / "faulty.py"
    program.write_text(Path(__file__).read_text())
    return ScriptUnit(name, lambda: LocalChannel(str(program)))


def plan(folder: Path, *faults: dict[str, object]) -> None:
    (folder / "faults.json").write_text(json.dumps([{"at": "round", "times": 1, **fault} for fault in faults]))


def due(request: dict, opened_bytes: int) -> dict | None:
    path = FOLDER / "faults.json"
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


def main() -> None:
    command = [sys.executable, "-P", script.__file__]
    real = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    opened_bytes = 0
    for line in sys.stdin:
        request = json.loads(line)
        with (FOLDER / "log").open("a") as log:
            log.write(request["do"] + "\n")
        if request["do"] == "open":
            opened_bytes = os.path.getsize(request["models"][0])
        fault = due(request, opened_bytes)
        if fault and fault["kind"] in BEFORE:
            BEFORE[fault["kind"]](request)
        if request["do"] == "memory":  # takes a second, and is not what is tested here
            answer = '{"ok": null}'
        else:
            real.stdin.write(line)
            real.stdin.flush()
            answer = real.stdout.readline().strip()
        if fault and fault["kind"] in AFTER:
            answer = AFTER[fault["kind"]](answer, fault)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
