"""Several devices at once: each measures every candidate, in parallel with the others."""

import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from mnas.candidate import Candidate
from mnas.latency.fleet.pool import Device
from mnas.latency.latency import Calibration, Latency, MeasurementError
from mnas.latency.protocol import Reference, Render


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of a candidate, made before it is trained."""

    latencies: Mapping[str, Latency]
    """Latency on each device, by the device's name."""
    size_bytes: int
    """Size of the file for the first device."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Post:
    """One device of a fleet, with the models that it runs and its reference."""

    device: Device
    reference: Reference
    render: Render
    """Function that converts an architecture to the device's file format."""


class Fleet:
    """Devices by name, in the user's order; call `start` before `measure`. The context manager closes all of them."""

    def __init__(self, posts: Mapping[str, Post], *, num_classes: int, budget_s: float, fresh: bool = False) -> None:
        self._posts = dict(posts)
        self._num_classes, self._budget_s, self._fresh = num_classes, budget_s, fresh

    def __enter__(self) -> Self:
        self._open = ExitStack()
        for post in self._posts.values():
            self._open.callback(post.device.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self, calibrations: Mapping[str, list[Any]] | None, budget_s: float) -> dict[str, list[Any]]:
        """Calibrate every device, or resume with `calibrations`; return device -> calibrations as plain values.

        Raises:
            ValueError, MeasurementError, UnitError: as `Device.calibrate` and `Device.resume`.
        """
        if calibrations is not None:
            for name, post in self._posts.items():
                post.device.resume(post.reference, [Calibration.from_dict(c) for c in calibrations[name]])
            return dict(calibrations)
        return {
            name: [c.to_dict() for c in post.device.calibrate(post.reference, budget_s)]
            for name, post in self._posts.items()
        }

    @property
    def reference_ms(self) -> dict[str, float]:
        """Latency of the reference on each device in milliseconds, once started."""
        return {name: post.device.reference_ms for name, post in self._posts.items()}

    def size_bytes(self, candidate: Candidate) -> int:
        """Return the size of the file for the first device."""
        return len(self._file(next(iter(self._posts.values())), candidate))

    def measure(
        self, candidates: Mapping[int, Candidate]
    ) -> Generator[tuple[int, Measured | MeasurementError], None, None]:
        """Yield each of `candidates` (number -> candidate) once all devices have measured it, in any order.

        Raises:
            UnitError: a device is lost; measurements that were not yielded are usually in the cache.
            OSError: leases cannot be written.
        """
        files = {
            name: {number: self._file(post, candidate) for number, candidate in candidates.items()}
            for name, post in self._posts.items()
        }
        sizes = {number: len(file) for number, file in next(iter(files.values())).items()}
        outcomes: dict[int, dict[str, Latency | MeasurementError]] = {number: {} for number in candidates}
        for name, number, outcome in self._outcomes(files):
            outcomes[number][name] = outcome
            if len(outcomes[number]) == len(self._posts):
                yield number, self._joined(outcomes[number], sizes[number])

    def _file(self, post: Post, candidate: Candidate) -> bytes:
        return post.render(candidate.arch, candidate.input_size, self._num_classes)

    def _joined(
        self, outcomes: Mapping[str, Latency | MeasurementError], size_bytes: int
    ) -> Measured | MeasurementError:
        latencies: dict[str, Latency] = {}
        for name in self._posts:  # in the user's order
            outcome = outcomes[name]
            if isinstance(outcome, MeasurementError):
                return MeasurementError(f"{name}: {outcome}" if len(self._posts) > 1 else str(outcome))
            latencies[name] = outcome
        return Measured(latencies=latencies, size_bytes=size_bytes)

    def _outcomes(
        self, files: Mapping[str, Mapping[int, bytes]]
    ) -> Iterator[tuple[str, int, Latency | MeasurementError]]:
        """Yield the outcomes of every device and file as they come, with one thread for each of several devices."""
        if len(self._posts) == 1:
            [(name, post)] = self._posts.items()
            for number, outcome in post.device.measure(files[name], budget_s=self._budget_s, fresh=self._fresh):
                yield name, number, outcome
            return
        results: queue.SimpleQueue[tuple[str, int, Latency | MeasurementError] | BaseException | None]
        results = queue.SimpleQueue()
        stop = threading.Event()

        def work(name: str, device: Device) -> None:
            try:
                outcomes = device.measure(files[name], budget_s=self._budget_s, fresh=self._fresh, stop=stop)
                for number, outcome in outcomes:
                    results.put((name, number, outcome))
                results.put(None)
            except BaseException as error:  # the thread that reads the results raises it
                results.put(error)

        threads = [threading.Thread(target=work, args=(n, p.device)) for n, p in self._posts.items()]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                while (result := results.get()) is not None:
                    if isinstance(result, BaseException):
                        raise result
                    yield result
        finally:
            stop.set()
            for thread in threads:
                thread.join()
