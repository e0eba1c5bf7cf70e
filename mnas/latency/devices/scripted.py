"""Devices that run Python: `script.py` runs on them, as a child process here or over a connection."""

import collections
import contextlib
import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from mnas.foreign.operators import explained
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.latency.onboard.script import LOAD_S, MAX_TURN_RUNS, TURN_S, inference_limit_s
from mnas.latency.unit import Condition, Core, MeasuringSession, Times, Unit
from mnas.readers import parse_json, require_types

T = TypeVar("T")

OPEN_TIMEOUT_S = 300.0
"""Limit in seconds for loading two models and running them a few times; includes the start of the runtime."""
ROUND_TIMEOUT_S = 120.0
"""Limit in seconds for one round, which takes some 30 ms, or two inferences of each model if they are slow."""
_ROUND_RUNS, _OPEN_RUNS = 8, 12
"""Inferences of a round and of opening for slow models; a larger batch adds its time to each."""

DEATHS = 2
"""Number of times that the measuring process may end over one model before the model is at fault."""


class EndedError(UnitError):
    """Error for a measuring process that ended during a request: a runtime crashed, or the process was killed."""


class OverdueError(EndedError):
    """Error for a measuring process that was ended because loading a model, or an inference, exceeded its limit."""


class Channel(ABC):
    """A running `script.py`, wherever it runs, and files beside it. Every method raises UnitError on any failure."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> str:
        """Bring a file to the device, and return the path under which the script finds it."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Release a file that `put` brought; the channel may remove it."""

    @abstractmethod
    def ask(self, line: str, timeout_s: float) -> str:
        """Send a line and return the answer. Raises EndedError or OverdueError if the script ends instead."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Exclude other users of the device, on whatever machine, while this lasts; waits, and reports the holder."""

    @abstractmethod
    def close(self) -> None:
        """End the script and remove all files of this channel; never raises."""


