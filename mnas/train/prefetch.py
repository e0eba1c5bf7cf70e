"""Batches made and pinned by a thread while a GPU works on the ones before."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
END_S = 5.0
"""Limit for the thread to end by itself; one that waits for others is left alone."""


def prefetched(source: Iterator[T], prepare: Callable[[T], U], ahead: int = 2) -> Iterator[U]:
    """`prepare` of each of the source's values, in order, made up to `ahead` + 1 of them before they are asked for.

    What the source or `prepare` raises is raised where its value would have come. When the iterator is closed the
    thread ends after the value that it is making.
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
            if isinstance(source, Generator):  # its workers end with the thread that started them
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
