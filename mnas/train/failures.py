"""What the machine does to a training, told apart from our own mistakes: no memory left, a process killed."""

_NO_MEMORY = ("can't allocate memory", "could not create a memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""The CPU's allocator, oneDNN, cuDNN and cuBLAS each have words of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of the main memory or a GPU's."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY)


def machine_failure(error: BaseException) -> str:
    """What happened, in one line that begins small, where it is the machine's doing; empty for anything else."""
    text = str(error)
    if "shared memory" in text or ("torch_" in text and "No space left" in text):
        return "the processes that read images have no shared memory left (/dev/shm)"
    if "DataLoader timed out" in text:
        return "the processes that read images have stood still for minutes"
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return "a process that reads images was killed, perhaps for lack of memory"
    return "out of memory" if is_out_of_memory(error) else ""
