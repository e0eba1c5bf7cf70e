"""Decide whether to mirror training images: not if class names say that classes are each other's mirror images."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mnas.labels import shown

Mirror = Literal["auto", "yes", "no"]
"""Whether to mirror training images; auto: unless the data set or its class names forbid it."""

_WORDS = (
    "left/right", "lefthand/righthand", "leftward/rightward", "leftwards/rightwards", "lhs/rhs", "lh/rh", "l/r",
    "lft/rgt", "links/rechts", "linker/rechter", "linke/rechte", "linkes/rechtes", "gauche/droite", "gauche/droit",
    "izquierda/derecha", "izquierdo/derecho", "izq/der", "esquerda/direita", "esquerdo/direito", "esquerra/dreta",
    "ezkerra/eskuina", "sinistra/destra", "sinistro/destro", "vänster/höger", "venstre/højre", "venstre/høyre",
    "vinstri/hægri", "vasen/oikea", "vasemmalle/oikealle", "vasak/parem", "lewo/prawo", "lewa/prawa", "lewy/prawy",
    "levo/pravo", "levá/pravá", "levý/pravý", "doleva/doprava", "doľava/doprava", "levo/desno", "lijevo/desno",
    "levi/desni", "stânga/dreapta", "bal/jobb", "balra/jobbra", "sol/sağ", "sola/sağa", "kreisā/labā", "kreisi/labi",
    "kairė/dešinė", "kairėn/dešinėn", "majtas/djathtas", "kiri/kanan", "kushoto/kulia", "trái/phải", "лево/право",
    "левый/правый", "левая/правая", "налево/направо", "влево/вправо", "слева/справа", "ліворуч/праворуч",
    "ліво/право", "наліво/направо", "лівий/правий", "ляво/дясно", "наляво/надясно", "αριστερά/δεξιά", "يسار/يمين",
    "چپ/راست", "بائیں/دائیں", "שמאל/ימין", "बाएं/दाएं", "बायां/दायां", "বাম/ডান", "இடது/வலது", "ซ้าย/ขวา",
    "왼쪽/오른쪽", "좌/우", "左/右", "ひだり/みぎ", "hidari/migi", "zuo/you",
    "east/west", "ne/nw", "se/sw", "ost/west", "est/ouest", "este/oeste", "восток/запад", "东/西", "東/西",
    "clockwise/counterclockwise", "clockwise/anticlockwise", "cw/ccw", "cw/acw", "port/starboard",
    "backbord/steuerbord", "forward/backward", "forwards/backwards", "forward/back", "forehand/backhand",
    "previous/next", "prev/next", "dexter/sinister", "dextral/sinistral", "levorotatory/dextrorotatory", "os/od",
    "slash/backslash", "less/greater", "lt/gt", "le/ge", "leq/geq", "lparen/rparen", "lbrace/rbrace",
)  # fmt: skip
_SIGNS = "()", "[]", "{}", "<>", "«»", "‹›", "←→", "⇐⇒", "↖↗", "↙↘", "⬅➡", "◀▶", "◁▷", "👈👉", "🔙🔜", "/\\", "≤≥"
_LETTERS = "bd", "pq", "sz", "jl", "25", "ew"
_OF_LETTERS = frozenset({
    "letter", "character", "char", "lower", "lowercase", "upper", "uppercase", "small", "capital", "alphabet", "digit",
    "number", "numeral", "figure", "num",
})  # fmt: skip
_DIGITS = {
    **dict.fromkeys(("two", "zwei", "deux", "dos", "due", "dois"), "2"),
    **dict.fromkeys(("five", "funf", "cinq", "cinco", "cinque"), "5"),
}
_NO_MARKS = str.maketrans("øØłŁđĐı", "oOlLdDi")  # letters that Unicode does not decompose
_FEWEST_CUT = 4  # shortest word to split off another (northeast, turnleft); shorter ones occur by chance
_NAMED = 3


def mirrors(mirror: Mirror, allowed: bool, classes: Sequence[str]) -> bool:
    """Return whether training images are mirrored.

    Args:
        mirror: the user's setting.
        allowed: whether mirrored images of this data set keep their class (digits do not).
        classes: class names; `auto` does not mirror if two of them are mirror images.
    """
    return mirror == "yes" or (mirror == "auto" and allowed and not mirror_pairs(classes))


def mirror_note(mirror: Mirror, allowed: bool, classes: Sequence[str]) -> str:
    """Return the warning about classes that are mirror images by their names; empty without such classes."""
    pairs = mirror_pairs(classes)
    if not pairs or mirror == "no" or (mirror == "auto" and not allowed):
        return ""
    named = ", ".join(f"{shown(first)} and {shown(second)}" for first, second in pairs[:_NAMED])
    more = f" and {len(pairs) - _NAMED} more pairs" if len(pairs) > _NAMED else ""
    why = f"the names of these classes suggest that they are mirror images of each other: {named}{more}"
    if mirror == "yes":
        return f"warning: {why}. Training images are mirrored nevertheless, because of --mirror yes."
    return f"warning: {why}. Training images are not mirrored; use --mirror yes to mirror them."


def as_begun(mirror: Mirror, stored: Mapping[str, Any] | None, allowed: bool, classes: Sequence[str]) -> Mirror:
    """Return the setting with which to resume a run or training with the settings `stored` (None: start a new one).

    Settings hold `mirror` only if it differs from what the data set allows. So work that began before this option
    existed, or with --mirror yes, stays mirrored.
    """
    if stored is None or "mirror" in stored or mirror != "auto" or not allowed:
        return mirror
    return "yes" if mirror_pairs(classes) else "auto"


def to_store(mirrored: bool, allowed: bool) -> dict[str, str]:
    """Return the setting in the form that runs and trainings store (see `as_begun`)."""
    return {} if mirrored == allowed else {"mirror": "yes" if mirrored else "no"}


def mirror_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that are mirror images by their names (turn_left and turn-right, b and d).

    Names that form no pair are compared again without numbers, which may just count classes (01_left, 02_right).
    """
    words = {name: _words(name) for name in classes}
    pairs = _pairs(words)
    paired = {name for pair in pairs for name in pair}
    return pairs + _pairs({name: _unnumbered(tokens) for name, tokens in words.items() if name not in paired})


