"""Show untrusted text (names of files and classes, messages of servers and libraries) as one harmless line.

Numbers with their nouns are here, too.
"""

import re

LINE_CHARS = 5000
"""Longest printed line, in characters; a path has at most 4,096 bytes."""
NAME_CHARS = 80
"""Longest name within a line, in characters; a longer one could fill the next lines of the terminal."""

# Zero-width joiners connect letters and emoji, variation selectors choose a character's appearance, tags make flags of
# regions, and marks belong to letters. Each of them stays where its neighbours give it an effect.
_JOINERS = "\u200c\u200d"
_SELECTORS = "\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef"
_FLAG = "\U0001f3f4"
_INVISIBLE = (
    "\x00-\x1f\x7f-\x9f"  # ASCII's controls, and those of 8 bits
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # writing direction: marks, embeddings, overrides, isolates
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u2800\u3164\ufeff\uffa0"  # no width
    "\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
    "\ud800-\udfff"  # Python's stand-ins for bytes of a file name that is not UTF-8
)
_SUSPECT = re.compile(
    rf"{_FLAG}[\U000e0020-\U000e007e]{{1,16}}\U000e007f"  # a complete flag does not change
    rf"|[{_INVISIBLE}{_JOINERS}{_SELECTORS}]"
)
_KEYCAP = re.compile("[0-9#*]\ufe0f\u20e3")


def clean(text: object, limit: int = LINE_CHARS) -> str:
    r"""Return `text` as one line in which every character is visible and none controls the terminal.

    Control characters, line separators, marks and overrides of the writing direction, characters without width and
    lone surrogates become `\xNN`, `\uNNNN` or `\UNNNNNNNN`. All other Unicode characters do not change. Cleaning twice
    changes nothing.

    Args:
        limit: longest result in characters; a longer text loses its middle.
    """
    whole = str(text)
    if len(whole) > 4 * limit:  # bounds the work on very long text
        whole = whole[: 2 * limit] + whole[-2 * limit :]
    line = whole if whole.isascii() and whole.isprintable() else _SUSPECT.sub(_escaped, whole)
    if len(line) <= limit:
        return line
    tail = (limit - 1) // 3
    return f"{line[: limit - 1 - tail]}\u2026{line[len(line) - tail :]}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as `1 image` or `1,200 images`.

    Args:
        noun: in the singular; its plural ends in s.
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def message_of(error: object, limit: int) -> str:
    """Return the first `limit` characters of an error's message on one line, or its type if the message is empty.

    Unprintable characters become spaces, as a message may quote the bytes of a damaged file.
    """
    words = "".join(letter if letter.isprintable() else " " for letter in str(error)[:limit])
    return " ".join(words.split()) or type(error).__name__


def _escaped(match: re.Match[str]) -> str:
    sign = match[0]
    if len(sign) > 1 or _has_use(sign, match.string, match.start()):
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _has_use(sign: str, text: str, place: int) -> bool:
    """Return whether a joiner or selector belongs to the characters around it."""
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if sign in _JOINERS:
        return all((side and not side.isascii() and not _SUSPECT.match(side)) or _is_selector(side)
                   for side in (before, after))  # fmt: skip
    if _is_selector(sign):
        alone = not before or before.isascii() or bool(_SUSPECT.match(before))
        return not alone or bool(_KEYCAP.match(text, max(0, place - 1)))
    return False


def _is_selector(sign: str) -> bool:
    return bool(sign) and bool(re.match(f"[{_SELECTORS}]", sign))
