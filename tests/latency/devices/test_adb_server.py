"""The adb server of the tests speaks the real protocol: Debian's own client and adbutils are served by it."""

import os
import socket
import struct
import subprocess

import pytest

from tests.latency.phones import needs_adb

adbutils = pytest.importorskip("adbutils")


def adb(phones, *words, data=None):
    environment = {**os.environ, "HOME": "/nonexistent"}
    environment.pop("ANDROID_SERIAL", None)
    return subprocess.run(
        ["adb", "-P", str(phones.port), *words], capture_output=True, input=data, timeout=30, env=environment
    )


@needs_adb
def test_debian_s_client_lists_runs_and_copies(phones, phone, tmp_path):
    assert adb(phones, "devices").stdout == b"List of devices attached\nFAKE0001\tdevice\n\n"
    assert b"FAKE0001               device product:fake" in adb(phones, "devices", "-l").stdout
    assert adb(phones, "get-state").stdout == b"device\n"
    done = adb(phones, "-s", "FAKE0001", "shell", "getprop ro.product.model; echo no >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"Fake Phone 8\n", b"no\n")
    assert adb(phones, "shell", "cat", data=b"a\nb\n").stdout == b"a\nb\n"
    content = os.urandom(200_000)
    (tmp_path / "here").write_bytes(content)
    assert adb(phones, "push", str(tmp_path / "here"), "/data/local/tmp/there").returncode == 0
    assert (phone.tmp / "there").read_bytes() == content
    assert adb(phones, "pull", "/data/local/tmp/there", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == content
    assert adb(phones, "exec-out", "cat /data/local/tmp/there").stdout == content
    assert b"there" in adb(phones, "shell", "ls /data/local/tmp").stdout


@needs_adb
def test_debian_s_client_is_refused_as_by_a_real_server(phones, phone, tmp_path):
    assert b"device 'OTHER' not found" in adb(phones, "-s", "OTHER", "shell", "true").stderr
    phones.tell({"FAKE0001": {"state": "unauthorized", "root": str(phone.root)}})
    assert adb(phones, "devices").stdout.split()[-1] == b"unauthorized"
    assert b"confirmation dialog" in adb(phones, "shell", "true").stderr
    phones.tell({"FAKE0001": {"state": "device", "root": str(phone.root), "full": True}})
    (tmp_path / "here").write_bytes(bytes(200_000))
    done = adb(phones, "push", str(tmp_path / "here"), "/data/local/tmp/there")
    assert done.returncode == 1
    assert b"No space left on device" in done.stdout + done.stderr
    phones.tell({})
    assert b"no devices/emulators found" in adb(phones, "shell", "true").stderr


def test_adbutils_lists_runs_and_copies(phones, phone):
    client = adbutils.AdbClient("127.0.0.1", phones.port)
    assert client.server_version() == 41
    assert [(d.serial, d.state) for d in client.list()] == [("FAKE0001", "device")]
    device = client.device("FAKE0001")
    assert "shell_v2" in device.get_features()
    assert device.shell("getprop ro.soc.model") == "Tensor G0"
    done = device.shell2("echo out; echo err >&2; exit 3", v2=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert device.shell2("kill -9 $$", v2=True).returncode == 137
    content = os.urandom(100_000)
    assert device.sync.push(content, "/data/local/tmp/file", 0o640) == len(content)
    assert device.sync.read_bytes("/data/local/tmp/file") == content
    told = device.sync.stat("/data/local/tmp/file")
    assert (told.size, told.mode & 0o777) == (100_000, 0o640)
    assert "file" in [entry.path for entry in device.sync.list("/data/local/tmp")]
    with pytest.raises(adbutils.AdbError, match="No such file"):
        device.sync.read_bytes("/data/local/tmp/none")


def test_newer_requests_of_the_file_service(phones, phone):
    """The requests are those of adb 31 and later."""
    with (
        socket.create_connection(("127.0.0.1", phones.port), timeout=10) as connection,
        connection.makefile("rb") as answers,
    ):

        def ask(data, count):
            connection.sendall(data)
            return answers.read(count)

        def service(text):
            return f"{len(text):04x}{text}".encode()

        assert ask(service("host:tport:serial:FAKE0001"), 12)[:4] == b"OKAY"
        assert ask(service("sync:"), 4) == b"OKAY"
        path = b"/data/local/tmp/new"

        def named(name):
            return name + struct.pack("<I", len(path)) + path

        send = named(b"SND2") + struct.pack("<4sII", b"SND2", 0o100600, 0)
        send += b"DATA" + struct.pack("<I", 5) + b"hello" + b"DONE" + struct.pack("<I", 1_700_000_000)
        assert ask(send, 8) == b"OKAY" + bytes(4)
        told = struct.unpack("<4sIQQIIIIQqqq", ask(named(b"STA2"), 72))
        assert (told[0], told[1], told[4], told[8], told[10]) == (b"STA2", 0, 0o100600, 5, 1_700_000_000)
        answer = ask(named(b"RCV2") + struct.pack("<4sI", b"RCV2", 0), 21)
        assert answer == b"DATA" + struct.pack("<I", 5) + b"hello" + b"DONE" + bytes(4)
        path = b"/data/local/tmp/none"
        assert struct.unpack("<4sI", ask(named(b"LST2"), 72)[:8]) == (b"LST2", 2)  # ENOENT
        assert ask(named(b"RECV"), 4) == b"FAIL"
