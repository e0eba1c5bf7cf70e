"""YOLO's layout: what is read, and which faults are counted or refused."""

import re

import numpy as np
import pytest

from mnas.data.detection.listing.yolo import inner_place
from mnas.data.detection.load import load_detection
from tests.data.detection.box_folders import write_image, yolo_folder

GOOD = ["0 0.225 0.3666667 0.25 0.4\n", "1 0.5 0.5 1 1\n", "0 0.1 0.1 0.1 0.1\n1 0.6 0.6 0.2 0.2\n"]


def counts(data) -> dict[str, int]:
    return {fault.what: fault.count for fault in data.faults}


def by_name(data) -> dict[str, object]:
    return {image.path.stem: image for images in data.parts.values() for image in images}


def test_shares_become_corners(tmp_path):
    data = load_detection(yolo_folder(tmp_path, GOOD))
    assert (data.layout, data.classes, data.category_ids, data.held_out) == ("yolo", ("cat", "dog"), (1, 2), True)
    assert counts(data) == {"folders of images are not inside of --data (skipped)": 1}
    images = by_name(data)
    np.testing.assert_allclose(images["0"].boxes, [[4, 5, 14, 17]], atol=1e-4)
    assert images["1"].boxes.tolist() == [[0, 0, 40, 30]]
    assert images["2"].labels.tolist() == [0, 1]
    assert images["0"].name == "images/train/0.jpg"


@pytest.mark.parametrize("orientation", [1, 6])
def test_shares_are_of_the_upright_image(tmp_path, orientation):
    yolo_folder(tmp_path, GOOD)
    write_image(tmp_path / "images" / "train" / "1.jpg", orientation=orientation)
    image = by_name(load_detection(tmp_path))["1"]
    assert (image.width, image.height) == ((40, 30) if orientation == 1 else (30, 40))
    assert image.boxes.tolist() == [[0, 0, image.width, image.height]]


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        ("[cat, dog]", ("cat", "dog"), [0, 1]),
        ("{0: cat, 1: dog}", ("cat", "dog"), [0, 1]),
        ("\n  1: dog\n  0: cat", ("cat", "dog"), [0, 1]),
        ("{'0': cat, 1: 7, 5: x}", ("cat", "7", "x"), [0, 1]),
        ("\n- cat\n- no", ("cat", "no"), [0, 1]),
        ("!!python/object/apply:os.system [cat, dog]", ("cat", "dog"), [0, 1]),
    ],
)
def test_names_as_list_or_mapping(tmp_path, names, classes, labels):
    data = load_detection(yolo_folder(tmp_path, GOOD, yaml=f"train: images/train\nnames: {names}\n"))
    assert data.classes == classes
    assert by_name(data)["2"].labels.tolist() == labels


@pytest.mark.parametrize(
    "paths",
    [
        "train: images/train\nval: images/val\n",
        "path: .\ntrain: images/train\nval: [images/val]\n",
        "path: /home/somebody/{root}\ntrain: images/train/\nval: ./images/val\n",
        "train: /content/{root}/images/train\nval: C:/{root}/images/val\n",
        "train: ../images/train\nvalid: ../../images/val\n",
        "train: train.txt\nval: val.txt\n",
        "val: images/val\ntrain:\n- images/train/0.jpg\n- images/train/1.jpg\n- images/train/2.jpg\n",
        "train: images\\train\nval: .\\images\\val\n",
        "path: C:\\Users\\somebody\\{root}\ntrain: C:\\Users\\somebody\\{root}\\images\\train\nval: ..\\images\\val\n",
        "train: windows.txt\nval: images/val\n",
    ],
)
def test_paths_are_below_the_folder(tmp_path, paths):
    yaml = paths.replace("{root}", tmp_path.name) + "names: [cat, dog]\n"
    yolo_folder(tmp_path, GOOD)
    yolo_folder(tmp_path, GOOD[:2], part="val", yaml=yaml)
    (tmp_path / "train.txt").write_text("./images/train/0.jpg\n/data/x/images/train/1.jpg\n\nimages/train/2.jpg\n")
    (tmp_path / "val.txt").write_text("images/val/0.jpg\nimages/val/1.jpg\n")
    (tmp_path / "windows.txt").write_text(
        ".\\images\\train\\0.jpg\r\nD:\\x\\images\\train\\1.jpg\r\nimages\\train\\2.jpg\r\n"
    )
    data = load_detection(tmp_path)
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 3, "val": 2}
    assert data.faults == ()


