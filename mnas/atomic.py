"""Files that are whole or absent: what a reader sees is never half written."""

import errno
import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader, or a resumed run, sees the old file or the new one, never a part.

    Raises:
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
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:  # of a full disk it names no file, else the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
