"""Whether a mirrored image still shows its class: not where classes are each other's mirror images by their names."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mnas.labels import shown

Mirror = Literal["auto", "yes", "no"]
"""Whether training images are mirrored; auto: unless the data set, or the names of its classes, speak against it."""

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
_NO_MARKS = str.maketrans("øØłŁđĐı", "oOlLdDi")  # letters that Unicode does not take apart
_FEWEST_CUT = 4  # letters of a word that may be cut out of another (northeast, turnleft); shorter ones are anywhere
_NAMED = 3


def mirrors(mirror: Mirror, allowed: bool, classes: Sequence[str]) -> bool:
    """Return whether training images are mirrored.

    Args:
        mirror: what the user wants.
        allowed: whether images of this data set stay what they are (digits do not).
        classes: their names; pairs of mirror images among them speak against it.
    """
    return mirror == "yes" or (mirror == "auto" and allowed and not mirror_pairs(classes))


def mirror_note(mirror: Mirror, allowed: bool, classes: Sequence[str]) -> str:
    """Return the warning about classes that are mirror images by their names; empty where there are none."""
    pairs = mirror_pairs(classes)
    if not pairs or mirror == "no" or (mirror == "auto" and not allowed):
        return ""
    named = ", ".join(f"{shown(first)} and {shown(second)}" for first, second in pairs[:_NAMED])
    more = f" and {len(pairs) - _NAMED} more pairs" if len(pairs) > _NAMED else ""
    why = f"by their names, mirroring turns these classes into each other: {named}{more}"
    if mirror == "yes":
        return f"warning: {why}; training images are mirrored all the same (--mirror yes)"
    return f"warning: {why}; training images are not mirrored (--mirror yes mirrors them)"


def as_begun(mirror: Mirror, stored: Mapping[str, Any] | None, allowed: bool, classes: Sequence[str]) -> Mirror:
    """Return how to go on with what was begun with the settings `stored` (None: nothing was).

    Settings say `mirror` only where it is not what the data set allows: what was begun before there was a choice, or
    with --mirror yes, goes on mirrored.
    """
    if stored is None or "mirror" in stored or mirror != "auto" or not allowed:
        return mirror
    return "yes" if mirror_pairs(classes) else "auto"


def to_store(mirrored: bool, allowed: bool) -> dict[str, str]:
    """Return the setting as runs and trainings store it: see `as_begun`."""
    return {} if mirrored == allowed else {"mirror": "yes" if mirrored else "no"}


def mirror_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that are mirror images by their names (turn_left and turn-right, b and d).

    Numbers in the names of those that are no pairs with them count classes (01_left, 02_right).
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
    if any(word.isdecimal() and int(word) > 9 for tokens in words.values() for word in tokens):  # numbers, not digits
        letters = {name: tokens for name, tokens in letters.items() if not any(map(str.isdigit, tokens))}
    for letter in _LETTERS:
        pairs |= dict.fromkeys(_swapped(letter[0], letter[1], letters))
    return list(pairs)


def _swapped(first: str, second: str, words: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, str]]:
    """Pairs of names that are equal but for the two words, in any order of their words."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name, tokens in words.items():
        if sides := [word for word in tokens if word in (first, second)]:
            key = tuple(sorted("" if word in (first, second) else word for word in tokens))
            groups.setdefault(key, {}).setdefault(sides[0], name)
    return [(group[first], group[second]) for group in groups.values() if len(group) == 2]


def _words(name: str) -> list[str]:
    """The words, numbers and signs of a name, in lower case and without accents; separators are none of them."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _unmarked(name))  # turnLeft
    apart = re.sub(r"(?i)(counter|anti)[\W_]+(?=clockwise)", r"\1", apart)
    return re.findall(r"[^\W\d_]+|\d+|[^\w\s.,;:!?'\"\-]", apart.casefold())


def _unmarked(name: str) -> str:
    """The name without accents and vowel signs, which some leave out, and of which Python makes words of their own."""
    marked = unicodedata.normalize("NFKD", name)
    letters = "".join(letter for letter in marked if unicodedata.category(letter)[0] != "M")
    return unicodedata.normalize("NFC", letters).translate(_NO_MARKS)


def _unnumbered(words: Sequence[str]) -> Sequence[str]:
    """The words without numbers; those of a single letter (b2) keep what follows it."""
    rest = [word for word in words if not word.isdecimal()]
    return rest if sum(map(len, rest)) > 1 else words[1:] if words and words[0].isdecimal() else words


def _digits(words: Sequence[str]) -> list[str]:
    """The words, those that are digits as a digit: `02`, `two`."""
    return [_DIGITS.get(word, (word.lstrip("0") or "0") if word.isdecimal() else word) for word in words]


def _cut(words: Sequence[str], first: str, second: str) -> list[str]:
    """The words, those cut in two that begin or end with one of the pair: `turnleft`, `左转`."""
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
    """Whether a name is one letter or digit, or says that it is one (`letter_b`)."""
    return [len(word) for word in words if word not in _OF_LETTERS] == [1]
