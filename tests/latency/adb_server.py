"""An adb server with simulated phones, each a folder: it speaks the smart-socket protocol over TCP, like a real one.

`python adb_server.py PHONES.json` prints its port. The file says what it knows: {"SERIAL": {"state": "device",
"root": FOLDER, "full": ..., "lossy": ...}}; it is read at every request: a test changes a phone by writing it. Commands
run in real processes by this machine's `sh`; /data/local/tmp and /sys in them mean those of the phone's folder, and
programs of its `bin` come first. Protocol: docs/dev/{services,sync,shell_protocol}.md of Android's adb.
"""

import contextlib
import json
import os
import re
import signal
import socket
import socketserver
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

VERSION = 41
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,apex,sendrecv_v2"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
UNAUTHORIZED = (
    "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\nTry 'adb kill-server' if that seems wrong.\n"
    "Otherwise check for a confirmation dialog on your device."
)


class RefusedError(Exception):
    """Error that the server answers as FAIL with its text."""


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, phones: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.file = phones

    def phones(self) -> dict[str, dict]:
        return json.loads(self.file.read_text())


class Connection(socketserver.BaseRequestHandler):
    server: Server
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            while self._serve(self._text(int(self._exactly(4), 16))):
                pass

    # requests to the server

    def _serve(self, request: str) -> bool:
        """Answer one request; return whether another may follow on this connection."""
        try:
            if request == "host:version":
                self._okay(f"{VERSION:04x}")
            elif request in ("host:devices", "host:devices-l"):
                self._okay(self._list(long=request.endswith("-l")))
            elif request == "host:kill":
                self._okay()
                os._exit(0)
            elif match := re.fullmatch(r"host:(tport:|transport[:-])(.*)", request):
                return self._transport(match[2], told=match[1] == "tport:")
            elif match := re.fullmatch(r"host(?:-serial:(.*?)|-usb|-local)?:([a-z-]+)", request):
                self._okay(self._about(match[1], match[2]))
            else:
                raise RefusedError("unknown host service")
        except RefusedError as reason:
            self._fail(str(reason))
        return False

    def _list(self, long: bool) -> str:
        lines = []
        for number, (serial, phone) in enumerate(self.server.phones().items(), 1):
            extra = f" product:fake model:Fake_Phone device:fake transport_id:{number}" if long else ""
            gap = f"{serial:<22} " if long else f"{serial}\t"
            lines.append(f"{gap}{phone['state']}{extra}\n")
        return "".join(lines)

    def _about(self, serial: str | None, what: str) -> str:
        serial, _ = self._phone(serial or "any", usable=what != "get-state")
        known = {"get-serialno": serial, "get-state": "device", "get-devpath": "usb:1-1", "features": FEATURES}
        if what == "get-state":
            return self.server.phones()[serial]["state"]
        if what == "host-features":
            return FEATURES
        if what not in known:
            raise RefusedError("unknown host service")
        return known[what]

    def _phone(self, which: str, usable: bool = True) -> tuple[str, dict]:
        phones = self.server.phones()
        if which in ("any", "usb", "local"):
            if len(phones) != 1:
                raise RefusedError("more than one device/emulator" if phones else "no devices/emulators found")
            which = next(iter(phones))
        elif re.fullmatch(r"id:\d+", which):
            which = dict(enumerate(phones, 1)).get(int(which[3:]), which)
        which = which.removeprefix("serial:")
        if which not in phones:
            raise RefusedError(f"device '{which}' not found")
        state = phones[which]["state"]
        if usable and state != "device":
            raise RefusedError(UNAUTHORIZED if state == "unauthorized" else f"device {state}")
        return which, phones[which]

    def _transport(self, which: str, told: bool) -> bool:
        serial, phone = self._phone(which)
        self._okay()
        if told:
            self.request.sendall(struct.pack("<Q", 1 + list(self.server.phones()).index(serial)))
        service = self._text(int(self._exactly(4), 16))
        name, _, argument = service.partition(":")
        if name == "sync":
            self._okay()
            Sync(self, Path(phone["root"]), full=phone.get("full", False), lossy=phone.get("lossy", False)).serve()
        elif name.split(",")[0] in ("shell", "exec"):
            self._okay()
            self._shell(serial, Path(phone["root"]), argument, packets="v2" in name.split(","), raw=name == "exec")
        else:
            self._fail("unknown service")
        return False

    # commands

    def _shell(self, serial: str, root: Path, command: str, packets: bool, raw: bool) -> None:
        environment = {
            "PATH": f"{root / 'bin'}:/usr/bin:/bin", "PHONE_ROOT": str(root), "PHONE_SERIAL": serial,
            "PHONES": str(self.server.file), "LANG": "C", "PHONE_ZYGOTE": os.environ.get("PHONE_ZYGOTE", ""),
        }  # fmt: skip
        process = subprocess.Popen(
            ["sh", "-c", on_phone(command, root)],
            stdin=subprocess.PIPE if packets else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if packets else subprocess.STDOUT,
            cwd=root,
            env=environment,
            start_new_session=True,
        )
        lock = threading.Lock()

        def pass_on(source, number: int) -> None:
            for line in source:
                data = line if raw else line.replace(str(root).encode(), b"")
                with lock, contextlib.suppress(OSError):
                    self.request.sendall(struct.pack("<BI", number, len(data)) + data if packets else data)

        threads = [threading.Thread(target=pass_on, args=(process.stdout, STDOUT), daemon=True)]
        if packets:
            threads.append(threading.Thread(target=pass_on, args=(process.stderr, STDERR), daemon=True))
            threading.Thread(target=self._feed, args=(process,), daemon=True).start()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.01)
            threads[-1].join(0.01)
            if serial not in self.server.phones():  # the phone was unplugged, which ends all its programs
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise ConnectionError
        code = process.wait()
        if packets:
            with contextlib.suppress(OSError):
                self.request.sendall(struct.pack("<BIB", EXIT, 1, code % 256 if code >= 0 else 128 - code))

    def _feed(self, process: subprocess.Popen) -> None:
        """Pass on standard input from the client, until it closes the input or disconnects."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                number, length = struct.unpack("<BI", self._exactly(5))
                data = self._exactly(length)
                if number == CLOSE_STDIN:
                    process.stdin.close()
                elif number == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()

    # bytes

    def _okay(self, text: str | None = None) -> None:
        data = b"" if text is None else f"{len(text.encode()):04x}".encode() + text.encode()
        self.request.sendall(b"OKAY" + data)

    def _fail(self, text: str) -> None:
        self.request.sendall(b"FAIL" + f"{len(text.encode()):04x}".encode() + text.encode())

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.request.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _text(self, count: int) -> str:
        return self._exactly(count).decode()


class Sync:
    """The file service of one connection."""

    def __init__(self, connection: Connection, root: Path, full: bool, lossy: bool) -> None:
        self._exactly, self._send = connection._exactly, connection.request.sendall
        self._root, self._full, self._lossy = root, full, lossy

    def serve(self) -> None:
        while True:
            name, length = self._exactly(4), struct.unpack("<I", self._exactly(4))[0]
            if name == b"QUIT":
                return None
            text = self._exactly(length).decode()
            known = {b"STAT": self._stat, b"STA2": self._stat2, b"LST2": self._stat2, b"LIST": self._list}
            known |= {b"SEND": self._receive, b"SND2": self._receive2, b"RECV": self._read, b"RCV2": self._read2}
            if name not in known:
                return self._fail(f"unknown command {name!r}")
            try:
                known[name](*([text, name] if name in (b"STA2", b"LST2") else [text]))
            except OSError as error:
                self._fail(f"{text.split(',')[0]}: {error.strerror}")

    def _path(self, text: str) -> Path:
        return Path(on_phone(text, self._root)) if text.startswith(("/data", "/sys")) else self._root / text.lstrip("/")

    def _stat(self, text: str) -> None:
        try:
            told = self._path(text).stat()
            values = told.st_mode, told.st_size, int(told.st_mtime)
        except OSError:
            values = 0, 0, 0
        self._send(b"STAT" + struct.pack("<III", *values))

    def _stat2(self, text: str, name: bytes) -> None:
        layout = "<IQQIIIIQqqq"
        try:
            t = self._path(text).stat()
        except OSError as error:
            return self._send(name + struct.pack(layout, error.errno, *[0] * 10))
        told = (0, t.st_dev, t.st_ino, t.st_mode, t.st_nlink, t.st_uid, t.st_gid, t.st_size)
        return self._send(name + struct.pack(layout, *told, int(t.st_atime), int(t.st_mtime), int(t.st_ctime)))

    def _list(self, text: str) -> None:
        for entry in sorted(self._path(text).iterdir()):
            told, name = entry.stat(), entry.name.encode()
            self._send(b"DENT" + struct.pack("<IIII", told.st_mode, told.st_size, int(told.st_mtime), len(name)) + name)
        self._send(b"DONE" + bytes(16))

    def _receive(self, text: str) -> None:
        path, _, mode = text.rpartition(",")
        self._write(path, int(mode, 0))

    def _receive2(self, text: str) -> None:
        _, mode, flags = struct.unpack("<4sII", self._exactly(12))
        if flags:
            return self._fail("compression is not supported")
        return self._write(text, mode)

    def _write(self, text: str, mode: int) -> None:
        path, problem, written = self._path(text), None, None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = open("/dev/full" if self._full else path, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            problem = error.strerror
        while True:
            name, number = self._exactly(4), struct.unpack("<I", self._exactly(4))[0]
            if name == b"DONE":
                break
            data = self._exactly(number)
            if problem is None and written is not None:
                try:
                    written.write(data[:-1] if self._lossy else data)
                except OSError as error:
                    problem = error.strerror
        if written is not None:
            written.close()
        if problem is not None:
            return self._fail(f"couldn't write {text}: {problem}")
        path.chmod(stat.S_IMODE(mode))
        os.utime(path, (number, number))
        return self._send(b"OKAY" + bytes(4))

    def _read(self, text: str) -> None:
        with self._path(text).open("rb") as file:
            while data := file.read(65536):
                self._send(b"DATA" + struct.pack("<I", len(data)) + data)
        self._send(b"DONE" + bytes(4))

    def _read2(self, text: str) -> None:
        self._exactly(8)
        self._read(text)

    def _fail(self, text: str) -> None:
        self._send(b"FAIL" + struct.pack("<I", len(text.encode())) + text.encode())


def on_phone(text: str, root: Path) -> str:
    """Return `text` with the phone's paths replaced by those on this machine."""
    return re.sub(r"(?<![\w.])/(?=(?:data/local/tmp|sys)\b)", lambda _: f"{root}/", text)


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent:  # the server ends even if the tests are killed
        time.sleep(0.2)
