"""Class names match in any Unicode form."""

import unicodedata

import pytest

from mnas.predict.info import ModelInfo
from mnas.predict.matching import match_classes


def info(*classes: str) -> ModelInfo:
    return ModelInfo(
        format="mnas", classes=classes, outputs=len(classes), input_size=8, mean=(0, 0, 0), std=(1, 1, 1), crop=1.0,
        arch=None, probabilities=False, size_bytes=0,
    )  # fmt: skip


def test_equal_but_for_unicode_form_is_the_same_name() -> None:
    composed, decomposed = "café", unicodedata.normalize("NFD", "café")
    for ours, theirs in ((composed, decomposed), (decomposed, composed)):
        outputs, words = match_classes(info("tea", ours), [theirs, "tea"])
        assert outputs.tolist() == [1, 0]
        assert words == "classes matched by name (some differ in their Unicode form)"
    outputs, words = match_classes(info("tea", composed), ["tea", composed])
    assert (outputs.tolist(), words) == ([0, 1], "")


def test_other_names_are_others() -> None:
    with pytest.raises(ValueError, match="but got cafe; rename the folders"):
        match_classes(info("tea", "café"), ["cafe", "tea"])
