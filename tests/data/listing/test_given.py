"""What people type after --data."""

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
        ("", f"a folder or one of {NAMES}, but got '' (nothing); name one after --data"),
        ("  ", "(nothing)"),
        ("~", "(that is where all files are)"),
        ("/", "(that is where all files are)"),
        ("~nobody-of-that-name", "(no such user)"),
        ("pets/*", "patterns are not expanded"),
        ("pets/c?t", "patterns are not expanded"),
        ("a\0b", "no path holds that character"),
        ("no such", "but got 'no such' (no such folder)"),
        ("CIFAR-10", "did you mean cifar10?"),
        ("Fashion_MNIST", "did you mean fashion-mnist?"),
        ("pets.zip", "(a file: an archive; unpack it, and name the folder)"),
        ("pets.tar.gz", "(a file: an archive; unpack it, and name the folder)"),
        ("cat.jpg", "(a file: an image; name the folder that holds a folder of images for each class)"),
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
        "'digits' is the built-in data set, not the folder ./digits, which holds no images in class folders",
    )
    make_folder(tmp_path / "digits", {"train": 2})
    with pytest.raises(ValueError, match=r"is built in, and there is a folder of that name.*give --data \./digits"):
        open_source("digits", tmp_path / "data", False)
    assert len(open_source("./digits", tmp_path, False).parts().train) == 4
    assert native_size("./digits") == 16


def test_a_built_in_set_may_lie_in_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "imagenet", {"train": 5, "val": 3})
    assert len(open_source("imagenet", Path("imagenet"), False).parts().train) == 8
    Image.new("L", (4, 4)).save(tmp_path / "imagenet" / "x.png")
    with pytest.raises(ValueError, match="is built in"):
        open_source("imagenet", tmp_path / "elsewhere", False)
