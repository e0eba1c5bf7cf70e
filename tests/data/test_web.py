"""Downloads from a real server that misbehaves: each ends soon, with one line."""

import http.server
import io
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mnas.data.web import UrlFile, download

CONTENT = bytes(range(256)) * 400


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list[str]
    broken = 0

    def do_GET(self) -> None:
        type(self).seen.append(self.path)
        action = self.path.split("/")[1]
        getattr(self, action, self.missing)()

    def missing(self) -> None:
        self.send_error(404)

    def whole(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def moved(self) -> None:
        self.send_response(int(self.path.split("/")[2]))
        self.send_header("Location", self.path.split("/", 3)[3])
        self.send_header("Content-Length", str(10**9))  # do not wait for a body that never comes
        self.end_headers()

    def deeper(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path + "x")
        self.end_headers()

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.slowly(b"x")

    def drip_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.slowly(b"x")

    def slowly(self, part: bytes) -> None:
        try:
            for _ in range(200):
                self.wfile.write(part)
                time.sleep(0.05)
        except OSError:
            pass

    def breaks(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 30_000])

    def starts_again(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:30_000])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def get(url: str, most_bytes: int = 10**7, most_s: float = 5.0) -> bytes:
    return download(url, most_bytes=most_bytes, most_s=most_s)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_of_http(server: str, code: int) -> None:
    assert get(f"{server}/whole") == CONTENT
    assert get(f"{server}/moved/{code}/{server}/whole") == CONTENT
    assert get(f"{server}/moved/{code}//whole") == CONTENT


@pytest.mark.parametrize("target", ["ftp", "file", "data", "gopher", "pipe"])
def test_another_protocol_is_refused_before_it_is_contacted(server: str, target: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"{target}://127.0.0.1:{listening.getsockname()[1]}/x"
        with pytest.raises(ValueError, match=f"^the server redirects it to '{target}://.*neither http nor https$"):
            get(f"{server}/moved/302/{address}")
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.accept()
    with pytest.raises(ValueError, match=r"^a URL must begin with http:// or https://$"):
        get(f"{target}://127.0.0.1/x")


def test_circles(server: str) -> None:
    with pytest.raises(ValueError, match="it too often"):
        get(f"{server}/deeper/")
    assert len(Handler.seen) == 6


@pytest.mark.parametrize("path", ["drip", "drip_header"])
def test_a_byte_now_and_then(server: str, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^it cannot be downloaded: (it took more than 0.3 s|timed out)"):
        get(f"{server}/{path}", most_s=0.3)
    assert time.monotonic() - start < 5  # the server would continue for 10 s


def test_more_than_was_asked_for(server: str) -> None:
    with pytest.raises(ValueError, match=r"^it is larger than 1 MB$"):
        get(f"{server}/endless", most_bytes=1_000_000)


def test_a_stream_goes_on_where_it_broke(server: str) -> None:
    assert io.BufferedReader(UrlFile(f"{server}/whole")).read() == CONTENT
    assert io.BufferedReader(UrlFile(f"{server}/breaks")).read() == CONTENT
    assert Handler.seen.count("/breaks") == 4


def test_a_stream_that_cannot_go_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(OSError, match="cannot resume a download"):
        io.BufferedReader(UrlFile(f"{server}/starts_again")).read()
    with pytest.raises(OSError, match="the server replied 404"):
        UrlFile(f"{server}/nothing").read(10)
    assert Handler.seen.count("/nothing") == 1
