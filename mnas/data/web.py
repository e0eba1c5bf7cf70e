"""Downloads over http and https with limits on time, size and redirects for any server."""

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin, urlsplit

from mnas.text import message_of

SCHEMES = ("http", "https")
MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_MOST_WORDS = 200  # characters of a server's message
_RETRIES = 4
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


def is_url(name: str) -> bool:
    """Return whether `name` is a URL to download."""
    return name.lower().startswith(("http://", "https://"))


class Deadline:
    """A limit on the time in which a server sends everything, until the clock is reset."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        self._end = time.monotonic() + self._seconds

    def remaining_s(self) -> float:
        """Return the remaining seconds. Raises TimeoutError if none remain."""
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"it took more than {self._seconds:g} s")
        return remaining


def download(url: str, *, most_bytes: int, most_s: float) -> bytes:
    """Return the bytes at a URL.

    Raises:
        ValueError: the download fails, is larger than `most_bytes`, or takes longer than `most_s` in total; one line
            without the URL.
    """
    try:
        clock = Deadline(most_s)
        with _opened(url, clock, {"Accept": "image/*,*/*;q=0.5"}) as response:
            expected = response.length
            parts: list[bytes] = []
            got = 0
            while part := response.read1(_CHUNK):
                parts.append(part)
                got += len(part)
                if got > most_bytes:
                    raise ValueError(f"it is larger than {most_bytes // 1_000_000} MB")
                clock.remaining_s()
        if expected is not None and got < expected:
            raise ValueError(f"the server sent {got} of {expected} bytes")
        return b"".join(parts)
    except (urllib.error.URLError, OSError, http.client.HTTPException, UnicodeError) as error:
        raise ValueError(_words(error)) from None


class UrlFile(io.RawIOBase):
    """The content of a URL as a sequential file, which resumes a broken connection where it broke.

    Args:
        read_s: timeout of each read in seconds, after which the connection counts as broken.

    Raises:
        OSError: from reading, after several attempts in a row without data.
    """

    def __init__(self, url: str, *, read_s: float = 60.0) -> None:
        self._url, self._clock = url, Deadline(read_s)
        self._response: Any = None
        self._position = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._ended:
            return 0
        for attempt in range(_RETRIES + 1):
            try:
                self._clock.reset()
                if self._response is None:
                    self._connect()
                part = self._response.read(len(buffer))
                if not part and self._response.length:
                    raise OSError(f"the server did not send the last {self._response.length} bytes")
                buffer[: len(part)] = part
                self._position += len(part)
                self._ended = not part
                return len(part)
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
                self._drop()
                final = isinstance(error, urllib.error.HTTPError) and error.code not in _AGAIN
                if attempt == _RETRIES or final:
                    raise OSError(_words(error)) from None
                time.sleep(min(0.5 * 2**attempt, 5))
        raise AssertionError

    def close(self) -> None:
        self._drop()
        super().close()

    def _connect(self) -> None:
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        self._response = _opened(self._url, self._clock, headers)
        if self._position and self._response.status != 206:
            raise OSError("the connection broke, and the server cannot resume a download")

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _opened(url: str, clock: Deadline, headers: dict[str, str]) -> Any:
    """Return the response to a GET, after redirects to http and https."""
    for _ in range(MOST_REDIRECTS + 1):
        if not is_url(url):
            raise ValueError("a URL must begin with http:// or https://")
        # All headers are ours, without credentials that a redirect could pass to another server.
        request = urllib.request.Request(url, headers={"User-Agent": "mnas", **headers})
        try:
            return _opener(clock).open(request, timeout=clock.remaining_s())
        except urllib.error.HTTPError as error:
            if error.code not in (301, 302, 303, 307, 308):
                raise
            target = urljoin(url, error.headers.get("Location") or url)
            error.close()
            if urlsplit(target).scheme not in SCHEMES:
                raise ValueError(
                    f"the server redirects it to {target[:100]!r}, which is neither http nor https"
                ) from None
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise ValueError("the server redirects it from https to http, which mnas does not follow") from None
            url = target
    raise ValueError("the server redirects it too often")


def _opener(clock: Deadline) -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone, as urllib's own also reads files and ftp, and follows redirects."""

    def http_connection(host: str, **options: Any) -> http.client.HTTPConnection:
        return _HTTPConnection(host, clock, **options)

    def https_connection(host: str, **options: Any) -> http.client.HTTPSConnection:
        return _HTTPSConnection(host, clock, **options)

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(http_connection, req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(https_connection, req)

    director = urllib.request.OpenerDirector()
    proxies = {kind: proxy for kind, proxy in urllib.request.getproxies().items() if kind in ("http", "https", "no")}
    for handler in (
        urllib.request.ProxyHandler(proxies), Plain(), Secure(), urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        director.add_handler(handler)
    return director


class _Timed(io.RawIOBase):
    """The bytes that a socket receives; each read ends within the clock's remaining time."""

    def __init__(self, connection: socket.socket, clock: Deadline) -> None:
        self._socket, self._clock = connection, clock
        self._raw = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._clock.remaining_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A connected socket whose responses are read through `_Timed`."""

    def __init__(self, connection: socket.socket, clock: Deadline) -> None:
        self._socket, self._clock = connection, clock

    def makefile(self, *arguments: Any, **options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._socket, self._clock))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _HTTPConnection(http.client.HTTPConnection):
    def __init__(self, host: str, clock: Deadline, **options: Any) -> None:
        super().__init__(host, **options)
        self._clock = clock

    def connect(self) -> None:
        super().connect()
        self.sock: Any = _Socket(self.sock, self._clock)


class _HTTPSConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, clock: Deadline, **options: Any) -> None:
        super().__init__(host, **options)
        self._clock = clock

    def connect(self) -> None:
        super().connect()
        self.sock: Any = _Socket(self.sock, self._clock)


def _words(error: Exception) -> str:
    """Return an error's message on one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server replied {error.code} {message_of(error.reason, _MOST_WORDS)}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"it cannot be downloaded: {message_of(reason, _MOST_WORDS)}"
