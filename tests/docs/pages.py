"""The pages of the documentation, and what their Markdown contains."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference" / "command-line.md"


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    text: str


def pages() -> list[Path]:
    """Return README and all pages of the documentation."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, without their indentation in lists."""
    text = page.read_text()
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        indent, language, body = match.groups()
        body = "\n".join(line.removeprefix(indent) for line in body.splitlines())
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, body)


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of sentences, numbered: no code, tables, headings, comments or admonition titles."""
    fence = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        text = line.strip()
        if fence:
            fence = "" if text.startswith(fence) else fence
        elif match := re.match(r"`{3,}", text):
            fence = match.group()
        elif text and not re.match(r"\||#|<!--|!!!|\?\?\?|:::|options:|!\[|---", text):
            yield number, re.sub(r"^([-*+]|\d+\.) +", "", text)
