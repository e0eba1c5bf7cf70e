"""Boards over ssh: a real sshd on this machine, real processes, and their failures in the middle of work."""

import ast
import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from sshd import needs_sshd, running_sshd

from mnas.latency.devices import scripted, ssh, ssh_login
from mnas.latency.devices.host import host_unit
from mnas.latency.devices.registry import find_device, open_units
from mnas.latency.devices.ssh import SshChannel, ssh_unit
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.latency.onboard import keeper, script
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.zoo.architectures import named_arch

pytestmark = [needs_sshd, pytest.mark.usefixtures("home")]
SETUP = Setup()


@pytest.fixture(scope="module")
def reference():
    return make_reference(named_arch("mnasnet-small@0.5/s8"), "small", 32, 10)


@pytest.fixture(scope="module")
def models(reference):
    return reference.light_file, reference.file


@pytest.fixture
def board(server):
    with contextlib.closing(ssh_unit("board", server.address, python=sys.executable)) as unit:
        yield unit
    assert server.left() == []


def work_until(fault, unit, models):
    """Run rounds without end; `fault` is called in the middle of one."""
    with unit.session(models, SETUP) as session:
        session.round(False)
        threading.Timer(0.02, fault).start()
        while True:
            session.round(False)


def fails(fault, unit, models, match):
    """Assert that `fault` makes a round fail with one line that matches."""
    with pytest.raises(UnitError, match=match) as raised:
        work_until(fault, unit, models)
    assert "\n" not in str(raised.value)


def try_at(address, python, models=None):
    """Connect and return the fingerprint, or with models measure and return whether the times are valid."""
    with contextlib.closing(ssh_unit("board", address, python=python)) as unit:
        if models is None:
            return unit.fingerprint(SETUP)
        return works(unit, models)


def works(unit, models):
    with unit.session(models, SETUP) as session:
        return all(time > 0 for times in session.round(False) for time in times.wall_ms + times.kept_ms)


def test_a_board_reports_what_this_machine_reports(board, reference, server):
    with contextlib.closing(host_unit()) as host:
        assert board.fingerprint(SETUP) == host.fingerprint(SETUP)
        assert board.condition().cores == host.condition().cores
        calibration = calibrate(board, reference, budget_s=0.2)
        there = measure(board, reference.light_file, reference, calibration, budget_s=0.2)
        here = measure(host, reference.light_file, reference, calibration, budget_s=0.2)
    assert (there.unit, there.source, there.against) == ("board", "measured", "light")
    assert 0.5 < there.latency_ms / here.latency_ms < 2  # the same model on the same machine
    assert 0.5 < there.ratio / calibration.light_ratio < 2
    assert board.peak_memory_bytes(reference.file, SETUP) > 0
    folder = next(server.temporary.glob(keeper.PREFIX + "*"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert keeper.SCRIPT in [path.name for path in folder.iterdir()]


def test_a_dropped_connection_leaves_nothing_and_the_next_use_connects_again(board, models, server):
    fails(server.drop, board, models, "^board: .*connection")
    assert server.left() == []
    assert works(board, models)


def test_a_killed_script_is_the_devices_failure(board, models, server):
    fails(lambda: os.kill(server.measuring(), signal.SIGKILL), board, models, r"process ended with status -9")
    assert server.left() == []
    assert works(board, models)


def test_a_killed_keeper_takes_the_script_with_it(board, models, server):
    fails(lambda: os.kill(server.keeping(), signal.SIGKILL), board, models, "killed by SIGKILL")
    assert server.left(but=keeper.LOCK) == []  # the file remains, but no process holds the lock
    assert works(board, models)


@pytest.mark.parametrize("who", ["measuring", "keeping"])
def test_a_process_that_hangs_is_ended(board, models, server, who, monkeypatch):
    monkeypatch.setattr(scripted, "ROUND_TIMEOUT_S", 1.0)
    monkeypatch.setattr(ssh, "LEAVE_S", 0.5)
    fails(lambda: os.kill(getattr(server, who)(), signal.SIGSTOP), board, models, "did not answer within 1 s")
    assert server.left(but=keeper.LOCK if who == "keeping" else "") == []
    assert works(board, models)


def test_a_board_that_vanishes_silently_is_noticed(board, models, server, monkeypatch):
    monkeypatch.setattr(ssh_login, "KEEPALIVE_S", 0.2)
    fails(lambda: server.drop(signal.SIGSTOP), board, models, "keepalive")
    server.drop()


def test_interrupted_by_the_keyboard(board, models, server):
    def interrupt():
        os.kill(server.measuring(), signal.SIGSTOP)  # so that the signal comes during the wait for an answer
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work_until(interrupt, board, models)
    assert server.left() == []
    assert works(board, models)


CORRUPTING = """#!{python}
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE)
how = open(__file__ + ".how").read()

def times(line, change):
    times = json.loads(line)["ok"]
    return json.dumps({"ok": {kind: [[change(t) for t in one] for one in times[kind]] for kind in times}})

for line in child.stdout:
    if b"wall_ms" in line:
        line = eval(how)
    os.write(1, line if isinstance(line, bytes) else line.encode() + b"\\n")
    if isinstance(line, bytes) and not line.endswith(b"\\n"):
        break
else:
    sys.exit(child.wait())
"""


# the slow ones are like the last one, and test_device_pool.py has them without ssh
@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("line[:100]", "in the middle of an answer"),
        ("line[:100] + b'\\n'", "unexpected answer"),
        ("bytes(255 - b for b in line[:-1]) + b'\\n'", "unexpected answer"),
        ("b'x' * 300_000", "an answer exceeds 200000 bytes"),
        ("times(line, lambda t: 1000 * t)", "ms of inferences in a round of"),
        ("times(line, lambda t: t / 1000)", "which is too short for a turn"),
        pytest.param("times(line, lambda t: 0.0)", "positive and finite", marks=pytest.mark.slow),
        pytest.param("times(line, lambda t: -t)", "positive and finite", marks=pytest.mark.slow),
        ("times(line, lambda t: float('nan'))", "unexpected answer"),
    ],
)
def test_impossible_answers_never_count_as_times(server, models, how, match, monkeypatch):
    monkeypatch.setattr(ssh, "LONGEST_LINE", 200_000)
    wrapper = server.python("corrupting", CORRUPTING)
    (server.folder / "corrupting.how").write_text(how)
    with pytest.raises(UnitError, match=match) as raised:
        try_at(server.address, wrapper, models)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= 500
    assert server.left() == []


