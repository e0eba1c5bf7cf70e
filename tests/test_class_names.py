"""Class names: which ones can be shipped, and which ones are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnas.labels import alike, check_class_names, class_name_fault, label_fault, same_name, shown


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *[(f"a{c}b", "line break") for c in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"],
        *[(f"a{c}", "line break") for c in "\n\u2028"],
        *[(f"a{c}b", "control character") for c in "\0\x01\t\x1b\x7f\x9b"],
        *[(name, "blank") for name in ("", " ", "\t", "\u00a0", "\u2003 ")],
        ("\u200b\u200d", "all its characters are invisible"),
        ("caf\udce9", "not UTF-8"),
        (" cat", "space"),
        ("cat ", "space"),
        ("cat\u00a0", "space"),
        ("\ufeffcat", "byte order mark"),
        ("é" * 128, "255 bytes"),
        (7, "int"),
    ],
)
def test_what_cannot_be_shipped_is_refused_with_the_reason(name: object, fault: str) -> None:
    assert fault in class_name_fault(name)
    with pytest.raises(ValueError, match="rename that class") as error:
        check_class_names(["dog", name], "the folder 'pets'")
    assert str(error.value).isprintable()
    assert str(error.value).isascii() or "é" in str(error.value)
    assert "dog" not in str(error.value)


@pytest.mark.parametrize("name", ["cat", "a b", "naïve", "日本語", "👩‍💻", "<", "a/b", "0", "é" * 127, "x" * 255])
def test_ordinary_names_are_fine(name: str) -> None:
    assert class_name_fault(name) == ""
    check_class_names([name, "another"], "x")


def test_names_equal_but_for_their_unicode_form_are_one_name() -> None:
    composed, decomposed = "café", unicodedata.normalize("NFD", "café")
    assert composed != decomposed
    assert same_name(composed) == same_name(decomposed)
    with pytest.raises(ValueError, match="they differ only in Unicode form"):
        check_class_names([composed, "tea", decomposed], "x")
    with pytest.raises(ValueError, match=r"'tea' and 'tea' in x \(the same name"):
        check_class_names(["tea", "tea"], "x")
    assert alike(["Cat", "dog", "cat", "CAT"]) == [("Cat", "cat"), ("Cat", "CAT")]


@given(st.text())
def test_what_may_be_a_class_may_be_a_label_and_reads_back_from_a_label_file(name: str) -> None:
    if class_name_fault(name) == "":
        assert label_fault(name) == ""
        lines = f"{name}\nanother\n".encode().decode().splitlines()
        assert [line.strip() for line in lines] == [name, "another"]
    assert len(shown(name).splitlines()) == 1
