"""Files that are whole or absent: what a reader sees is never half written, and a new file has one writer."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock


def write_atomic(path: Path, content: bytes | str, *, new: bool = False) -> None:
    """Write `content` to `path` so that a reader, or a resumed run, sees the old file or the new one, never a part.

    Args:
        new: refuse to replace a file; of several processes that write it at once, one succeeds.

    Raises:
        FileExistsError: with `new`, the file is there.
        OSError: the disk is full, the folder read-only, ..., with `path` as its filename; the old file is then
            untouched and no temporary is left.
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
            os.chmod(temporary, 0o644)  # mkstemp makes it private; results are to be shared like any other file
            place(Path(temporary), path, new=new)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:  # of a full disk it names no file, else the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def place(source: Path, target: Path, *, new: bool) -> None:
    """Give a whole file its name, in the same folder; with `new` only where nothing has that name.

    Raises:
        FileExistsError: with `new`, something has it; `source` is left where it is.
        OSError: as `os.replace`.
    """
    if not new:
        os.replace(source, target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "there is a file of that name already", str(target)) from None
    except OSError:  # a file system without links: the name is taken first, by an empty file
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        os.replace(source, target)
    else:
        os.unlink(source)


@contextlib.contextmanager
def claimed(files: Sequence[Path], option: str) -> Iterator[None]:
    """Be the only process that makes these files, each in a folder that there is, until the end of this.

    Raises:
        ValueError: another process is making one of them; it names the file and `option`, which chose it.
    """
    with contextlib.ExitStack() as stack:
        for file in sorted({Path(os.path.realpath(file)) for file in files}):
            lock = filelock.FileLock(file.with_name(f".{file.name}.lock"))
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                raise ValueError(
                    f"{option} must be a file that no other process is writing, but one is writing {str(file)!r}; "
                    "wait for it, or choose another"
                ) from None
            stack.callback(_release, lock)
        yield


def _release(lock: filelock.BaseFileLock) -> None:
    """Release the lock and remove its file: a process that still has it open finds the name taken by `place`."""
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def require_writable(folder: Path, option: str) -> None:
    """Raise ValueError where `folder` cannot be made or written to, before hours of work end there."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{option} must be a folder, but got {str(folder)!r}, and {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option} must be a folder that can be written to, but got {str(folder)!r}; choose another")