def test_a_full_disk(models, tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd") as server:
        monkeypatch.setenv("HOME", str(server.home))
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(server.temporary)]
        if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
            python, reason = sys.executable, "No space left on device"
        else:  # an ordinary user can only limit the size of files
            mount = []
            python = server.python("small", '#!/bin/sh\nulimit -f 120\nexec {python} "$@"\n')
            reason = "File too large"
        try:
            with pytest.raises(UnitError, match=rf"model-[01]-\w+: cannot be written, {reason}"):
                try_at(server.address, python, models)
            assert server.left() == []
        finally:
            if mount:
                subprocess.run(["umount", server.temporary], check=True)


def test_a_file_that_is_lost_after_it_was_sent(board, models, monkeypatch):
    bring = SshChannel.put

    def bring_and_lose(self, name, content):
        path = bring(self, name, content)
        if name == "model-1":
            os.unlink(path)
        return path

    monkeypatch.setattr(SshChannel, "put", bring_and_lose)
    with pytest.raises(UnitError, match=r"FileNotFoundError.*/model-1"), board.session(models, SETUP):
        pass
    monkeypatch.undo()


def test_a_model_on_the_board_is_not_sent_again_and_few_are_kept(board, models, server, monkeypatch):
    brought, bring = [], SshChannel._bring
    monkeypatch.setattr(
        SshChannel, "_bring", lambda self, name, *how: brought.append(name[:7]) or bring(self, name, *how)
    )
    for number in range(6):
        candidate = models[0] + bytes(4 * [number])  # another file, the same model
        with board.session((candidate, models[1]), SETUP):
            pass
        assert board.peak_memory_bytes(candidate, SETUP) > 0
    assert brought == [keeper.SCRIPT[:7], "model-0", "model-1", *5 * ["model-0"]]
    kept = sorted(server.temporary.glob(keeper.PREFIX + "*/model*"))
    assert len(kept) == ssh.KEPT_FILES
    for path in kept:
        path.write_bytes(b"damaged")
    assert works(board, models)
    assert brought[-2:] == ["model-0", "model-1"]


def test_a_model_that_the_runtime_cannot_run_is_the_models_own_failure(board, models):
    for broken in (models[0][:1000], b"\x89PNG" * 100, b""):
        with pytest.raises(MeasurementError), board.session((broken, models[1]), SETUP):
            pass
    assert works(board, models)


