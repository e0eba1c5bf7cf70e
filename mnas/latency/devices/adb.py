"""Android phones over adb: `benchmark_model`, the official tool, runs there, pinned to the big core.

A round calls the tool once for each model, so both are loaded afresh. The phone's shell reads the core's clock while
they run, and heat and the clock's limit after each round: a throttled round is repeated, and a hot phone may cool
first.
"""

import contextlib
import hashlib
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mnas.latency.devices import benchmark_model as tool
from mnas.latency.devices.adb_link import AdbLink, Output
from mnas.latency.devices.adb_phone import Phone
from mnas.latency.devices.android import CLOCK, FULL_CLOCK, State, condition_of
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.latency.unit import Condition, Core, MeasuringSession, Times, Unit
from mnas.text import clean

XNNPACK = {"litert": True, "litert-builtin": False}
"""Runtimes of an adb device -> whether XNNPACK is used."""
CALL_TIMEOUT_S = 60.0
"""Limit in seconds for one call, which ends each of its phases after `benchmark_model.MAX_S`."""
SAMPLE_S = 0.02
"""Seconds between two readings of the clock while a model runs."""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Temperature limits of a phone, and how long to wait until it is below them."""

    battery_c: float = 40.0
    """Highest battery temperature in degrees Celsius; phones lower their clocks a few degrees above it."""
    sensor_c: float = 85.0
    """Highest temperature of any sensor in degrees Celsius."""
    wait_s: float = 300.0
    """Longest wait in seconds."""
    poll_s: float = 5.0
    """Seconds between two readings while waiting."""
    tries: int = 3
    """Number of throttled rounds in a row after which the phone has failed."""


Say = Callable[[str], None]


def _to_stderr(text: str) -> None:
    print(f"mnas: {clean(text)}", file=sys.stderr, flush=True)


def adb_unit(
    name: str,
    address: str,
    *,
    core: Core = "auto",
    benchmark_model: str,
    adb_server: str = "auto",
    max_mhz: int | Literal["auto"] = "auto",
    say: Say = _to_stderr,
) -> "AdbUnit":
    """Return the phone whose serial in adb is `address` (empty: the only connected phone).

    The connection is made on first use.

    Args:
        name: name in the registry.
        address: serial of the phone, or `host:port`, as `adb devices` prints it.
        core: core to measure on.
        benchmark_model: the program on this machine, or `device:/data/local/tmp/benchmark_model` on the phone.
        adb_server: `host:port`; auto: adb's own default.
        max_mhz: highest clock that the phone ever allows the core; auto: the core's maximum.
        say: called with a line when the unit waits for the phone or repeats a round.

    Raises:
        ValueError: adb_server is not host:port.
    """
    return AdbUnit(
        name,
        address,
        core=core,
        benchmark_model=benchmark_model,
        adb_server=None if adb_server == "auto" else adb_server,
        max_mhz=None if max_mhz == "auto" else max_mhz,
        say=say,
    )


class AdbUnit(Unit):
    """A phone; see `adb_unit`."""

    def __init__(
        self,
        name: str,
        address: str | None,
        *,
        core: Core = "auto",
        benchmark_model: str,
        adb_server: str | None = None,
        max_mhz: int | None = None,
        heat: Heat | None = None,
        say: Say = _to_stderr,
    ) -> None:
        self.name = name
        self._address, self._server = address or None, adb_server
        self._new_link()  # checks its arguments; connects on first use
        self._core, self._binary, self._max_mhz = core, benchmark_model, max_mhz
        self._heat, self._say = heat or Heat(), say
        self._phone: Phone | None = None

    def fingerprint(self, setup: Setup) -> dict[str, str | int]:
        self._require_runtime(setup)
        with self._guarded():
            phone = self._found()
            _, digest = phone.program(self._binary)
            kernels = "XNNPACK" if XNNPACK[setup.runtime] else "without XNNPACK"
            return {
                "model": phone.identity.model,
                "soc": phone.identity.soc,
                "android": phone.identity.android,
                "abi": phone.identity.abi,
                "runtime": f"benchmark_model {digest[:12]} {kernels}",
            }

    def condition(self) -> Condition:
        with self._guarded():
            phone = self._found()
            return condition_of(phone.identity, phone.look(), phone.core, phone.full_khz)

    @contextlib.contextmanager
    def session(
        self, models: tuple[bytes, bytes], setup: Setup, other: Setup | None = None
    ) -> Iterator[MeasuringSession]:
        for how in (setup, other or setup):
            self._require_runtime(how)
        asked = time.perf_counter()
        with contextlib.ExitStack() as stack:
            with self._guarded(late=True):
                phone = self._found()
                phone.program(self._binary)
                state = self._cool(phone, phone.look())
                waited_s = time.perf_counter() - asked
                calls = [
                    self._bring(stack, phone, model, how)
                    for model, how in zip(models, (setup, other or setup), strict=True)
                ]

            def one_round(mirrored: bool) -> tuple[Times, Times]:
                nonlocal state
                with self._guarded(late=True):
                    if self._phone is not phone:
                        raise UnitError("the connection was lost in an earlier round; measure again")
                    times, state = self._round(phone, calls, mirrored, state)
                    return times

            pinned = phone.core.number if phone.core and setup.threads == 1 else None
            yield MeasuringSession(one_round, pinned, realtime=False, waited_s=waited_s)

    def peak_memory_bytes(self, model: bytes, setup: Setup) -> int | None:
        self._require_runtime(setup)
        with contextlib.ExitStack() as stack, self._guarded(late=True):
            phone = self._found()
            output, _ = _run(phone, self._bring(stack, phone, model, setup, once=True))
            return tool.parse(output.text, elapsed_s=output.seconds, once=True).grown_bytes

    def close(self) -> None:
        if self._phone is not None:
            self._phone.close()
            self._phone = None

    def _new_link(self) -> AdbLink:
        return AdbLink(self._address, self._server)

    def _found(self) -> Phone:
        if self._phone is None:
            self._phone = Phone(self._new_link(), self._core, self._max_mhz)
        return self._phone

    @contextlib.contextmanager
    def _guarded(self, late: bool = False) -> Iterator[None]:
        """Add the unit's name to errors; after a failure drop the connection, so that the next use makes a new one.

        With `late`, a ValueError counts as the phone's failure, because the fingerprint has already shown that the
        setup is valid.
        """
        try:
            yield
        except MeasurementError as error:
            raise MeasurementError(_line(error)) from None
        except (UnitError, ValueError) as error:
            if isinstance(error, ValueError) and not late:
                raise ValueError(_line(f"{self.name}: {error}")) from None
            self.close()
            raise UnitError(_line(f"{self.name}: {error}")) from None
        except BaseException:  # Ctrl-C must end what runs on the phone too
            self.close()
            raise

    def _require_runtime(self, setup: Setup) -> None:
        if setup.runtime not in XNNPACK:
            names = ", ".join(XNNPACK)
            raise ValueError(f"{self.name}: the runtime of a phone must be one of {names}, but got {setup.runtime!r}")

    def _bring(
        self, stack: contextlib.ExitStack, phone: Phone, model: bytes, setup: Setup, once: bool = False
    ) -> "_Call":
        """Push a model, which is removed with the stack, and return how to run it."""
        program, _ = phone.program(self._binary)
        shape = _input_shape(model, setup.batch) if setup.batch > 1 else None
        path = phone.push(model, f"{secrets.token_hex(4)}.tflite")

        def remove() -> None:
            if self._phone is phone:  # a new connection has a new folder
                phone.remove(path)

        stack.callback(remove)
        arguments = tool.arguments(
            path, threads=setup.threads, xnnpack=XNNPACK[setup.runtime], input_shape=shape, once=once
        )
        return _Call(_command(phone, [program, *arguments], setup.threads), path, hashlib.sha256(model).hexdigest())

    def _round(
        self, phone: Phone, calls: "list[_Call]", mirrored: bool, state: State
    ) -> tuple[tuple[Times, Times], State]:
        """Return the times of both, and the phone's state afterwards; `state` is the one before."""
        for _ in range(self._heat.tries):
            state = self._cool(phone, state)
            times: dict[int, Times] = {}
            clocks = []
            for which in (1, 0) if mirrored else (0, 1):
                output, frequencies = _run(phone, calls[which])
                times[which] = _times(tool.parse(output.text, elapsed_s=output.seconds))
                clocks.append(_clock(frequencies))
            state = phone.look()
            slowed = state.slowed(phone.full_khz) or _ran_slow(clocks, phone.full_khz)
            if slowed is None:
                return (times[0], times[1]), state
            self._say(f"{self.name}: repeating a throttled round: {slowed}")
        raise UnitError(
            f"the phone was throttled in {self._heat.tries} rounds in a row: {slowed}. Let it cool, turn its battery "
            "saver off, and see docs/guides/phone.md"
        )

    def _cool(self, phone: Phone, state: State) -> State:
        """Wait until the phone is cool and allows its full clock. Raises UnitError when that takes too long."""
        started, announced = time.monotonic(), False
        while (why := self._too_hot(phone, state)) is not None:
            if time.monotonic() - started >= self._heat.wait_s:
                raise UnitError(
                    f"the phone did not cool down within {self._heat.wait_s:g} s: {why}. Take it out of its case and "
                    "the sun, turn its battery saver off, and see docs/guides/phone.md"
                )
            if not announced:
                self._say(f"{self.name}: waiting up to {self._heat.wait_s:g} s for the phone to cool down: {why}")
                announced = True
            time.sleep(self._heat.poll_s)
            state = phone.look()
        return state

    def _too_hot(self, phone: Phone, state: State) -> str | None:
        for what, now, limit in (
            ("battery", state.battery_c, self._heat.battery_c),
            ("hottest sensor", state.sensor_c, self._heat.sensor_c),
        ):
            if now is not None and now > limit:
                return f"its {what} is at {now:g} °C, above the limit of {limit:g} °C"
        return state.slowed(phone.full_khz)


