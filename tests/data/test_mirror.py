"""Mirroring: class names that are each other's mirror images, and the consequences."""

import pytest

from mnas.data.mirror import as_begun, mirror_note, mirror_pairs, mirrors, to_store


@pytest.mark.parametrize(
    "pair",
    [
        "left right", "Left RIGHT", "turn_left turn-right", "TurnLeft turnRight", "turnleft turnright",
        "left-arrow right-arrow", "arrow.left arrow.right", "upper_left upper_right", "upleft upright",
        "left_to_right right_to_left", "links rechts", "gauche droite", "izquierda derecha", "sinistra destra",
        "налево направо", "左转 右转", "左 右", "왼쪽 오른쪽", "hand_L hand_R", "lh rh", "east west",
        "northeast northwest", "wind-east wind-west", "clockwise counterclockwise", "cw ccw", "port starboard",
        "clockwise anti-clockwise", "b d", "p q", "B D", "letter_b letter_d", "2 5", "digit_2 digit_5", "S Z", "← →",
        "arrow← arrow→", "< >", "( )", "↖ ↗", "👈 👉", "➡️ ⬅️", "Kurve_links Kurve_rechts",
        "01_left 02_right", "1.left 2.right", "class0_left class1_right", "left_0 right_1", "0_b 1_d", "02 05",
        "two five", "levá pravá", "doleva doprava", "sola_dönüş sağa_dönüş", "sol sag", "stanga dreapta",
        "vanster hoger", "hoyre venstre", "balra jobbra", "ліворуч праворуч", "наляво надясно", "ซ้าย ขวา",
        "เลี้ยวซ้าย เลี้ยวขวา", "बाएँ दाएँ", "বাম ডান", "چپ راست", "ひだり みぎ", "NE NW", "lt gt", "less_than greater_than",
        "forward_slash back_slash", "prev next", "좌회전 우회전",
    ],
)  # fmt: skip
def test_mirror_pairs_are_found(pair: str) -> None:
    first, second = pair.split(" ")
    (found,) = mirror_pairs(["stop", first, second])
    assert set(found) == {first, second}
    assert not mirrors("auto", True, ["stop", first, second])


@pytest.mark.parametrize(
    "classes",
    [
        ("cat", "dog"),
        ("left",),
        ("left", "straight"),
        ("turn left", "arrow right"),  # names that differ in more than the words
        ("bright", "dark", "cleft"),
        ("up", "down"),
        tuple(map(str, range(12))),  # numbers above 9, so 2 and 5 are not digits
        tuple(f"sample_{n}" for n in range(10)),
        tuple(f"{n:02}" for n in range(12)),
        ("12", "15"),
        ("L1", "R2"),
        ("b1", "d2"),
        ("two people", "five people"),
        ("grade 2", "grade 5"),
        ("airport", "harbour"),
        ("bed", "ded"),
        ("sole", "sağlam"),
        ("cat (small)", "cat (large)"),
        ("negative", "positive"),
        ("", "a"),
    ],
)
def test_other_names_are_none(classes: tuple[str, ...]) -> None:
    assert mirror_pairs(classes) == []
    assert mirrors("auto", True, classes)


def test_all_pairs_of_digits_and_many_classes() -> None:
    assert mirror_pairs([str(n) for n in range(10)]) == [("2", "5")]
    assert mirror_pairs(["left", "right", "turn left", "turn right", "up"]) == [
        ("left", "right"), ("turn left", "turn right"),
    ]  # fmt: skip
    assert mirror_pairs(["left1", "left2", "right1", "right2"]) == [("left1", "right1"), ("left2", "right2")]


def test_what_the_user_says_goes_first_and_a_warning_says_what_is_done() -> None:
    pair = ["left", "right"]
    assert [mirrors(choice, True, pair) for choice in ("auto", "yes", "no")] == [False, True, False]
    assert [mirrors(choice, True, ["a", "c"]) for choice in ("auto", "yes", "no")] == [True, True, False]
    assert [mirrors(choice, False, ["a", "c"]) for choice in ("auto", "yes", "no")] == [False, True, False]
    assert "'left' and 'right'. Training images are not mirrored; use --mirror yes" in mirror_note("auto", True, pair)
    assert "'left' and 'right'. Training images are mirrored nevertheless" in mirror_note("yes", True, pair)
    assert mirror_note("no", True, pair) == mirror_note("auto", True, ["a", "c"]) == ""
    assert mirror_note("auto", False, ["2", "5"]) == ""


def test_what_was_begun_goes_on_as_it_was() -> None:
    pair = ["left", "right"]
    assert to_store(True, True) == to_store(False, False) == {}
    assert to_store(False, True) == {"mirror": "no"}
    assert to_store(True, False) == {"mirror": "yes"}
    assert as_begun("auto", {}, True, pair) == "yes"  # from before the option existed
    assert as_begun("auto", None, True, pair) == "auto"
    assert as_begun("auto", {"mirror": "no"}, True, pair) == "auto"
    assert as_begun("no", {}, True, pair) == "no"  # it is rejected, as it is another training
    assert as_begun("auto", {}, True, ["a", "c"]) == "auto"
    assert as_begun("auto", {}, False, ["2", "5"]) == "auto"
