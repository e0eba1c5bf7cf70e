"""Prepare and pin batches in a thread while a GPU works on earlier ones."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
END_S = 5.0
"""Time limit in seconds for the thread to end by itself; a thread that still waits for others is left running."""


def prefetched(source: Iterator[T], prepare: Callable[[T], U], ahead: int = 2) -> Iterator[U]:
    """Yield `prepare` of each value of the source, in order, up to `ahead` + 1 of them in advance.

    An exception of the source or of `prepare` is raised where its value would have come. Closing the iterator ends the
    thread after its current value.
    """
    made: queue.Queue[tuple[U | None, BaseException | None]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(value: U | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                made.put((value, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for value in source:
                put(prepare(value), None)
                if closed.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())
        finally:
            if isinstance(source, Generator):  # the source's workers end with the thread that started them
                source.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            value, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert value is not None
            yield value
    finally:
        closed.set()
        thread.join(END_S)