def _pairs(words: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    text = "\n".join(" ".join(tokens) for tokens in words.values())
    pairs: dict[tuple[str, str], None] = {}
    for first, _, second in (_unmarked(pair).partition("/") for pair in _WORDS):
        if first in text and second in text:
            cut = {name: _cut(tokens, first, second) for name, tokens in words.items()}
            pairs |= dict.fromkeys(_swapped(first, second, cut))
    for signs in _SIGNS:
        pairs |= dict.fromkeys(_swapped(signs[0], signs[1], words))
    letters = {name: _digits(tokens) for name, tokens in words.items()}
    letters = {name: tokens for name, tokens in letters.items() if _is_letter(tokens)}
    if any(word.isdecimal() and int(word) > 9 for tokens in words.values() for word in tokens):  # no digits
        letters = {name: tokens for name, tokens in letters.items() if not any(map(str.isdigit, tokens))}
    for letter in _LETTERS:
        pairs |= dict.fromkeys(_swapped(letter[0], letter[1], letters))
    return list(pairs)


def _swapped(first: str, second: str, words: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, str]]:
    """Return pairs of names that differ only in the two words; the order of words does not matter."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name, tokens in words.items():
        if sides := [word for word in tokens if word in (first, second)]:
            key = tuple(sorted("" if word in (first, second) else word for word in tokens))
            groups.setdefault(key, {}).setdefault(sides[0], name)
    return [(group[first], group[second]) for group in groups.values() if len(group) == 2]


def _words(name: str) -> list[str]:
    """Return the words, numbers and signs of a name, in lower case, without accents and separators."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _unmarked(name))  # splits turnLeft
    apart = re.sub(r"(?i)(counter|anti)[\W_]+(?=clockwise)", r"\1", apart)
    return re.findall(r"[^\W\d_]+|\d+|[^\w\s.,;:!?'\"\-]", apart.casefold())


def _unmarked(name: str) -> str:
    """Return the name without accents and vowel signs, which are optional and which Python's `re` would split off."""
    marked = unicodedata.normalize("NFKD", name)
    letters = "".join(letter for letter in marked if unicodedata.category(letter)[0] != "M")
    return unicodedata.normalize("NFC", letters).translate(_NO_MARKS)


def _unnumbered(words: Sequence[str]) -> Sequence[str]:
    """Return the words without numbers; a name of a single letter (b2) loses only a number before it."""
    rest = [word for word in words if not word.isdecimal()]
    return rest if sum(map(len, rest)) > 1 else words[1:] if words and words[0].isdecimal() else words


def _digits(words: Sequence[str]) -> list[str]:
    """Return the words with digits in one form: `02` and `two` become `2`."""
    return [_DIGITS.get(word, (word.lstrip("0") or "0") if word.isdecimal() else word) for word in words]


def _cut(words: Sequence[str], first: str, second: str) -> list[str]:
    """Return the words, split at `first` or `second` if they begin or end with it: `turnleft`, `左转`."""
    pieces: list[str] = []
    for word in words:
        parts = [word]
        for side in (first, second):
            if word in (first, second) or (len(side) < _FEWEST_CUT and side.isascii()):
                continue
            if word.startswith(side):
                parts = [side, word.removeprefix(side)]
            elif word.endswith(side):
                parts = [side, word.removesuffix(side)]
        pieces += parts
    return pieces


def _is_letter(words: Sequence[str]) -> bool:
    """Return whether a name is one letter or digit, possibly described as such (`letter_b`)."""
    return [len(word) for word in words if word not in _OF_LETTERS] == [1]