def test_a_board_without_the_runtime_names_the_package(server, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    with pytest.raises(ValueError, match=r"^board: runtime litert needs .* pip install ai-edge-litert$"):
        try_at(server.address, python)
    assert server.left() == []


def test_a_board_without_that_python(server):
    with pytest.raises(UnitError, match=r"^board: .*ended with status 12[67]: .*/nowhere/python3"):
        try_at(server.address, "/nowhere/python3")
    assert server.left() == []


def test_lines_that_a_shell_prints_first_are_ignored(server):
    python = server.python("talking", '#!/bin/sh\necho Welcome to Debian; echo; echo "{}"\nexec {python} "$@"\n')
    assert try_at(server.address, python)["os"] == "Linux"
    assert server.left() == []


def test_two_machines_never_measure_together_and_the_message_names_the_holder(server, models, monkeypatch):
    said, waited_s = [], []

    def wait_and_work():
        with second.session(models, SETUP) as session:
            waited_s.append(session.waited_s)

    first = ssh_unit("first", server.address, python=sys.executable)
    second = ssh_unit("second", server.address, python=sys.executable, say=said.append)
    second.fingerprint(SETUP)  # a connection alone claims nothing
    with contextlib.closing(first), contextlib.closing(second):
        with first.session(models, SETUP) as session:
            done = threading.Thread(target=wait_and_work)
            done.start()
            while not said:
                session.round(False)
            seen = time.perf_counter()
            session.round(False)
            assert done.is_alive()
            held_s = time.perf_counter() - seen
        done.join(30)
        assert not done.is_alive()
        assert len(said) == len(waited_s) == 1
        assert waited_s[0] >= held_s  # the wait is not part of the budget, whose clock starts afterwards
        assert f"(process {os.getpid()}), since " in said[0]
        with first.session(models, SETUP), monkeypatch.context() as patch:
            patch.setattr(ssh, "CLAIM_TIMEOUT_S", 0.1)
            with pytest.raises(UnitError, match=f"was still measuring for .*process {os.getpid()}"):
                works(second, models)
        second.close()
        with first.session(models, SETUP):
            os.kill(server.keeping(), signal.SIGKILL)  # the claim ends with its holder
            assert works(second, models)
    assert server.left() == []


def test_an_entry_of_the_registry_is_a_board(server, tmp_path):
    file = tmp_path / "devices.toml"
    file.write_text(f'[pi]\nkind = "ssh"\naddress = "{server.address}"\npython = "{sys.executable}"\ncore = 0\n')
    (unit,) = open_units(find_device("pi", file), print)
    with contextlib.closing(unit), contextlib.closing(host_unit()) as host:
        assert unit.fingerprint(SETUP) == host.fingerprint(SETUP)
    assert server.left() == []


def test_a_controlling_machine_that_dies_leaves_nothing(server, tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(os.path.dirname(__file__))!r})
from mnas.latency.latency import Setup
from mnas.latency.devices.registry import find_device, open_units
from mnas.latency.devices.ssh import ssh_unit
unit = ssh_unit("board", {server.address!r}, python=sys.executable)
print(unit.fingerprint(Setup()), flush=True)
input()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert b"LiteRT" in child.stdout.readline()
    assert server.measuring()
    child.kill()
    child.communicate()
    assert server.left() == []


def keep(server, silence_s):
    environment = {**os.environ, "TMPDIR": str(server.temporary)}
    code = f"from mnas.latency.onboard import keeper; keeper.main({silence_s})"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def order(process, message, content=b""):
    process.stdin.write(json.dumps(message).encode() + b"\n" + content)
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def test_a_keeper_ends_after_a_long_silence(server):
    with keep(server, 1.0) as process:
        assert json.loads(process.stdout.readline())["keeper"]["pid"] == process.pid
        source = inspect.getsource(script).encode()
        put = {"keeper": "put", "name": keeper.SCRIPT, "size": len(source), "sha256": "0" * 64}
        assert "the bytes read back differ" in order(process, put, source)["error"]
        put["sha256"] = keeper.hashlib.sha256(source).hexdigest()
        assert order(process, put, source)["ok"].endswith(keeper.SCRIPT)
        assert order(process, {"keeper": "start"})["ok"] == server.measuring()
        assert order(process, {"do": "condition"})["ok"]["cores"]
        assert process.wait(10) == 0  # the input is still open
    assert server.left() == []


def test_what_a_killed_keeper_left_is_swept_by_the_next(server):
    with keep(server, 60.0) as process:
        folder = json.loads(process.stdout.readline())["keeper"]["folder"]
        process.kill()
    with keep(server, 60.0) as living:
        kept = json.loads(living.stdout.readline())["keeper"]["folder"]
        assert sorted(os.listdir(server.temporary)) == sorted(map(os.path.basename, [folder, kept]))  # just left
        for path in (folder, kept):
            os.utime(path, (0, 0))
        with keep(server, 60.0) as next_one:
            other = json.loads(next_one.stdout.readline())["keeper"]["folder"]
            assert sorted(os.listdir(server.temporary)) == sorted(map(os.path.basename, [kept, other]))
            next_one.stdin.close()
        living.stdin.close()
    assert server.left() == []


def test_what_runs_on_a_board_is_python_3_9():
    for module in (keeper, script):
        ast.parse(inspect.getsource(module), feature_version=(3, 9))
