"""How many threads a runtime is asked to start at most."""

import os

MOST_THREADS = 1024
"""On any device, whose cores are not known before it is connected."""


def most_threads_here() -> int:
    """On this machine: 4 times its cores, or 64. Where many more spin for work than there are cores, none gets any."""
    return min(MOST_THREADS, max(64, 4 * (os.cpu_count() or 1)))


def require_threads_here(name: str, count: object) -> None:
    """Raise ValueError for a number of threads that no runtime should be asked to start on this machine."""
    most = most_threads_here()
    if type(count) is not int or not 1 <= count <= most:
        raise ValueError(f"{name} must be an integer from 1 to {most} on this machine, but got {count!r}")
