"""A headless Chromium, driven over its DevTools protocol, with only the functions that a test of a page needs."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
PATH = shutil.which("chromium")


class Tab:
    """One page, and all events from it."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive meanwhile go to `events`."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, after awaiting a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        for _ in range(600):
            if value := self.evaluate(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def open(self, url: str, *, width: int, height: int) -> None:
        """Load a page and wait until it is drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")
        self.settle()

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page's window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.settle()

    def settle(self) -> None:
        """Wait for two frames, after which the requested change is on the screen."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def move_mouse(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def heard(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of one kind."""
        self.evaluate("0")  # receives events that are still on their way
        return [event["params"] for event in self.events if event["method"] == method]


def complaints(tab: Tab) -> list[object]:
    """Return errors and warnings of the page: thrown, printed, or from the browser (such as a blocked script)."""
    printed = [e for e in tab.heard("Runtime.consoleAPICalled") if e["type"] in ("error", "warning", "assert")]
    own = [e for e in tab.heard("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")]
    return [*tab.heard("Runtime.exceptionThrown"), *printed, *own]


def requests(tab: Tab) -> set[str]:
    """Return the URL schemes of all requests of the page."""
    return {e["request"]["url"].split(":")[0] for e in tab.heard("Network.requestWillBeSent")}


class Browser:
    """A Chromium process; its tabs share nothing else."""

    def __init__(self, port: str) -> None:
        self._port = port.partition("/")[0]
        # the browser's own socket: not an HTTP request, which a proxy might intercept
        self._session = Tab(_connect(port))

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """Open a new tab, and close it at the end."""
        target = self._session.call("Target.createTarget", url="about:blank")["targetId"]
        yield Tab(_connect(f"{self._port}/devtools/page/{target}"))
        self._session.call("Target.closeTarget", targetId=target)


@contextlib.contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a fresh profile in `folder`, and end it."""
    assert PATH is not None
    with (folder / "log").open("wb") as log:
        command = [PATH, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        yield Browser(_port(folder / "profile" / "DevToolsActivePort", process))
    finally:
        process.terminate()
        process.wait(30)


def _connect(address: str) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://127.0.0.1:{address}", timeout=60, http_no_proxy=["127.0.0.1"])


def _port(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Return `12345/devtools/browser/...`, as soon as Chromium has written it."""
    for _ in range(1200):
        assert process.poll() is None, "chromium ended"
        if file.exists() and len(lines := file.read_text().split()) == 2:
            return "".join(lines)
        time.sleep(0.05)
    raise AssertionError("chromium opened no port")
