"""Phrases that plain English has a better word for do not appear in code, help, errors and documentation."""

import re
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


def texts() -> list[Path]:
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]
    for folder, kind in (("mnas", "*.py"), ("scripts", "*.py"), ("benchmarks", "*.py"), ("docs", "*.md")):
        files += sorted((ROOT / folder).rglob(kind))
    return files


@pytest.mark.parametrize("phrase", INSTEAD)
def test_the_phrase_is_not_used(phrase):
    pattern = re.compile(phrase, re.IGNORECASE)
    uses = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert uses == [], f"write {INSTEAD[phrase]} instead"
