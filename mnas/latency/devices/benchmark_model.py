"""Command line and output of `benchmark_model`, the official tool of TensorFlow Lite and LiteRT.

A malformed line, numbers that contradict each other, and times longer than the call itself (another unit) are a
UnitError: mnas guesses no number. The formats are those of TensorFlow 2.4 and later; newer ones add `INFO: ` before a
line and percentiles after it:

    Initialized session in 20.283ms.
    count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419
    Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
    Memory footprint delta from the start of the tool (MB): init=6.70312 overall=63.4023
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mnas.foreign.operators import explained
from mnas.latency.latency import UnitError

WARM_UP_S, TURN_S = 0.05, 0.05
"""Minimum seconds of untimed runs, until clock and caches have settled, and of timed runs."""
MIN_RUNS = 3
"""Minimum number of timed inferences, however slow they are."""
MAX_S = 20.0
"""Limit in seconds for warming up and for timing; the inference that is running then still ends."""

_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)"
_STATISTICS = re.compile(
    rf"count=(\d+) (?:first={_NUMBER} curr={_NUMBER} min={_NUMBER} max={_NUMBER} avg={_NUMBER} std={_NUMBER}"
    rf"|curr={_NUMBER}(?:\s*\(all same\))?)(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?"
)
_SESSION = re.compile(rf"Initialized session in {_NUMBER}ms\.")
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_MEMORY = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init={_NUMBER} overall={_NUMBER}"
)
_STARTS = {  # start of a line -> its pattern, and how often it must occur
    "count=": (_STATISTICS, 2),
    "Initialized session in": (_SESSION, 1),
    "Inference timings": (_SUMMARY, 1),
    "Memory footprint delta": (_MEMORY, None),
    "Peak memory footprint": (_MEMORY, None),
}


@dataclass(frozen=True)
class Statistics:
    """Statistics of one phase's inferences in microseconds, the tool's resolution."""

    count: int
    first_us: float
    min_us: float
    avg_us: float
    max_us: float


@dataclass(frozen=True)
class Report:
    """Numbers that one call printed."""

    init_us: float
    warm_up: Statistics
    timed: Statistics
    grown_bytes: int | None
    """Growth of the process since before it loaded the model, at most; None where the tool cannot report it."""


def arguments(
    graph: str,
    *,
    threads: int,
    xnnpack: bool,
    input_shape: tuple[str, Sequence[int]] | None = None,
    once: bool = False,
) -> list[str]:
    """Return flags that load `graph` and time it for a turn, or run it `once`; `input_shape`: input name and shape."""
    runs, seconds, warm_up_s = (1, 0.0, 0.0) if once else (MIN_RUNS, TURN_S, WARM_UP_S)
    flags = [
        f"--graph={graph}",
        f"--num_threads={threads}",
        f"--use_xnnpack={str(xnnpack).lower()}",
        f"--num_runs={runs}",
        f"--min_secs={seconds:g}",
        f"--max_secs={MAX_S:g}",
        "--warmup_runs=1",
        f"--warmup_min_secs={warm_up_s:g}",
    ]
    if once:
        flags.append("--report_peak_memory_footprint=true")
    if input_shape is not None:
        name, shape = input_shape
        flags += [f"--input_layer={name}", f"--input_layer_shape={','.join(map(str, shape))}"]
    return flags


def parse(output: str, *, elapsed_s: float, once: bool = False) -> Report:
    """Return the numbers that a call with `arguments` printed, which took `elapsed_s` seconds from start to end.

    Raises:
        UnitError: the output is malformed, cut off, contradictory or impossible; one line.
    """
    lines = _lines(output)
    (init_ms,) = _numbers(lines["Initialized session in"][0])
    init_us, first_us, warm_up_us, timed_us = _numbers(lines["Inference timings"][0])
    warm_up, timed = (_statistics(match) for match in lines["count="])
    _require_close("Init", init_us, 1000 * init_ms, slack=1.0)
    _require_close("First inference", first_us, warm_up.first_us)
    _require_close("Warmup (avg)", warm_up_us, warm_up.avg_us)
    _require_close("Inference (avg)", timed_us, timed.avg_us)
    spent_s = (init_us + warm_up.count * warm_up.avg_us + timed.count * timed.avg_us) / 1e6
    if spent_s > elapsed_s + 0.01:
        raise UnitError(
            f"benchmark_model reports {spent_s:.3g} s of work in a call of {elapsed_s:.3g} s; are its times in "
            "another unit?"
        )
    # The tool continues until both phases have had their time. Between inferences it needs far less time than they do,
    # but on a busy device it may have to wait there.
    inferences_s = spent_s - init_us / 1e6
    if not once and inferences_s < 0.02 * (WARM_UP_S + TURN_S):
        raise UnitError(
            f"benchmark_model reports {warm_up.count + timed.count} inferences in {1e3 * inferences_s:.3g} ms, but "
            f"should have run for {WARM_UP_S + TURN_S:g} s; are its times in another unit?"
        )
    memory = lines["Memory footprint delta"] + lines["Peak memory footprint"]
    overall_mb = _numbers(memory[0])[1] if memory else 0.0
    return Report(init_us, warm_up, timed, round(overall_mb * 2**20) or None)


def failure(output: str) -> str:
    """Return why a call failed, in one line: the operator that the runtime lacks, or the last words of the output."""
    if (why := explained(output)) != output:
        return why
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|FATAL|error)\b", line) and "Benchmarking failed" not in line]
    return " ".join((errors or lines or ["it printed nothing"])[-1].split())[:300]


def _lines(output: str) -> dict[str, list[re.Match[str]]]:
    matches: dict[str, list[re.Match[str]]] = {start: [] for start in _STARTS}
    for line in output.splitlines():
        text = line.strip().removeprefix("INFO: ")
        if "Unconsumed cmdline flags" in text:
            raise UnitError(f"this benchmark_model does not support all flags ({text}); install a newer one")
        for start, (pattern, _) in _STARTS.items():
            if text.startswith(start):
                match = pattern.fullmatch(text)
                if match is None:
                    raise UnitError(f"benchmark_model printed {text[:200]!r}, which has an unexpected format")
                matches[start].append(match)
    for start, (_, times) in _STARTS.items():
        if times is not None and len(matches[start]) != times:
            raise UnitError(
                f"benchmark_model must print {times} line(s) that begin with {start!r}, but printed "
                f"{len(matches[start])}; its output ends with {output.strip()[-100:]!r}"
            )
    return matches


def _numbers(match: re.Match[str]) -> list[float]:
    return [float(group) for group in match.groups()]


def _statistics(match: re.Match[str]) -> Statistics:
    count, first, current, low, high, mean, _, same, *_ = match.groups()
    if same is not None:
        first = current = low = high = mean = same
    statistics = Statistics(int(count), float(first), float(low), float(mean), float(high))
    # the tool prints a mean with 6 digits
    if not (
        statistics.count > 0
        and 0 < statistics.min_us <= statistics.first_us <= statistics.max_us
        and statistics.min_us <= float(current) <= statistics.max_us
        and statistics.min_us * (1 - 1e-5) <= statistics.avg_us <= statistics.max_us * (1 + 1e-5)
    ):
        raise UnitError(f"benchmark_model printed {match[0]!r}, which contradicts itself")
    return statistics


def _require_close(what: str, value: float, expected: float, slack: float = 0.0) -> None:
    if abs(value - expected) > 1e-3 * expected + slack:
        raise UnitError(f"benchmark_model reports {what} as {value:g} us in one line and {expected:g} us in another")
