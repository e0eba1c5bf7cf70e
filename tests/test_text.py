import pytest

from mnas.text import LINE_CHARS, clean

ORDINARY = [
    "cat", "a  b", "back\\slash", "r\u00e9sum\u00e9", "e\u0301", "\u0447\u0430\u0448\u043a\u0430", "\u732b", "\u3000",
    "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0915\u094d\u200d\u0937", "a\u00a0b", "9.41\u202fAM", "\u845b\U000e0100", "\u2764\ufe0f", "1\ufe0f\u20e3",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f469\U0001f3fd\u200d\u2695\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "[red]", ":cat:", "\ue000", "\u0600\u0661",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY, ids=ascii)
def test_ordinary_text_of_any_script_is_unchanged(text):
    assert clean(text) == text
    assert clean(f"x {text} x") == f"x {text} x"


SHOWN = {
    "a\nb\r\tc": r"a\x0ab\x0d\x09c",
    "\x00\x07\x1b[2J\x7f": r"\x00\x07\x1b[2J\x7f",
    "\x85\x9b2J\x9d": r"\x85\x9b2J\x9d",
    "a\u2028b\u2029c": r"a\u2028b\u2029c",
    "\u202egnp.exe\u202c\u2066\u2069\u200f\u061c": r"\u202egnp.exe\u202c\u2066\u2069\u200f\u061c",
    "ca\u200bt\u2060\ufeff\u00ad\u2800\u3164": r"ca\u200bt\u2060\ufeff\xad\u2800\u3164",
    "a\u200db\u200c": r"a\u200db\u200c",
    "cat\ufe0f": r"cat\ufe0f",
    "\u2764\ufe0f\ufe0f": "\u2764\ufe0f" + r"\ufe0f",
    "\U000e0041 \U000e0100": r"\U000e0041 \U000e0100",
    "\udcff\ud83d": r"\udcff\ud83d",
    "\ufffe": r"\ufffe",
}


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_what_acts_on_a_terminal_or_hides_is_shown_as_an_escape(text):
    assert clean(text) == SHOWN[text]
    assert clean(clean(text)) == SHOWN[text]


def test_no_control_character_passes_and_every_letter_does():
    import sys
    import unicodedata

    for code in range(sys.maxunicode + 1):
        sign, kind = chr(code), unicodedata.category(chr(code))
        if kind in ("Cc", "Cs", "Zl", "Zp"):
            assert clean(sign) != sign, hex(code)
        elif kind in ("Lu", "Ll", "Lt", "Lm", "Nd", "Nl", "No", "Sm", "Sc", "Sk", "So", "Mc") and code != 0x2800:
            assert clean(sign) == sign, hex(code)


def test_the_middle_of_a_long_text_is_cut_out():
    assert clean("abcdefghij", 10) == "abcdefghij"
    assert clean("abcdefghijk", 10) == "abcdef\u2026ijk"
    assert len(clean("\x1b" * 10**6)) == LINE_CHARS
    assert clean("x" * 10**6 + "; remove it").endswith("xx; remove it")
    assert clean(clean("y" * 10**6, 80), 80) == clean("y" * 10**6, 80)


def test_anything_can_be_cleaned():
    assert clean(ValueError("a\nb")) == r"a\x0ab"
    assert clean(17) == "17"
