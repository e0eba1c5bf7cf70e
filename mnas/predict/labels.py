"""Read files of class names: lines, numbered lines or JSON, in UTF-8 or UTF-16."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnas.readers import parse_json, read_regular

_MOST_BYTES = 16_000_000
_NUMBERED = re.compile(r"\s*(\d{1,7})\s*[:,;\t]\s*(\S.*)|\s*(\d{1,7})\s+(\S.*)")
_WORDNET = re.compile(r"n\d{8}[\s,:]+(\S.*)")
_HEAD = re.compile(r"\W*(id|index|idx|class_?id|class_?index|label_?id|number|no)\W.*", re.IGNORECASE)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return names in the order of a model's outputs: one a line, a JSON list, or a JSON object {"0": name, ...}.

    Lines may be numbered (`0 cat`, `0: cat`, `0,cat`), all of them, from 0 or from 1: their numbers then give the
    order. For `n01440764 tench`, the name is `tench`. An object may also be {name: 0, ...}, or have either form under
    "id2label" or "label2id"; a name in it may be a list, of which the last entry counts (Keras' ["n01440764",
    "tench"]).

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no names, or an object's numbers are not 0 to N - 1.
    """
    text = _text(read_regular(path, _MOST_BYTES), path)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            values = parse_json(text, _MOST_BYTES)
        except ValueError:
            values = text.rstrip().splitlines()
    else:
        values = list(names_of_lines(text.rstrip().splitlines()))
    if isinstance(values, dict):
        values = _of_object(values, path)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
        raise ValueError(f"--class-file must contain one name per line or a JSON list of names, but got {str(path)!r}")
    return tuple(value.strip() for value in values)


def names_of_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the lines of a label file, without the numbers that all of them may begin with."""
    numbered = _by_number(lines)
    if numbered is None and len(lines) > 2 and _HEAD.fullmatch(lines[0]):
        numbered = _by_number(lines[1:])
    names = list(lines) if numbered is None else numbered
    named = [_WORDNET.fullmatch(name.strip()) for name in names]
    words = [match[1].strip() for match in named if match is not None]
    return tuple(words if len(set(words)) == len(names) else names)


def _by_number(lines: Sequence[str]) -> list[str] | None:
    """Return the names in the order of their numbers; None unless these are 0 to N - 1 or 1 to N, each once."""
    names: dict[int, str] = {}
    for line in lines:
        match = _NUMBERED.fullmatch(line)
        if match is None:
            return None
        names[int(match[1] or match[3])] = _unquoted((match[2] or match[4]).strip())
    if not names:
        return None
    first = min(names)
    # the names must still differ without numbers: the coins 1 cent and 2 cent are names
    whole = len(names) == len(lines) == len(set(names.values())) and first in (0, 1)
    return [names[number] for number in sorted(names)] if whole and max(names) == first + len(names) - 1 else None


def _unquoted(name: str) -> str:
    return next(csv.reader([name]))[0].strip() or name if name.startswith('"') else name


def _text(content: bytes, path: Path) -> str:
    encodings = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = encodings.get(content[:2], "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in content[:2]:  # UTF-16 without a byte-order mark
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ValueError(f"--class-file must be text in UTF-8 or UTF-16, but got {str(path)!r}") from None


def _of_object(values: dict[str, Any], path: Path) -> Any:
    nested = next((values[key] for key in ("id2label", "label2id") if isinstance(values.get(key), dict)), None)
    values = values if nested is None else nested
    if values and all(type(value) is int for value in values.values()):
        values = (
            {str(number): name for name, number in values.items()} if len(set(values.values())) == len(values) else {}
        )
    keys = [str(i) for i in range(len(values))]
    if set(keys) != set(values):
        raise ValueError(f"the keys of --class-file {str(path)!r} must be 0 to {len(values) - 1}, but got others")
    names = [values[key] for key in keys]
    return [value[-1] if isinstance(value, list) and value else value for value in names]
