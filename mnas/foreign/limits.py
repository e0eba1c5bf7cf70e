"""Limits on the number of threads of a runtime."""

import os

MOST_THREADS = 1024
"""Limit on any device, whose cores are unknown before mnas connects to it."""


def most_threads_here() -> int:
    """Return the limit on this machine: 4 times its cores, at least 64; many more would starve each other."""
    return min(MOST_THREADS, max(64, 4 * (os.cpu_count() or 1)))


def require_threads_here(name: str, count: object) -> None:
    """Raise ValueError unless `count` is a valid number of threads on this machine."""
    if type(count) is int and count < 1:
        raise ValueError(f"{name} must be 1 or more, but got {count}")
    most = most_threads_here()
    if type(count) is not int or not 1 <= count <= most:
        raise ValueError(f"{name} must be an integer from 1 to {most} on this machine, but got {count!r}")