def test_roboflows_form(tmp_path):
    for part in ("train", "valid", "test"):
        for stem in "ab":
            write_image(tmp_path / part / "images" / f"{stem}.jpg")
            (tmp_path / part / "labels").mkdir(exist_ok=True)
            (tmp_path / part / "labels" / f"{stem}.txt").write_text("1 0.5 0.5 0.5 0.5")
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    (tmp_path / "data.yaml").write_text(text)
    data = load_detection(tmp_path)
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 2, "val": 2, "test": 2}
    assert data.val[0].boxes.tolist() == [[10, 7.5, 30, 22.5]]


def test_paths_outside_of_the_folder_are_not_read(tmp_path):
    write_image(tmp_path / "images" / "secret" / "1.jpg")
    root = tmp_path / "data"
    yaml = "train: images/train\nval: ../images/secret\ntest: https://example.com/images\nnames: [cat, dog]\n"
    data = load_detection(yolo_folder(root, GOOD, yaml=yaml))
    assert counts(data) == {"folders of images are not inside of --data (skipped)": 2}
    assert data.held_out
    for text in ("/etc/passwd", "../images", "a\0b", "x" * 5000, "", "/", "..", None, 7, "é" * 300):
        assert inner_place(root, None, text) is None or inner_place(root, None, text).is_relative_to(root)
    assert inner_place(root, None, "nothing/train") is None  # not images/train of the folder: another place


@pytest.mark.parametrize(
    ("text", "fault", "boxes"),
    [
        ("0 0.5 0.5 0.2", "labels are not a class and four numbers (skipped)", 0),
        ("cat 0.5 0.5 0.2 0.2", "labels are not a class and four numbers (skipped)", 0),
        ("0.5 0.5 0.5 0.2 0.2", "labels are not a class and four numbers (skipped)", 0),
        ("0 0.5 0.5 0.2 0.2 0.9", "labels are not a class and four numbers (skipped)", 0),
        ("0 nan 0.5 0.2 0.2", "labels are not a class and four numbers (skipped)", 0),
        ("0 0.5 0.5 1.2 0.2", "labels are outside 0 to 1 (skipped)", 0),
        ("0 -0.5 0.5 0.2 0.2", "labels are outside 0 to 1 (skipped)", 0),
        ("2 0.5 0.5 0.2 0.2", "labels have a class id beyond the names (skipped)", 0),
        ("-1 0.5 0.5 0.2 0.2", "labels have a class id beyond the names (skipped)", 0),
        ("0 0.5 0.5 0 0.2", "boxes have no area (dropped)", 0),
        ("0 0.9 0.5 0.5 0.2", "boxes reach outside of their image (clipped)", 1),
        ("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2", "annotations are repeated (used once)", 1),
        ("0.0 0.5 0.5 0.2 0.2", None, 1),
        ("1 0.1 0.1 0.5 0.1 0.5 0.9", None, 1),
        ("\n\n", None, 0),
        ("", None, 0),
        (None, "images have no label file (used as images without objects)", 0),
        (b"\xff\xfe\x00", "label files are not text (skipped with their images)", None),
    ],
)
def test_faulty_labels_are_counted(tmp_path, text, fault, boxes):
    yaml = "train: images/train\nnames: [cat, dog]\n"
    yolo_folder(tmp_path, [*GOOD, "" if isinstance(text, bytes) else text], yaml=yaml)
    if isinstance(text, bytes):
        (tmp_path / "labels" / "train" / "3.txt").write_bytes(text)
    data = load_detection(tmp_path)
    assert counts(data) == ({} if fault is None else {fault: 1})
    if boxes is None:
        assert "3" not in by_name(data)
    else:
        assert len(by_name(data)["3"].boxes) == boxes


def test_a_folder_without_labels_is_refused_with_the_place_of_the_first(tmp_path):
    yolo_folder(tmp_path, [None, None], yaml="train: images/train\nnames: [cat, dog]\n")
    with pytest.raises(ValueError, match="^--data must have label files, but none of 2 images has one; the labels of "
                       r"images/train/0\.jpg belong in labels/train/0\.txt$"):  # fmt: skip
        load_detection(tmp_path)
    yolo_folder(tmp_path, ["0 0.5 0.5 0.2 0.2", None], yaml="train: images/train\nnames: [cat, dog]\n")
    assert load_detection(tmp_path).faults[0].example == "images/train/1.jpg (expected: labels/train/1.txt)"


