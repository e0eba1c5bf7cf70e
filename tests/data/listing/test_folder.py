"""Folders: every layout is read correctly or rejected in one line, and every file that is left out is counted."""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.data.listing.class_table import Listing
from mnas.data.listing.folder import folder_source
from mnas.data.source import Parts, Source

CLASSES = ("cat", "dog")


def fill(folder: Path, count: int = 2) -> Path:
    """Make distinct images."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(np.full((4, 4), index, np.uint8)).save(folder / f"{index}.png")
    return folder


def tree(root: Path, *folders: str, count: int = 2) -> Path:
    for folder in folders:
        fill(root / folder, count)
    return root


def split(root: Path, *parts: str) -> Path:
    """Make two classes in each part."""
    return tree(root, *(f"{part}/{name}" for part in parts for name in CLASSES))


def names(source: Source) -> dict[str, list[str]]:
    parts: Parts = source.parts()
    all_parts = {"train": parts.train, "val": parts.val, "test": parts.test}
    return {part: [item.name for item in items] for part, items in all_parts.items() if items is not None}


def counts(source: Source) -> dict[str, int]:
    return {part: len(items) for part, items in names(source).items()}


def left(listing: Listing) -> dict[str, int]:
    return {group.reason: group.count for group in listing.left_out}


def refusal(root: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        folder_source(root)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).isprintable()
    return str(error.value)


# Layouts


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "DEV", "TEST"),
        ("training_set", "valid", "test_set"),
        ("Train Images", "eval", "Test Images"),
        ("trainset", "valset", "testset"),
        ("training", "validation", "evaluation"),  # the last is a test part beside a validation part
    ],
)
def test_a_split_is_read_as_the_split_it_is(tmp_path: Path, train: str, val: str, test: str) -> None:
    source = folder_source(split(tmp_path / "pets", train, val, test))
    assert source.parts().classes == CLASSES
    assert counts(source) == {"train": 4, "val": 4, "test": 4}
    assert names(source)["test"][0] == "test/cat/0.png"
    content = source.parts().train[0].content
    assert isinstance(content, Path)
    assert content == tmp_path / "pets" / train / "cat" / "0.png"
    usual = (train, val, test) == ("train", "val", "test")
    assert (source.listing.notes == ()) == usual


def test_training_and_testing_alone(tmp_path: Path) -> None:
    source = folder_source(split(tmp_path / "scans", "Training", "Testing"))
    assert counts(source) == {"train": 4, "test": 4}
    assert source.listing.notes == ("folders read as parts: 'Training' (train), 'Testing' (test)",)


@pytest.mark.parametrize("name", ["cat\u200d", "c\uff41t", "c\u00ada\u200bt"])
def test_classes_that_look_the_same_are_named(tmp_path: Path, name: str) -> None:
    source = folder_source(tree(tmp_path / "pets", "cat", name))
    first, second = map(ascii, sorted(["cat", name]))
    assert source.listing.notes == (f"warning: classes {first} and {second} are different, but look the same",)


def test_parts_in_the_names_of_classes_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", "train_cat", "train_dog", "test_cat", "test_dog")
    assert "got 'test_cat', 'train_cat' in" in refusal(root)
    fill(root / "pregnancy")
    assert len(folder_source(root).classes) == 5  # names with another meaning


def test_folders_inside_of_some_classes_are_named(tmp_path: Path) -> None:
    source = folder_source(tree(tmp_path / "pets", "labeled/cat", "labeled/dog", "unlabeled"))
    assert source.listing.notes == ("all folders inside 'labeled' count as that class: 'cat', 'dog'",)


def test_only_training_needs_a_training_part(tmp_path: Path) -> None:
    root = split(tmp_path / "scans", "dev", "Testing")
    source = folder_source(root, needs_train=False)
    assert (source.parts().classes, counts(source)) == (CLASSES, {"train": 0, "val": 4, "test": 4})
    with pytest.raises(ValueError, match="--data must have a part train/"):
        folder_source(root)


@pytest.mark.parametrize("wrapped", ["data", "data/scans", "scans/scans/scans"])
def test_folders_that_wrap_the_only_other_one_are_passed(tmp_path: Path, wrapped: str) -> None:
    split(tmp_path / "scans" / wrapped, "Training", "Testing")
    (tmp_path / "scans" / "README.md").write_text("")
    fill(tmp_path / "scans" / "__MACOSX" / "cat")
    source = folder_source(tmp_path / "scans")
    assert (source.parts().classes, counts(source)) == (CLASSES, {"train": 4, "test": 4})
    assert source.listing.notes[0] == f"the data is read from the folder {wrapped!r} in 'scans'"
    assert left(source.listing) == {"unsupported .md": 1, "from the operating system": 1}


def test_parts_that_wrap_their_only_folder_and_share_a_word(tmp_path: Path) -> None:
    root = split(tmp_path / "intel", "seg_train/seg_train", "seg_test/seg_test")
    fill(root / "seg_pred")
    source = folder_source(root)
    assert (source.parts().classes, counts(source)) == (CLASSES, {"train": 4, "test": 4})
    assert "folders read as parts because of their names: 'seg_test', 'seg_train'" in source.listing.notes
    assert "folders not used, because they are beside the parts: 'seg_pred'" in source.listing.notes


def test_parts_that_wrap_a_folder_of_their_own_name(tmp_path: Path) -> None:
    source = folder_source(split(tmp_path / "scans", "Training/Training", "Testing/Testing"))
    assert (source.parts().classes, counts(source)) == (CLASSES, {"train": 4, "test": 4})


def test_images_beside_annotations_without_images(tmp_path: Path) -> None:
    root = tree(tmp_path / "dogs", "Images/beagle", "Images/pug")
    (root / "Annotation" / "beagle").mkdir(parents=True)
    (root / "Annotation" / "beagle" / "0.xml").write_text("")
    source = folder_source(root)
    assert source.parts().classes == ("beagle", "pug")
    assert source.listing.notes == ("the data is read from the folder 'Images' in 'dogs'",)


def test_an_unlabelled_test_part_is_not_read_and_said(tmp_path: Path) -> None:
    root = split(tmp_path / "contest", "train")
    fill(root / "test")
    source = folder_source(root)
    assert counts(source) == {"train": 4}
    assert source.listing.notes == ("folder not used, because its images are not in class folders: 'test'",)


def test_a_class_may_be_called_as_a_part(tmp_path: Path) -> None:
    source = folder_source(tree(tmp_path / "vehicles", "bus", "train", "test"))
    assert source.parts().classes == ("bus", "test", "train")
    assert source.listing.notes == ()


def test_classes_whose_images_lie_deeper_stay_classes(tmp_path: Path) -> None:
    tiny = tree(tmp_path / "tiny", "n01/images", "n02/images")
    assert folder_source(tiny).parts().classes == ("n01", "n02")
    years = folder_source(tree(tmp_path / "years", "cat/2020", "cat/2021", "dog/2022", "dog/2023"))
    assert years.parts().classes == CLASSES
    assert "the outer folders are the classes" in years.listing.notes[0]


@pytest.mark.parametrize(
    ("folders", "seen"),
    [
        (["Testing/cat", "Testing/dog", "owl"], "'Testing', 'owl'"),
        (["test/cat", "test/dog", "val/cat", "val/dog"], "must have a part train/"),
        (["Testing/cat", "Testing/dog"], "must have a part train/"),
        (["train/steam", "train/diesel", "bus", "car"], "contains both"),
        (["train/cat", "train/dog", "val/cat", "val/dog", "cat"], "contains both"),
        (["train", "test"], "must contain a folder for each class"),
        (["images/train", "images/val", "labels/train", "labels/val"], "detection or segmentation"),
        (["images", "masks"], "detection or segmentation"),
        (["train/images", "train/labels", "valid/images", "valid/labels"], "detection or segmentation"),
        (["train/cat", "train/dog", "val/cat", "val/dog", "validation/cat"], "one validation folder"),
        (["train/cat", "train/dog", "Training/cat", "Training/dog"], "one training folder"),
        (["Entrenamiento/cat", "Entrenamiento/dog", "Prueba/cat", "Prueba/dog"], "which may be the classes"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "which contains the parts 'test', 'train'"),
        (["cat", "dog", "more/cat", "more/dog"], "which may be the classes"),
        (
            ["pets/train/cat", "pets/test/cat", "docs"],
            "'pets' in .*, which contains the parts 'test', 'train'; point --data",
        ),
        (["train/cat", "train/dog", "val/cat", "val/owl"], "also has 'owl'"),
        (["train/cat", "test/cat"], "only 'cat'"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_was_seen(tmp_path: Path, folders: list[str], seen: str) -> None:
    assert re.search(seen, refusal(tree(tmp_path / "data", *folders)))


def test_yolo_labels_are_no_class(tmp_path: Path) -> None:
    root = tree(tmp_path / "yolo", "images/train", "images/val")
    for part in ("train", "val"):
        (root / "labels" / part).mkdir(parents=True)
        (root / "labels" / part / "0.txt").write_text("")
    assert "must contain a folder for each class" in refusal(root)


def test_images_without_class_folders_are_seen(tmp_path: Path) -> None:
    assert "no folder, but images" in refusal(fill(tmp_path / "flat"))
    (fill(tmp_path / "one") / "cat").mkdir()
    assert "only 'cat', and images beside them" in refusal(tmp_path / "one")


# Files left out


def test_nothing_is_left_out_without_a_count(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", *CLASSES)
    cat = root / "cat"
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt", "plain", "x.\x1b[31m", ".hidden.png", "Thumbs.db"):
        (cat / name).write_text("")
    (cat / "dangling.png").symlink_to("gone.png")
    (cat / "itself.png").symlink_to("itself.png")
    os.mkfifo(cat / "pipe.png")
    fill(cat / ".ipynb_checkpoints")
    fill(root / "__MACOSX" / "cat")
    fill(root / "lost+found")
    Image.new("L", (4, 4)).save(root / "loose.png")
    source = folder_source(root)
    assert source.parts().classes == CLASSES
    assert counts(source) == {"train": 4}
    assert left(source.listing) == {
        "from the operating system": 4,
        "unsupported .heic": 2,
        "without a usual suffix": 2,
        "unsupported .svg": 1,
        "unsupported .txt": 1,
        "hidden": 1,
        "dangling link": 1,
        "link to itself": 1,
        "not a regular file": 1,
        "image outside of class folders": 1,
    }
    heic = next(group for group in source.listing.left_out if group.reason == "unsupported .heic")
    assert (heic.by_class, heic.example) == ({"cat": 2}, "train/cat/a.heic")


def test_linked_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", 3)
    fill(elsewhere / "deeper", 1)
    root = tree(tmp_path / "pets", *CLASSES)
    (root / "cat" / "linked").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(elsewhere / "deeper")
    (root / "cat" / "up").symlink_to("..")
    (elsewhere / "back").symlink_to(root)
    (elsewhere / "round").symlink_to(".")
    (root / "everything").symlink_to(".")
    source = folder_source(root)
    assert source.parts().classes == CLASSES
    assert [name for name in names(source)["train"] if "/cat/" in name] == [
        "train/cat/0.png", "train/cat/1.png", "train/cat/again/0.png",
        "train/cat/linked/0.png", "train/cat/linked/1.png", "train/cat/linked/2.png",
    ]  # fmt: skip
    assert counts(source) == {"train": 8}
    assert left(source.listing) == {"link to a folder already in use": 4, "link to a parent folder": 1}


def test_a_file_that_links_lead_to_twice_is_one_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", *CLASSES)
    (root / "cat" / "!link.png").symlink_to("0.png")
    os.link(root / "cat" / "1.png", root / "cat" / "2.png")
    (root / "dog" / "shared.png").symlink_to(root / "cat" / "0.png")
    source = folder_source(root)
    assert names(source)["train"] == [
        f"train/{name}.png" for name in ("cat/0", "cat/1", "dog/0", "dog/1", "dog/shared")
    ]
    assert left(source.listing) == {"link to an image already in use": 2}


def test_a_class_without_images_says_what_it_holds(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets", *CLASSES)
    (root / "owl").mkdir()
    assert refusal(root).endswith(f"but {root / 'owl'} has none")
    (root / "owl" / "0.heic").write_text("")
    assert "(1 unsupported .heic)" in refusal(root)


# Names


def test_names_equal_but_for_unicode_form_or_case_are_matched_across_parts_and_said(tmp_path: Path) -> None:
    composed, decomposed = "café", unicodedata.normalize("NFD", "café")
    root = tree(tmp_path / "data", f"train/{composed}", "train/Tea", f"val/{decomposed}", "val/tea", "test/Tea")
    source = folder_source(root)
    assert source.parts().classes == ("Tea", composed)
    val = source.parts().val
    assert val is not None
    assert [(item.name, item.label) for item in val] == [
        ("val/tea/0.png", 0), ("val/tea/1.png", 0), (f"val/{decomposed}/0.png", 1), (f"val/{decomposed}/1.png", 1),
    ]  # fmt: skip
    assert source.listing.notes == (
        f"the val folder {decomposed!r} is read as class {composed!r}, which differs only in Unicode form",
        "the val folder 'tea' is read as class 'Tea', which differs only in case",
        f"the test part has no images of {composed!r}",
    )


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    both = tree(tmp_path / "a", "café", unicodedata.normalize("NFD", "café"))
    assert "they differ only in Unicode form" in refusal(both)
    cases = folder_source(tree(tmp_path / "b", "Cat", "cat"))
    assert cases.parts().classes == ("Cat", "cat")
    assert cases.listing.notes == ("classes 'Cat' and 'cat' differ only in case, so some systems confuse them",)


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", " ", "a\x1b[31m", b"caf\xe9", "cat ", "\u200b"])
@pytest.mark.parametrize("part", ["", "train/"])
def test_names_that_cannot_be_shipped_are_refused(tmp_path: Path, name: str | bytes, part: str) -> None:
    folder = tmp_path / "data" / part / os.fsdecode(name)
    fill(tmp_path / "data" / part / "dog")
    folder.mkdir()
    Image.new("L", (4, 4)).save(folder / "0.png")
    if part:
        split(tmp_path / "data", "val")
    assert "a class name must be one line of visible text" in refusal(tmp_path / "data")


def test_numbers_are_classes_in_the_order_of_text(tmp_path: Path) -> None:
    source = folder_source(tree(tmp_path / "numbers", *map(str, range(12))))
    assert source.parts().classes == ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")
