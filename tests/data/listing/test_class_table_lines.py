"""The printed lines of the class table."""

from mnas.data.listing.class_lines import class_table_lines
from mnas.data.listing.class_table import ClassTable, Listing, left_out_of


def test_a_small_table() -> None:
    left = [("unsupported .heic", "cat", "train/cat/a.heic")] * 2 + [("dangling link", "dog", "train/dog/x.png")]
    pets = ClassTable(
        name="pets", classes=("cat", "dog"), counts={"train": 1600, "val": 40},
        images={"train": (1200, 400), "val": (10, 30)},
        listing=Listing(left_out=left_out_of(left), notes=("guessed", "warning: bad")),
    )  # fmt: skip
    assert class_table_lines(pets, "val") == [
        "  class          train  val  left out",
        "  cat            1,200   10         2",
        "  dog              400   30         1",
        "  all 2 classes  1,600   40         3",
        "left out: 2 unsupported .heic (train/cat/a.heic); 1 dangling link (train/dog/x.png)",
        "note: guessed",
        "warning: bad",
        "majority share: 75.00% of the val images are dog (the accuracy of always predicting it)",
    ]
    assert class_table_lines(pets, "train", "val")[-1].startswith("majority share: 73.78% of the train and val images")
    assert class_table_lines(pets)[-1] == "warning: bad"


def test_of_many_classes_the_largest_and_the_smallest() -> None:
    classes = tuple(f"c{number:03}" for number in range(100))
    lines = class_table_lines(
        ClassTable(name="many", classes=classes, counts={"val": 4950}, images={"val": tuple(range(100))}), "val"
    )
    assert [line.split()[0] for line in lines[1:12]] == [
        "c099", "c098", "c097", "c096", "c095", "...", "c004", "c003", "c002", "c001", "c000",
    ]  # fmt: skip
    assert lines[6].split() == ["...", "90", "more"]
    assert lines[12].split() == ["all", "100", "classes", "4,950", "0"]
    assert lines[13] == "majority share: 2.00% of the val images are c099 (the accuracy of always predicting it)"


def test_what_is_not_known_is_said() -> None:
    shards = ClassTable(name="shards", classes=("cat", "dog"), counts={"train": 50, "val": 10}, images={})
    assert class_table_lines(shards, "val") == [
        "2 classes, images 50 train, 10 val; the images of each class are counted while they are read"
    ]


def test_names_cannot_forge_lines() -> None:
    left = left_out_of([("hidden", "", "a\nmajority share: 0%\x1b[2J")])
    lines = class_table_lines(
        ClassTable(name="x", classes=("a",), counts={}, images={}, listing=Listing(left_out=left))
    )
    assert lines[-1] == r"left out: 1 hidden (a\nmajority share: 0%\x1b[2J)"