def test_a_polygon_becomes_its_box(tmp_path):
    data = load_detection(yolo_folder(tmp_path, [*GOOD, "1 0.1 0.2 0.5 0.1 0.25 0.9\n"]))
    np.testing.assert_allclose(by_name(data)["3"].boxes, [[4, 3, 20, 27]], atol=1e-4)


def test_labels_without_an_image_are_counted(tmp_path):
    yolo_folder(tmp_path, GOOD, yaml="train: images/train\nnames: [cat, dog]\n")
    for name in ("x.txt", "y.txt", "classes.txt"):
        (tmp_path / "labels" / "train" / name).write_text("0 0.5 0.5 0.2 0.2")
    data = load_detection(tmp_path)
    assert counts(data) == {"label files have no image (skipped)": 2}
    assert data.faults[0].example == "labels/train/x.txt"


def test_an_image_in_two_parts_is_counted(tmp_path):
    data = load_detection(
        yolo_folder(tmp_path, GOOD, yaml="train: images/train\nval: images/train\nnames: [cat, dog]\n")
    )
    assert counts(data) == {"images are in two parts (used in both)": 3}


def test_pixels_instead_of_shares_are_refused(tmp_path):
    yolo_folder(tmp_path, ["0 9 11 10 12\n", "1 20 15 40 30\n"])
    with pytest.raises(
        ValueError, match="labels must be shares of the image from 0 to 1, but 2 of 2 in the train part"
    ):
        load_detection(tmp_path)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train\n", "data.yaml must have names as a list or as number: name, but got 'None'"),
        ("train: images/train\nnames: 3\n", "data.yaml must have names as a list or as number: name, but got '3'"),
        ("train: images/train\nnames: {a: cat}\n", "data.yaml must have names as a list or as number"),
        ("train: images/train\nnames: []\n", "data.yaml must have 1 to"),
        ("train: images/train\nnames: [cat, cat]\n", "class names must differ"),
        ("train: images/train\nnames: [[cat], dog]\n", "a class name must be one line of visible text"),
        ("train: images/train\nnames: [cat", "data.yaml must be YAML with names, train and val, but"),
        ("- 7\n", "data.yaml must be YAML with names, train and val, but got"),
        ("train: nowhere\nnames: [cat]\n", "data.yaml must name folders of images inside of --data"),
        ("train: pics/a\nnames: [cat]\n", "skipped): 1 (first train of data.yaml: 'pics/a')"),
        ("val: images/train\nnames: [cat, dog]\n", "--data must have training images"),
        ('names: ["\\UFFFFFFFF"]\ntrain: x\n', "data.yaml must be YAML with names, train and val, but"),
        ("[" * 5000, "data.yaml must be YAML with names, train and val, but"),
        ("a" * 300_000, "must have at most 262,144 bytes"),
    ],
)
def test_unusable_yaml_is_refused_in_one_line(tmp_path, yaml, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_detection(yolo_folder(tmp_path, GOOD, yaml=yaml))
    assert "\n" not in str(error.value)


def test_a_backslash_in_a_name_of_the_folder_separates_nothing(tmp_path):
    (tmp_path / "images\\train").mkdir()
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert inner_place(tmp_path, None, "images\\train") == tmp_path / "images\\train"
    assert inner_place(tmp_path, None, "..\\images\\train") == tmp_path / "images" / "train"
    (tmp_path / "secret").mkdir()
    assert inner_place(tmp_path / "images", None, "..\\secret") is None


def test_another_yaml_file_is_found_by_its_content(tmp_path):
    yolo_folder(tmp_path, GOOD)
    (tmp_path / "data.yaml").rename(tmp_path / "pets.yml")
    (tmp_path / "settings.yaml").write_text("epochs: 3\n")
    (tmp_path / "broken.yaml").write_text("[")
    assert load_detection(tmp_path).layout == "yolo"
    (tmp_path / "dogs.yaml").write_text("names: [a]\ntrain: x\n")
    with pytest.raises(ValueError, match=r"one YAML file that describes it, but .* has dogs.yaml and pets.yml"):
        load_detection(tmp_path)


def test_aliases_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ValueError, match=r"data.yaml must be YAML .*, but it must not have aliases") as error:
        load_detection(yolo_folder(tmp_path, GOOD, yaml="\n".join([*lines, "train: images/train", "names: *a59"])))
    assert len(str(error.value)) < 300
