"""Names of classes: which can be shipped in every format, and which are the same name."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

MOST_BYTES = 255
"""Longest name in UTF-8, as for a file name on most systems."""
_FIRST_CHARACTERS = 60


def label_fault(name: object) -> str:
    """Return why no format can hold `name` as a label; empty where all can.

    A label is one line of text in UTF-8, as label files and metadata hold a label a line. Models that were written
    before class names were checked by `class_name_fault` keep to this rule, so it also holds for what is read.
    """
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    if not name.strip():
        return "it is blank"
    if len(name.splitlines()) != 1 or name.splitlines()[0] != name:
        return "it has a line break"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return ""


def class_name_fault(name: object) -> str:
    """Return why `name` cannot be the name of a class that is trained and shipped; empty where it can.

    Beyond `label_fault`, refuses what readers of label files strip or stop at, and invisible names.
    """
    if fault := label_fault(name):
        return fault
    assert isinstance(name, str)
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "it has a control character"
    if "\ufeff" in name:
        return "it has a byte order mark"
    if all(unicodedata.category(character)[0] in "ZC" for character in name):
        return "all its characters are invisible"
    if name != name.strip():
        return "it begins or ends with a space, which label files lose"
    if len(name.encode()) > MOST_BYTES:
        return f"it takes more than {MOST_BYTES} bytes"
    return ""


def check_class_names(names: Sequence[object], where: str) -> None:
    """Raise ValueError, naming the first, where names cannot be shipped or two are the same (`same_name`).

    Args:
        where: what has them, for the message: "the folder 'pets'".
    """
    names_by_form: dict[str, object] = {}
    for name in names:
        if fault := class_name_fault(name):
            raise ValueError(
                f"a class name must be one line of visible text, as label files and models hold it, but got "
                f"{shown(name)} in {where} ({fault}); rename that class"
            )
        key = same_name(str(name))
        if key in names_by_form:
            how = "the same name" if names_by_form[key] == name else "the same but for its Unicode form"
            raise ValueError(
                f"class names must differ, but got {shown(names_by_form[key])} and {shown(name)} in {where} ({how}); "
                "rename or merge them"
            )
        names_by_form[key] = name


def same_name(name: str) -> str:
    """Return the form of `name` that is equal for names that look and mean the same: composed (NFC) or decomposed."""
    return unicodedata.normalize("NFC", name)


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether both are the same names (`same_name`) in the same order."""
    return list(map(same_name, first)) == list(map(same_name, second))


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ in upper and lower case only: one file on some systems."""
    return _pairs(names, lambda name: same_name(name).casefold())


def look_alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that look the same: but for width, ligatures, no-break spaces, or what cannot be seen."""
    return _pairs(names, _visible)


def _visible(name: str) -> str:
    letters = (c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return " ".join("".join(letters).split())


def _pairs(names: Iterable[str], form: Callable[[str], str]) -> list[tuple[str, str]]:
    names_by_form: dict[str, str] = {}
    pairs = []
    for name in names:
        first = names_by_form.setdefault(form(name), name)
        if first != name:
            pairs.append((first, name))
    return pairs


def shown_path(path: object) -> str:
    """Return a path for a message: as it is, or in quotes where it holds what is not to be printed."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def shown(name: object) -> str:
    """Return `name` for a message: on one line, in quotes, cut where it is long."""
    text = name if isinstance(name, str) else repr(name)
    return repr(text if len(text) <= _FIRST_CHARACTERS else f"{text[: _FIRST_CHARACTERS - 3]}...")
