"""Phrases that plain English has a better word for do not appear in code, help, errors and documentation."""

import functools
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"(put|kept|set) aside": "quarantined, or moved to",
    r"taken over": "imported, copied or cached",
    r"so many": "the number of",
    r"whoever|whomever": "the process, user or program that",
    r"spoils?\b|spoilt": "disturbs",
    r"\btold\b": "passed, given or reported",
    r"takes? no notice": "ignores",
    r"of no use": "unusable",
    r"there (is|are) none": "the condition itself",
    r"(goes|go|went) on\b(?! (to|from|a|the|it|its))": "resumes or continues",
    r"\banew\b": "again",
    r"\b(known|heard) of\b": "cached, published or recognized",
    r"\bof (ours|theirs)\b": "that mnas wrote, their",
    r"\bbut for\b": "except for",
    r"\bis (said|had)\b|\bbe had\b": "mnas prints, is available",
    r"\bat the end stands?\b": "ends with",
    r"\btherein\b|\bthereof\b|\bwhereof\b|\bwherein\b": "the noun itself",
    r"\bmakes? up for\b": "compensates for",
}
"""Phrase -> what to write instead."""


def files() -> list[Path]:
    paths = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]
    for folder in ("mnas", "scripts", "benchmarks", "tests"):
        paths += sorted((ROOT / folder).rglob("*.py"))
    paths += sorted((ROOT / "docs").rglob("*.md"))
    return [path for path in paths if path not in (Path(__file__), ROOT / "tests" / "test_names_of_things.py")]


@functools.cache
def texts() -> list[tuple[str, str]]:
    """Return (file and line, text) of every sentence that a person reads: all text, but no names in code."""
    found = []
    for path in files():
        name = path.relative_to(ROOT)
        if path.suffix == ".py":
            with path.open("rb") as file:
                tokens = list(tokenize.tokenize(file.readline))
            kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
            found += [(f"{name}:{t.start[0]}", " ".join(t.string.split())) for t in tokens if t.type in kinds]
        else:
            found += [(f"{name}:{number}", line) for number, line in enumerate(path.read_text().splitlines(), 1)]
    return found


@pytest.mark.parametrize("phrase", INSTEAD)
def test_the_phrase_is_not_used(phrase):
    pattern = re.compile(phrase, re.IGNORECASE)
    assert [use for use in texts() if pattern.search(use[1])] == [], f"write {INSTEAD[phrase]} instead"
