"""Checks and comparisons of class names, which must work in every model format."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

MOST_BYTES = 255
"""Longest name in bytes of UTF-8, the limit for file names on most systems."""
_FIRST_CHARACTERS = 60


def label_fault(name: object) -> str:
    """Return why `name` is not a label that every format can contain; empty if it is.

    A label is one line of UTF-8 text, because label files and metadata have one label per line. Models from before
    `class_name_fault` existed follow this rule, so readers check it too.
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
    """Return why `name` is not a valid class name for training and export; empty if it is.

    In addition to `label_fault`, this rejects invisible names, and characters that readers of label files strip or stop
    at.
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
    """Raise ValueError, naming the first fault, if a class name is invalid or two are the same (`same_name`).

    Args:
        where: source of the names, for the message: "the folder 'pets'".
    """
    names_by_form: dict[str, object] = {}
    for name in names:
        if fault := class_name_fault(name):
            raise ValueError(
                f"a class name must be one line of visible text, but got {shown(name)} in {where} ({fault}); rename "
                "that class"
            )
        key = same_name(str(name))
        if key in names_by_form:
            how = "the same name" if names_by_form[key] == name else "they differ only in Unicode form"
            raise ValueError(
                f"class names must differ, but got {shown(names_by_form[key])} and {shown(name)} in {where} ({how}); "
                "rename or merge them"
            )
        names_by_form[key] = name


def same_name(name: str) -> str:
    """Return `name` in composed form (NFC), so that names compare equal whether they are composed or decomposed."""
    return unicodedata.normalize("NFC", name)


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether both sequences contain the same names (`same_name`) in the same order."""
    return list(map(same_name, first)) == list(map(same_name, second))


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only in case, and so are one file on some systems."""
    return _pairs(names, lambda name: same_name(name).casefold())


def look_alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only in width, ligatures, no-break spaces or invisible characters."""
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
    """Return a path for a message, in quotes if it contains unprintable characters."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def shown(name: object) -> str:
    """Return `name` for a message: on one line, in quotes, shortened if it is long."""
    text = name if isinstance(name, str) else repr(name)
    return repr(text if len(text) <= _FIRST_CHARACTERS else f"{text[: _FIRST_CHARACTERS - 3]}...")
