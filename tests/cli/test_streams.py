"""Output to a pipe without a reader, a closed stream or a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from started import started_mnas

ROOT = Path(__file__).parents[2]


def _stdout(number: int) -> None:
    """Redirect standard output to `number`, buffered in blocks as for any pipe or file."""
    os.dup2(number, 1)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def unread() -> None:
    """A pipe whose reader has closed it."""
    reader, writer = os.pipe()
    os.close(reader)
    _stdout(writer)


def full() -> None:
    """A full disk."""
    _stdout(os.open("/dev/full", os.O_WRONLY))


def closed() -> None:
    """Close standard output, as `>&-` does."""
    os.close(1)
    sys.stdout = None  # type: ignore[assignment]


COMMANDS = (
    ["show", "mnasnet-a1"],
    ["space"],
    ["runs", "."],
    ["devices", "list"],
    ["--help"],
    ["search", "--help"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(("before", "code"), [(unread, 0), (closed, 0), (full, 2)])
def test_every_command_handles_it(command, before, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = started_mnas(*command, before=before)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (code, code // 2)
    assert code == 0 or errors.startswith("mnas: ")


def test_a_real_pipe_and_closed_streams():
    mnas = f"{sys.executable} -m mnas.cli.main"
    script = f"{mnas} show mnasnet-a1 | head -2; echo ${{PIPESTATUS[0]}}; {mnas} space >&- 2>&- <&-; echo $?"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    lines = done.stdout.splitlines()
    assert "layer" in lines[1]
    assert lines[2:] == ["0", "0"]
    assert done.stderr == ""


def test_opened_files_get_no_standard_descriptor(tmp_path):
    """While standard output is closed, an opened file could get its descriptor, and prints would go into that file."""
    code = (
        "import os; os.close(1); from mnas.cli.streams import open_streams; open_streams(); "
        f"file = open({str(tmp_path / 'a')!r}, 'w'); print('not here'); os.write(2, b'%d' % file.fileno())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    assert int(done.stderr) > 2
    assert (tmp_path / "a").read_text() == ""