class ScriptUnit(Unit):
    """A device with Python: this machine, or a board.

    Args:
        name: name in the registry.
        connect: starts the script; called on first use, and again after a failure. Raises UnitError.
        core: core to measure on, with one thread.
    """

    def __init__(self, name: str, connect: Callable[[], Channel], core: Core = "auto") -> None:
        self.name = name
        self._connect, self._core = connect, core
        self._channel: Channel | None = None
        self._fingerprints: dict[str, dict[str, str | int]] = {}
        self._deaths: collections.Counter[tuple[str, str]] = collections.Counter()

    def fingerprint(self, setup: Setup) -> dict[str, str | int]:
        if setup.runtime not in self._fingerprints:
            fingerprint = self._ask({"do": "hello", "runtime": setup.runtime}, OPEN_TIMEOUT_S)
            if not isinstance(fingerprint, dict) or not all(isinstance(v, str | int) for v in fingerprint.values()):
                raise self._failed(
                    f"the device must identify itself by texts and integers, but answered {fingerprint!r}"
                )
            self._fingerprints[setup.runtime] = fingerprint
        return dict(self._fingerprints[setup.runtime])

    def condition(self) -> Condition:
        condition = self._ask({"do": "condition"}, ROUND_TIMEOUT_S)
        try:
            require_types(Condition, condition)
            return Condition(**{**condition, "cores": tuple(condition["cores"])})
        except (TypeError, KeyError, ValueError):
            raise self._failed(f"the device must describe its condition, but answered {condition!r}") from None

    @contextlib.contextmanager
    def session(
        self, models: tuple[bytes, bytes], setup: Setup, other: Setup | None = None
    ) -> Iterator[MeasuringSession]:
        asked = time.perf_counter()
        with self._blaming(models[0], setup), contextlib.ExitStack() as stack:
            self._claim(stack)
            waited_s = time.perf_counter() - asked
            paths = [self._put(stack, f"model-{i}", model) for i, model in enumerate(models)]
            runtimes = [setup.runtime, (other or setup).runtime]
            request = {"do": "open", "models": paths, "core": self._core, **setup.to_dict(), "runtimes": runtimes}
            opened = self._ask(request, OPEN_TIMEOUT_S + _added_s(_OPEN_RUNS, setup))
            stack.callback(self._end)
            if not isinstance(opened, dict) or {"core", "realtime"} - set(opened):
                raise self._failed(f"unexpected answer {opened!r}")
            if self._core not in (None, "auto", opened["core"]) and setup.threads == 1:
                raise ValueError(
                    f"{self.name}: core must be auto or a core that the measuring process may use, but got {self._core}"
                )

            def one_round(mirrored: bool) -> tuple[Times, Times]:
                began = time.perf_counter()
                request = {"do": "round", "mirrored": mirrored}
                answer = self._ask(request, ROUND_TIMEOUT_S + _added_s(_ROUND_RUNS, setup))
                times = self._times(answer, 0), self._times(answer, 1)
                if doubt := _doubt(times, (time.perf_counter() - began) * 1e3):
                    raise self._failed(doubt)
                return times

            yield MeasuringSession(one_round, opened["core"], bool(opened["realtime"]), waited_s)

    def peak_memory_bytes(self, model: bytes, setup: Setup) -> int | None:
        with self._blaming(model, setup), contextlib.ExitStack() as stack:
            self._claim(stack)
            path = self._put(stack, "model", model)
            request = {"do": "memory", "model": path, **setup.to_dict()}
            peak = self._ask(request, OPEN_TIMEOUT_S + _added_s(1, setup))
            if peak is not None and not (isinstance(peak, int) and peak >= 0):
                raise self._failed(f"peak memory must be a number of bytes, but the device answered {peak!r}")
            return peak

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @contextlib.contextmanager
    def _blaming(self, model: bytes, setup: Setup) -> Iterator[None]:
        """Count how often the process ends while it runs a model.

        The model has failed once the process has ended `DEATHS` times, or once it was overdue.
        """
        key = hashlib.sha256(model).hexdigest(), setup.runtime
        try:
            yield
        except OverdueError:
            raise MeasurementError(
                f"{setup.runtime} must load the model within {LOAD_S:g} s and run it within "
                f"{inference_limit_s(setup.batch):g} s, but it took longer and was stopped"
            ) from None
        except EndedError as error:
            self._deaths[key] += 1
            if self._deaths[key] < DEATHS:
                raise
            raise MeasurementError(f"{setup.runtime} crashed on the model {DEATHS} times: {error}") from None
        self._deaths.pop(key, None)

    def _claim(self, stack: contextlib.ExitStack) -> None:
        channel = self._connected()
        self._guarded(lambda: stack.enter_context(channel.exclusive()))

    def _put(self, stack: contextlib.ExitStack, name: str, content: bytes) -> str:
        channel = self._connected()
        path = self._guarded(lambda: channel.put(name, content))

        def remove() -> None:
            if self._channel is channel:  # a new connection has none of its files
                with contextlib.suppress(UnitError):
                    channel.remove(path)

        stack.callback(remove)
        return path

    def _end(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(UnitError):
                self._ask({"do": "close"}, ROUND_TIMEOUT_S)

    def _times(self, answer: Any, which: int) -> Times:
        try:
            wall, counted = answer["wall_ms"][which], answer["kept_ms"][which]
            if not (isinstance(wall, Sequence) and isinstance(counted, Sequence) and wall and counted):
                raise TypeError
            if not all(isinstance(t, int | float) and math.isfinite(t) and t > 0 for t in [*wall, *counted]):
                raise ValueError
            return Times(tuple(map(float, wall)), tuple(map(float, counted)))
        except (TypeError, KeyError, IndexError, ValueError):
            raise self._failed(f"times must be positive and finite, but the device answered {answer!r}") from None

    def _connected(self) -> Channel:
        if self._channel is None:
            try:
                self._channel = self._connect()
            except UnitError as error:
                raise self._failed(str(error)) from None
        return self._channel

    def _ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        channel = self._connected()
        answer = self._guarded(lambda: channel.ask(json.dumps(request), timeout_s))
        try:
            reply = parse_json(answer)
            if not isinstance(reply, dict) or not ({"ok"} == set(reply) or {"error", "of"} == set(reply)):
                raise ValueError
        except ValueError:
            raise self._failed(f"unexpected answer {answer[:200]!r}") from None
        if "ok" in reply:
            return reply["ok"]
        if reply["of"] == "model":
            raise MeasurementError(_line(explained(str(reply["error"]))))
        if reply["of"] == "setup":
            raise ValueError(f"{self.name}: {_line(reply['error'])}")
        kinds: dict[str, type[UnitError]] = {"process": EndedError, "time": OverdueError}
        raise self._failed(reply["error"], kinds.get(str(reply["of"]), UnitError))

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except UnitError as error:
            raise self._failed(str(error), type(error)) from None
        except BaseException:  # after Ctrl-C an answer may still come that no request waits for
            self.close()
            raise

    def _failed(self, reason: object, kind: type[UnitError] = UnitError) -> UnitError:
        """Close the connection after a failure, as its state is unknown; the next use makes a new one."""
        self.close()
        return kind(_line(f"{self.name}: {reason}"))


def _added_s(inferences: int, setup: Setup) -> float:
    """Return the seconds to add for this many inferences because their batches are larger than one image."""
    return inferences * (inference_limit_s(setup.batch) - inference_limit_s(1))


def _line(text: object) -> str:
    """Return the device's text as one printable line of at most 500 characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:500]


def _doubt(times: tuple[Times, Times], passed_ms: float) -> str | None:
    """Return why a round's times are impossible (mostly a wrong unit), or None.

    Args:
        passed_ms: duration of the round by the clock of this machine.
    """
    spent_ms = sum(sum(one.wall_ms) for one in times)
    if spent_ms > 1.01 * passed_ms:
        return f"the device reports {spent_ms:.4g} ms of inferences in a round of {passed_ms:.4g} ms"
    for one in times:
        wall_ms, runs = sum(one.wall_ms), len(one.wall_ms)
        if wall_ms < TURN_S * 1e3 / 10 and runs < MAX_TURN_RUNS:  # a turn has time for more runs
            return f"the device reports {runs} inferences in {wall_ms:.4g} ms, which is too short for a turn"
        if not 1 / 500 < sum(one.kept_ms) / wall_ms < 50:
            return f"the device's clocks disagree: {wall_ms:.4g} ms and {sum(one.kept_ms):.4g} ms"
    return None
