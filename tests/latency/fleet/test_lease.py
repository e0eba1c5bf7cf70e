"""Leases between real processes and threads: one holder at a time, none after the holder's death."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mnas.latency.fleet.lease import GivenUpError, lease, lease_key

HOLD = """
import sys, time
from pathlib import Path
from mnas.latency.fleet.lease import lease
with lease(Path(sys.argv[1]), "adb-x", "pixel", say=lambda text: print(text, flush=True)):
    print("held", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
"""
COUNT = """
import sys, time
from pathlib import Path
from mnas.latency.fleet.lease import lease
folder = Path(sys.argv[1])
for _ in range(6):
    with lease(folder, "host", "host", say=print):
        (folder / "inside").touch(exist_ok=False)  # FileExistsError if another process is inside
        with (folder / "log").open("a") as log:
            log.write(sys.argv[2])
        time.sleep(0.15)  # three times the pause of a waiting process
        (folder / "inside").unlink()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def held_by(folder: Path) -> subprocess.Popen[str]:
    process = start(HOLD, folder)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_waits_names_the_holder_and_gets_the_lease(tmp_path):
    first = held_by(tmp_path)
    second = start(HOLD, tmp_path)
    said = second.stdout.readline()
    assert re.fullmatch(rf"waiting for pixel, held by pid {first.pid} \(.*\) since \d\d:\d\d:\d\d\n", said)
    assert first.communicate("\n")[0] == "let go\n"
    assert re.fullmatch(r"pixel is free after \d+ s\n", second.stdout.readline())
    assert second.stdout.readline() == "held\n"
    assert json.loads((tmp_path / "adb-x.json").read_text())["pid"] == second.pid
    second.communicate("\n")
    assert not (tmp_path / "adb-x.json").exists()


def test_a_lease_dies_with_its_holder(tmp_path):
    first = held_by(tmp_path)
    second = start(HOLD, tmp_path)
    assert f"held by pid {first.pid}" in second.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert "is free" in second.stdout.readline()
    assert second.stdout.readline() == "held\n"
    second.kill()
    second.wait()
    assert (tmp_path / "adb-x.json").exists()  # the note of a killed holder delays nobody
    third = held_by(tmp_path)
    third.communicate("\n")


def test_a_waiter_that_is_killed_delays_nobody(tmp_path):
    first = held_by(tmp_path)
    second = start(HOLD, tmp_path)
    assert "waiting" in second.stdout.readline()  # it waits at the door
    second.kill()
    second.wait()
    first.communicate("\n")
    third = held_by(tmp_path)
    third.communicate("\n")


def test_processes_are_never_inside_together_and_take_turns(tmp_path):
    both = [start(COUNT, tmp_path, name) for name in "ab"]
    assert [p.wait(60) for p in both] == [0, 0]
    order = (tmp_path / "log").read_text()
    assert sorted(order) == ["a"] * 6 + ["b"] * 6
    together = order[order.index("b" if order[0] == "a" else "a") :].rstrip(order[-1])
    assert not re.search("aaa|bbb", together)  # a holder that leaves queues behind those that wait


def test_threads_of_one_process_are_kept_apart_too(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(10):
            with lease(tmp_path, "host", "host", say=lambda text: None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 30


def test_a_waiter_can_be_asked_to_give_up(tmp_path):
    holder, stop = held_by(tmp_path), threading.Event()
    said = []

    def say(text):
        said.append(text)
        stop.set()

    with pytest.raises(GivenUpError), lease(tmp_path, "adb-x", "pixel", say=say, stop=stop):
        pass
    assert said[0].startswith(f"waiting for pixel, held by pid {holder.pid} ")
    holder.communicate("\n")


def test_a_child_of_a_killed_holder_does_not_keep_it(tmp_path):
    """A search forks its workers, which outlive it by a moment."""
    fork = HOLD.replace("sys.stdin.readline()", "os.write(1, b'%d\\n' % os.fork()); time.sleep(60)").replace(
        "import sys, time", "import os, sys, time"
    )
    holder = start(fork, tmp_path)
    assert holder.stdout.readline() == "held\n"
    child = max(int(holder.stdout.readline()) for _ in range(2))  # the child writes 0
    try:
        holder.kill()
        holder.wait()
        held_by(tmp_path).communicate("\n")
        os.kill(child, 0)  # it is still running
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_damaged_note_is_another_process(tmp_path):
    holder = held_by(tmp_path)
    (tmp_path / "adb-x.json").write_text('{"pid": ')
    second = start(HOLD, tmp_path)
    assert second.stdout.readline() == "waiting for pixel, held by another process\n"
    holder.communicate("\n")
    second.communicate("\n")


def test_devices_have_their_own_keys():
    keys = [lease_key("host", ""), lease_key("ssh", "pi@a"), lease_key("ssh", "pi@b"), lease_key("adb", "pi@a")]
    assert keys[0] == "host"
    assert len(set(keys)) == 4
    assert lease_key("ssh", "a/b:22") != lease_key("ssh", "a_b_22")
    assert "/" not in lease_key("ssh", "a/b:22")
