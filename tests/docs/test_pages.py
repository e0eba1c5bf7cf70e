"""The rules of the documentation that a program can check: contributing rules for pages, links and generated parts."""

import re
import runpy
from pathlib import Path

import pytest

from mnas.latency.devices.registry import read_devices
from tests.docs.pages import DOCS, GENERATED, ROOT, blocks, pages, prose

WRITTEN = [page for page in pages() if page != GENERATED]
MOST_WORDS = 25
"""Words in a sentence; a link's address, inline code and what is in brackets after it count as they are read."""


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def plain(text: str) -> str:
    """Return a line as it is read: code as one word, links as their text, without emphasis."""
    text = re.sub(r"`[^`]*`", "code", text)
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "")


@pytest.mark.parametrize("page", WRITTEN, ids=names)
def test_a_line_is_one_sentence_of_at_most_25_words(page):
    wrong = []
    for number, line in prose(page):
        text = re.sub(r"\b(e\.g|i\.e|et al|vs|Fig|Sec|No)\.", r"\1", plain(line))
        if re.search(r"[.!?] +[A-Z`\"(]", text) or len(text.split()) > MOST_WORDS:
            wrong.append(f"{number}: {line}")
    assert wrong == []


@pytest.mark.parametrize("page", WRITTEN, ids=names)
def test_only_measurements_are_dated(page):
    if "measurements" not in page.parts:
        assert re.findall(r"\b20[2-9]\d-\d\d(?:-\d\d)?\b", page.read_text()) == []


def test_the_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_the_navigation_lists_each_page_once():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_each_page_and_picture_that_a_file_names_exists():
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
    for folder in ("mnas", "tests", "benchmarks", "scripts"):
        files += (ROOT / folder).rglob("*.py")
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in re.findall(r"\bdocs/[\w/.-]+\.(?:md|svg|png)\b", file.read_text())
        if not (ROOT / name).is_file()
    ]
    assert missing == []


def test_each_picture_of_a_page_exists():
    missing = [
        f"{names(page)}: {picture}"
        for page in pages()
        for picture in re.findall(r"!\[[^\]]*\]\(([^)#?\s]+)", page.read_text())
        if "://" not in picture and not (page.parent / picture).is_file()
    ]
    assert missing == []


def test_each_example_of_devices_toml_is_read(tmp_path):
    examples = [
        block for page in pages() for block in blocks(page) if re.search(r'^kind = "(adb|ssh|host)"', block.text, re.M)
    ]
    assert len(examples) >= 4
    for number, block in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(block.text)
        assert read_devices(file)


def test_the_page_of_commands_is_up_to_date(capsys):
    """Where this fails: make reference."""
    runpy.run_path(str(ROOT / "scripts" / "command_reference.py"), run_name="__main__")
    assert GENERATED.read_text() == capsys.readouterr().out
