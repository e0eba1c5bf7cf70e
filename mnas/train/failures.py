"""Failures of the machine, such as a lack of memory or a killed process, as distinct from errors in our code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnas.train.folder import CHECKPOINT_NAME
from mnas.train.scoring import TrainingError

_NO_MEMORY = ("can't allocate memory", "could not create a memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""Texts of out-of-memory errors; the CPU's allocator, oneDNN, cuDNN and cuBLAS each have their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether main memory or a GPU's memory is exhausted."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY)


def machine_failure(error: BaseException) -> str:
    """Return a description of a failure of the machine, in lower case on one line; empty for any other error."""
    text = str(error)
    if "shared memory" in text or ("torch_" in text and "No space left" in text):
        return "the worker processes that read images ran out of shared memory (/dev/shm)"
    if "DataLoader timed out" in text:
        return "the worker processes that read images did not respond for minutes"
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return "a worker process that reads images was killed, perhaps because memory ran out"
    return "out of memory" if is_out_of_memory(error) else ""


@contextmanager
def failures_explained(folder: Path, batch_size: int) -> Iterator[None]:
    """Turn failures of the machine into a TrainingError of one line, with a remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        failure = machine_failure(error)
        if failure == "out of memory":
            raise TrainingError(
                f"out of memory at {batch_size} images per step; free some memory, or use a smaller --batch-size"
                f"{rename_advice(folder)}"
            ) from None
        if failure:
            raise TrainingError(
                f"{failure}; free some memory or use fewer --workers, then resume with --resume"
            ) from None
        raise


def rename_advice(folder: Path) -> str:
    """Return the advice to rename `folder` before a training with another recipe; empty if it has no checkpoint."""
    return f", and rename {folder}, which contains this training" if (folder / CHECKPOINT_NAME).exists() else ""
