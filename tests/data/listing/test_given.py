"""Values that people type after --data."""

from pathlib import Path

import pytest
from PIL import Image

from mnas.data.load import open_source
from mnas.data.native import native_size
from tests.data.test_load import make_folder

NAMES = "digits, cifar10, fashion-mnist, imagenet"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("", f"a folder or one of {NAMES}, but got '' (empty); pass a name or a folder to --data"),
        ("  ", "(empty)"),
        ("~", "(the root or home folder)"),
        ("/", "(the root or home folder)"),
        ("~nobody-of-that-name", "(no such user)"),
        ("pets/*", "patterns are not expanded"),
        ("pets/c?t", "patterns are not expanded"),
        ("a\0b", "a path cannot contain NUL"),
        ("no such", "but got 'no such' (no such folder)"),
        ("CIFAR-10", "did you mean cifar10?"),
        ("Fashion_MNIST", "did you mean fashion-mnist?"),
        ("pets.zip", "(an archive; unpack it and name its folder)"),
        ("pets.tar.gz", "(an archive; unpack it and name its folder)"),
        ("cat.jpg", "(an image; name the folder that contains a folder of images for each class)"),
        ("table.csv", "(a file)"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_each_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pets.zip", "pets.tar.gz", "cat.jpg", "table.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        open_source(data, tmp_path, False)
    assert line in str(error.value)
    assert str(error.value).isprintable()
    assert native_size(data) == 224


def test_a_folder_of_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("digits", tmp_path / "data", False).listing.notes == ()
    (tmp_path / "digits").mkdir()
    source = open_source("digits", tmp_path / "data", False)
    assert len(source.parts().train) == 1438
    assert source.listing.notes == (
        "'digits' is the built-in data set, not the folder ./digits, which contains no class folders with images",
    )
    make_folder(tmp_path / "digits", {"train": 2})
    with pytest.raises(
        ValueError, match=r"is ambiguous: it is a built-in data set, and also a folder.*Use --data \./digits"
    ):
        open_source("digits", tmp_path / "data", False)
    assert len(open_source("./digits", tmp_path, False).parts().train) == 4
    assert native_size("./digits") == 16


def test_a_built_in_set_may_lie_in_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "imagenet", {"train": 5, "val": 3})
    assert len(open_source("imagenet", Path("imagenet"), False).parts().train) == 8
    Image.new("L", (4, 4)).save(tmp_path / "imagenet" / "x.png")
    with pytest.raises(ValueError, match="is a built-in data set"):
        open_source("imagenet", tmp_path / "elsewhere", False)
