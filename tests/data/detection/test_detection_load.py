"""Folders of detection data: layouts, splits and identity."""

import re

import pytest

from mnas.data.detection.listing.parts import part_of
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import count_objects
from tests.data.detection.box_folders import box, coco_folder, entry, write_image


def folder_of(root, labels: list[list[int]]):
    images = [entry(n, f"{n}.jpg", 8, 8) for n in range(len(labels))]
    for row in images:
        write_image(root / "train" / row["file_name"], 8, 8)
    rows = [
        box(10 * n + k, n, [1, 1, 5, 5], label) for n, of_image in enumerate(labels) for k, label in enumerate(of_image)
    ]
    categories = [{"id": n, "name": f"class {n}"} for n in range(3)]
    return coco_folder(root, rows, images=images, categories=categories)


def test_validation_is_drawn_by_class_and_seed(tmp_path):
    root = folder_of(tmp_path, [[0]] * 10 + [[0, 1]] * 10 + [[2]] + [[]] * 5)
    first, again, other = (load_detection(root, seed=seed) for seed in (1, 1, 2))
    ids = [[image.image_id for image in data.val] for data in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    for data in (first, other):
        held = [set(image.labels.tolist()) for image in data.val]
        assert sum(1 in labels for labels in held) == 2
        assert sum(0 in labels for labels in held) == 4
        assert sum(2 in labels for labels in held) == 0
        assert sum(not labels for labels in held) == 1
        assert len(data.train) + len(data.val) == 26
        assert [image.image_id for image in data.train] == sorted(image.image_id for image in data.train)


def test_two_images_make_two_parts(tmp_path):
    data = load_detection(folder_of(tmp_path, [[0], []]))
    assert (len(data.train), len(data.val)) == (1, 1)
    assert len(data.train[0].boxes) == 1


@pytest.mark.parametrize("labels", [[[0], [1], [], [], []], [[0], [1], *[[]] * 12], [[0], [0], [], []]])
def test_validation_has_objects_where_two_images_have_some(tmp_path, labels):
    root = folder_of(tmp_path, labels)
    for seed in range(6):
        data = load_detection(root, seed=seed)
        assert (count_objects(data.train), count_objects(data.val)) == (1, 1)
        assert len(data.val) == 1 + round(0.2 * labels.count([]))


def test_identity(tmp_path):
    root = folder_of(tmp_path, [[0]] * 6)
    data, other = load_detection(root, seed=1), load_detection(root, seed=2)
    assert data.content(None) == other.content(None)
    assert data.fingerprint != other.fingerprint
    record = data.training_data(data.content(None))
    assert (record.images, record.seed, record.held_out, record.name) == (6, 1, True, tmp_path.name)
    before = data.content(None)
    write_image(root / "train" / "2.jpg", 8, 8, seed=5)
    assert load_detection(root, seed=1).content(None) != before
    path = root / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("[1, 1, 5, 5]", "[1, 1, 5, 4]", 1))
    changed = load_detection(root, seed=1)
    assert len({before, changed.content(None), changed.content(tmp_path / "cache")}) == 2


def test_progress(tmp_path):
    calls = []
    load_detection(folder_of(tmp_path, [[0]] * 3), on_progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("instances_train2017", "train"),
        ("instances_val", "val"),
        ("valid", "val"),
        ("minival2014", "val"),
        ("test-dev", ""),
        ("coco", ""),
        ("Testing", "test"),
        ("trainval", ""),
    ],
)
def test_names_of_parts(name, part):
    assert part_of(name) == part


def test_folders_that_are_no_detection_data(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(ValueError, match=re.escape("contains 'cats'")):
        load_detection(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        load_detection(tmp_path / "nothing")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="a file; unpack an archive first"):
        load_detection(tmp_path / "x.zip")
    for name in ("data.yaml", "instances.JSON"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(ValueError, match="a file; pass the folder that contains it"):
            load_detection(tmp_path / name)
    for text in ("", "a\0b", "~nobody-here/x"):
        with pytest.raises(ValueError, match="--data must be a folder of images with boxes"):
            load_detection(text)


def test_two_files_for_one_part_are_refused(tmp_path):
    root = folder_of(tmp_path, [[0]] * 3)
    (root / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(ValueError, match=r"one file of annotations for each part, but got .* for train"):
        load_detection(root)


def test_a_training_needs_training_images(tmp_path):
    root = folder_of(tmp_path, [[0]] * 3)
    (root / "annotations" / "instances_train.json").rename(root / "annotations" / "instances_val.json")
    (root / "train").rename(root / "val")
    with pytest.raises(ValueError, match="--data must have training images"):
        load_detection(root)
    assert len(load_detection(root, needs_train=False).val) == 3
    images = [entry(n, f"{n}.jpg") for n in range(3)]
    coco_folder(tmp_path / "b", [], images=images)
    for row in images:
        write_image(tmp_path / "b" / "train" / row["file_name"], 30, 40)
    with pytest.raises(
        ValueError, match=r"has no usable one; faults in the annotations: images have another shape .*: 3 \(fir"
    ):
        load_detection(tmp_path / "b")


def test_training_images_without_a_valid_box_name_the_faults(tmp_path):
    root = folder_of(tmp_path / "a", [[7]] * 3)
    with pytest.raises(ValueError, match=r"none of 3 in .*a has a valid one; faults in the annotations: annotations "
                       r"have a category that is not listed \(skipped\): 3 \(first"):  # fmt: skip
        load_detection(root)
    root = folder_of(tmp_path / "b", [[0]] * 3)
    path = root / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    with pytest.raises(ValueError, match=r"all boxes in .*b surround crowds"):
        load_detection(root)
    path.write_text(path.read_text().replace('"file_name": "', '"file_name": "/data/'))
    with pytest.raises(
        ValueError, match=r"lists no usable one; faults in the annotations: image entries lack the name .*: 3 \("
    ):
        load_detection(root)
