"""The class table: counts, the majority share, and the files left out."""

from mnas.data.listing.class_table import ClassTable, Listing, left_out_of, with_unreadable


def table(**images: tuple[int, ...]) -> ClassTable:
    return ClassTable(
        name="pets", classes=("cat", "dog"), counts={part: sum(each) for part, each in images.items()}, images=images
    )


def test_the_majority_is_that_of_the_scored_parts() -> None:
    pets = table(train=(30, 10), val=(3, 9))
    assert pets.majority_share("train") == 0.75
    assert (pets.majority_share("val"), pets.majority_class("val")) == (0.75, "dog")
    assert pets.majority_share("train", "val") == 33 / 52
    assert table(train=(5, 5)).majority_class("train") == "cat"


def test_what_is_not_known_has_no_majority() -> None:
    assert table().majority_share("val") is None
    assert table(val=(1, 2)).majority_class("test") is None
    assert table(val=(0, 0)).majority_share("val") is None
    assert table(val=(1, 2)).majority_share() is None


def test_what_is_left_out_is_grouped_by_reason() -> None:
    found = [("hidden", "", ".x"), ("dangling link", "cat", "cat/a"), ("dangling link", "dog", "dog/a")]
    first, second = left_out_of(found)
    assert (first.reason, first.by_class, first.count, first.example) == (
        "dangling link", {"cat": 1, "dog": 1}, 2, "cat/a"
    )  # fmt: skip
    assert (second.reason, second.by_class) == ("hidden", {"": 1})
    lines = ["train/cat/7.png: cut off", "train/x/1.png: no", "/abs/cat/1.png: no", "train/dog/2.png: no"]
    listing = with_unreadable(Listing(empty=frozenset({"train/dog/2.png"})), lines, ("cat", "dog"))
    assert {group.reason: group.by_class for group in listing.left_out} == {
        "unreadable": {"cat": 2, "": 1}, "empty file": {"dog": 1},
    }  # fmt: skip


def test_it_is_json() -> None:
    listing = Listing(left_out=left_out_of([("hidden", "", ".x")]), notes=("guessed",))
    pets = ClassTable(name="pets", classes=("cat",), counts={"val": 1}, images={"val": (1,)}, listing=listing)
    assert pets.to_dict() == {
        "name": "pets",
        "classes": ("cat",),
        "counts": {"val": 1},
        "images": {"val": (1,)},
        "listing": {
            "left_out": ({"reason": "hidden", "by_class": {"": 1}, "example": ".x", "count": 1},),
            "notes": ("guessed",),
        },
    }
