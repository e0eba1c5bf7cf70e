"""Atomic writes: a reader never sees half a file, and a new file has one writer."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock


def write_atomic(path: Path, content: bytes | str, *, new: bool = False) -> None:
    """Write `content` to `path` atomically: a reader, or a resumed run, sees the old file or the new one.

    Args:
        new: do not replace an existing file; if several processes write it at the same time, one succeeds.

    Raises:
        FileExistsError: with `new`, the file exists.
        OSError: the disk is full, the folder is read-only, ..., with `path` as its filename; the old file is then
            untouched and no temporary file remains.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it private, but results are shared like other files
            place(Path(temporary), path, new=new)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:  # on a full disk the error names no file, otherwise the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def place(source: Path, target: Path, *, new: bool) -> None:
    """Rename a complete file within its folder; with `new` only if nothing has the new name.

    Raises:
        FileExistsError: with `new`, `target` exists; `source` stays in place.
        OSError: `os.replace` failed.
    """
    if not new:
        os.replace(source, target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "A file of that name already exists", str(target)) from None
    except OSError:  # the file system has no links, so an empty file reserves the name
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        os.replace(source, target)
    else:
        os.unlink(source)


@contextlib.contextmanager
def claimed(files: Sequence[Path], option: str) -> Iterator[None]:
    """Lock these files, each in an existing folder, against other writers until the context ends.

    Raises:
        ValueError: another process is writing one of them; the message names the file and the flag `option`.
    """
    with contextlib.ExitStack() as stack:
        for file in sorted({Path(os.path.realpath(file)) for file in files}):
            lock = filelock.FileLock(file.with_name(f".{file.name}.lock"))
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                raise ValueError(
                    f"another process is writing the file {str(file)!r} of {option}; wait for it, or choose another "
                    "file"
                ) from None
            stack.callback(_release, lock)
        yield


def _release(lock: filelock.BaseFileLock) -> None:
    """Remove the lock's file and release the lock; `place` protects against a process that still has the file open."""
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def require_writable(folder: Path, option: str) -> None:
    """Raise ValueError if `folder` cannot be created or written to, before hours of work depend on it."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{option} must be a folder, but got {str(folder)!r}, where {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option} must be a writable folder, but got {str(folder)!r}; choose another")
