"""Any names of folders and files are read, or rejected in one line; every file is an image or counted as left out."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mnas.data.listing.class_lines import class_table_lines
from mnas.data.listing.class_table import ClassTable
from mnas.data.listing.folder import folder_source
from mnas.labels import class_name_fault

_WORDS = ("train", "Testing", "val", "images", "labels", "__MACOSX", "cat", "left", "right", ".git", "0", "café")
NAMES = st.one_of(
    st.sampled_from(_WORDS),
    st.text(max_size=12),
    st.binary(max_size=8).map(os.fsdecode),
    st.text(alphabet="\u2028\x85\x1b\u202e\ufeff\u200b \n'\"\\[]/a", max_size=6),
)
SUFFIXES = st.sampled_from(["", ".png", ".JPG", ".heic", ".\x1b[31m", ".tar.png", "."])
FILES = st.builds(lambda name, suffix: name + suffix, NAMES, SUFFIXES)
TREES = st.dictionaries(
    NAMES, st.one_of(st.lists(FILES, max_size=3), st.dictionaries(NAMES, st.lists(FILES, max_size=2), max_size=3)),
    max_size=4,
)  # fmt: skip


def _make(folder: Path, held: object) -> int:
    """Make folders and files with these names, if the file system allows them, and return the number of files."""
    folder.mkdir(exist_ok=True)
    count = 0
    for name in held:  # type: ignore[attr-defined]
        if "/" in name or "\0" in name or name in ("", ".", "..") or len(os.fsencode(name)) > 255:
            continue
        path = folder / name
        if path.exists():
            continue
        if isinstance(held, dict):
            count += _make(path, held[name])
        else:
            path.write_bytes(b"image")
            count += 1
    return count


@settings(max_examples=60)
@given(TREES)
def test_any_names(tree: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        count = _make(root, tree)
        try:
            source, refusal = folder_source(root), ""
        except ValueError as error:
            source, refusal = None, str(error)
        if source is None:
            assert len(refusal.splitlines()) == 1
            assert refusal.isprintable()
            return
        parts = source.parts()
        assert all(class_name_fault(name) == "" for name in parts.classes)
        used = [item for part in (parts.train, parts.val, parts.test) if part is not None for item in part]
        table = ClassTable(name="data", classes=parts.classes, counts={}, images={}, listing=source.listing)
        assert all(line.isprintable() for line in class_table_lines(table))
        if not any(note.startswith("not read") for note in source.listing.notes):
            hidden = [g for g in source.listing.left_out if g.reason in ("hidden", "from the operating system")]
            left = sum(group.count for group in source.listing.left_out)
            assert len(used) + left <= count + len(hidden) * count
            assert hidden or len(used) + left == count
        for item in used:
            assert isinstance(item.content, Path)
            assert item.content.read_bytes() == b"image"