@dataclass(frozen=True)
class _Call:
    """Command that runs a model on the phone, and the model's file there."""

    command: str
    path: str
    digest: str


def _line(text: object) -> str:
    """Return the phone's text as one printable line of at most 500 characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:500]


def _command(phone: Phone, words: list[str], threads: int) -> str:
    """Return a command that runs `words` on the measuring core and then prints the exit code and the clocks.

    Several threads are pinned to the fastest cores. The phone's shell reads the clock meanwhile. It ends with the call,
    so nothing stays behind if the connection is lost.
    """
    pin, number = "", phone.core.number if phone.core else 0
    if phone.core is not None:
        others = [core for core in phone.identity.fastest(len(phone.identity.cores)) if core != phone.core]
        pin = f"taskset {sum(1 << core.number for core in [phone.core, *others][:threads]):x} "
    return (
        f"cd {phone.folder()} || exit 97; {pin}{shlex.join(words)} </dev/null 2>&1 & p=$!; echo $p >pid; k=; "
        f'while kill -0 $p; do read -r c <{CLOCK.format(number)} && k="$k $c"; sleep {SAMPLE_S}; done 2>/dev/null; '
        'wait $p; echo "@ended $? @clocks$k"'
    )


def _run(phone: Phone, call: _Call) -> tuple[Output, list[int]]:
    """Return the tool's output, and the core's clocks in kHz meanwhile. Raises MeasurementError, UnitError."""
    output = phone.link.shell(call.command, CALL_TIMEOUT_S)
    if output.code == 97:
        raise UnitError("the folder with the models is gone from the phone")
    text, mark, end = output.text.rpartition("@ended ")
    code, separator, clocks = end.partition(" @clocks")
    if not mark or not separator or not code.isdigit():
        raise UnitError(f"the phone's answer is cut off; it ends with {output.text.strip()[-100:]!r}")
    if code == "0":
        return Output(0, text, output.seconds), [int(khz) for khz in clocks.split() if khz.isdigit()]
    why = f"{tool.failure(text)} (exit code {code})"
    if int(code) in (129, 137, 143):
        raise UnitError(f"benchmark_model was killed on the phone, perhaps because it ran out of memory: {why}")
    if "STARTING!" not in text:
        raise UnitError(f"benchmark_model did not start: {why}")
    if phone.digest(call.path) != call.digest:
        raise UnitError(f"the model's file is missing or changed on the phone: {why}")
    raise MeasurementError(f"benchmark_model cannot run the model: {why}")


def _times(report: tool.Report) -> Times:
    """Return the times of a report: the fastest, which counts, and the mean of the others in place of each."""
    timed = report.timed
    return Times(wall_ms=(timed.avg_us / 1e3,) * timed.count, kept_ms=(timed.min_us / 1e3, timed.avg_us / 1e3))


def _clock(frequencies: list[int]) -> int | None:
    """Return the median clock of the second half of a call, the timed half.

    The clock still rises in the first half, and a single reading could come after the call.
    """
    late = sorted(frequencies[len(frequencies) // 2 :])
    return late[len(late) // 2] if late else None


def _ran_slow(clocks: list[int | None], full_khz: int | None) -> str | None:
    """Return why a round does not count, from the clock of each call; None if it counts."""
    frequencies = [khz for khz in clocks if khz is not None]
    if full_khz is None or not frequencies or min(frequencies) >= FULL_CLOCK * full_khz:
        return None
    return f"its core ran at {min(frequencies) // 1000} of {full_khz // 1000} MHz"


def _input_shape(model: bytes, batch: int) -> tuple[str, list[int]]:
    from ai_edge_litert.interpreter import Interpreter

    make: Any = Interpreter
    try:
        (details,) = make(model_content=model).get_input_details()
    except (ValueError, RuntimeError) as error:
        raise MeasurementError(f"a batch of several images needs a model with one input: {error}") from None
    return details["name"], [batch, *map(int, details["shape"][1:])]
