"""Run targets on damaged inputs in forked children: a signal, a hang or an unexpected exception is a finding.

A case depends only on (seed, target, number), so its number reproduces a finding, whose input is also stored.
"""

import collections
import io
import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mutations import mutated

MEMORY_BYTES = 6 << 30
"""Limit on the address space that a child adds after the fork, in bytes."""
CPU_S = 30.0
"""Limit on the processor time of a case, in seconds; a fast machine needs a hundredth of it."""
WALL_S = 180.0
"""Limit on the total time of a case, in seconds; waiting takes no processor time."""

Mutate = Callable[[bytes, random.Random, Sequence[bytes], Sequence[bytes]], bytes]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader of foreign data, and its inputs."""

    corpus: Callable[[], Sequence[bytes]]
    """Valid inputs."""
    call: Callable[[bytes, Path], object]
    """Function that reads one input in a separate folder; a user's error is an exception that commands print."""
    mutate: Mutate = mutated
    words: Sequence[bytes] = ()
    """Words of the format."""
    suffix: str = ""
    share: float = 1.0
    """Number of its cases relative to other targets; slow targets have fewer."""


@dataclass
class Finding:
    """A case that ended in a way that a program must not."""

    target: str
    number: int
    what: str
    file: Path | None = None


@dataclass
class Outcome:
    """The results of a target's cases."""

    cases: int = 0
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    """Count of each result: `ok`, or the class of a user's error."""
    findings: list[Finding] = field(default_factory=list)


def input_of(target: Target, name: str, seed: int, number: int) -> bytes:
    """Return the input of a case; the first cases are the corpus itself."""
    corpus = target.corpus()
    if number < len(corpus):
        return corpus[number]
    rng = random.Random(f"{seed} {name} {number}")
    return target.mutate(rng.choice(corpus), rng, corpus, target.words)


def fuzz(name: str, target: Target, *, seed: int, first: int, cases: int, until: float, folder: Path) -> Outcome:
    """Run `cases` cases from number `first` on, or as many as are possible before `until` (on the monotonic clock)."""
    target.corpus()  # made here once, for all children
    outcome = Outcome()
    number, end = first, first + cases
    while number < end and time.monotonic() < until and len(outcome.findings) < 20:
        number = _batch(name, target, seed, number, end, until, folder, outcome)
    for found in outcome.findings:
        content = input_of(target, name, seed, found.number)
        found.file = folder / f"{name}-{seed}-{found.number}{target.suffix}"
        found.file.write_bytes(content)
    return outcome


def _batch(
    name: str, target: Target, seed: int, first: int, end: int, until: float, folder: Path, outcome: Outcome
) -> int:
    """Run cases in one child until it finishes or dies, and return the number of the next case."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(False)
    place = mmap.mmap(-1, 8)  # the number of the current case, readable after a signal
    place[:] = struct.pack("q", first)
    child = context.Process(target=_child, args=(name, target, seed, first, end, until, folder, place, sending))
    child.start()
    sending.close()
    what = ""
    before, since, spent = first, time.monotonic(), _cpu_s(child.pid)
    while True:
        if receiving.poll(0.2):
            try:
                number, kind, words = receiving.recv()
            except (EOFError, OSError):
                break
            outcome.cases += 1
            if kind == "!":
                outcome.findings.append(Finding(name, number, words))
            else:
                outcome.kinds[kind] += 1
        (now,) = struct.unpack("q", place[:])
        if now != before:
            before, since, spent = now, time.monotonic(), _cpu_s(child.pid)
        elif _cpu_s(child.pid) - spent > CPU_S or time.monotonic() - since > WALL_S:
            what = "hang"
            os.kill(child.pid or 0, signal.SIGKILL)
            break
    child.join()
    receiving.close()
    (now,) = struct.unpack("q", place[:])
    if not what and child.exitcode:
        what = f"signal {-child.exitcode}" if child.exitcode < 0 else f"exit {child.exitcode}"
    if what:
        outcome.cases += 1
        outcome.findings.append(Finding(name, now, what))
        return now + 1
    return now


def _cpu_s(pid: int | None) -> float:
    """Return the processor time of a child so far, without that of its own children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def _child(
    name: str, target: Target, seed: int, first: int, end: int, until: float, folder: Path, place: Any, out: Connection
) -> None:
    """Run the cases one after another, and discard the output of native code."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = folder / f"work-{os.getpid()}"
    work.mkdir()
    os.chdir(work)
    number = first
    while number < end and time.monotonic() < until:
        place[:] = struct.pack("q", number)
        content = input_of(target, name, seed, number)
        out.send((number, *_tried(target, content, work)))
        number += 1
    place[:] = struct.pack("q", number)
    out.close()
    os._exit(0)


def _tried(target: Target, content: bytes, work: Path) -> tuple[str, str]:
    from mnas.cli.main import _is_users, _one_line
    from mnas.text import clean

    try:
        target.call(content, work)
    except MemoryError:
        return "!", "MemoryError: " + _last(traceback.format_exc())
    except BaseException as error:
        if isinstance(error, Exception) and _is_users(error):
            line = clean(_one_line(error))
            return (type(error).__name__, "") if line else ("!", f"an empty line of {type(error).__name__}")
        return "!", f"{type(error).__name__}: {clean(error, 200)} ({_last(traceback.format_exc())})"
    return "ok", ""


def _last(trace: str) -> str:
    """Return the last line of mnas in a traceback."""
    places = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    ours = [line for line in places if "/mnas/" in line] or places
    return ours[-1] if ours else ""
