"""COCO JSON: what is read, and which faults are counted or refused."""

import json
import re

import numpy as np
import pytest
from pycocotools.coco import COCO

from mnas.data.detection.faults import fault_line
from mnas.data.detection.load import load_detection
from tests.data.detection.box_folders import box, coco_folder, coco_json, entry, shared_boxes, write_image

GOOD = [box(1, 1, [4, 5, 10, 12]), box(2, 2, [0, 0, 40, 30], 7), box(3, 3, [1, 1, 2, 2])]


def counts(data) -> dict[str, int]:
    return {fault.what: fault.count for fault in data.faults}


def train_and_val(data) -> dict[int, object]:
    return {image.image_id: image for image in (*data.train, *data.val)}


@pytest.mark.parametrize("name", ["bccd", "coco-tiny"])
def test_real_data_equals_pycocotools(name, tmp_path, capsys):
    root = shared_boxes(name, tmp_path)
    data = load_detection(root)
    assert data.faults == ()
    assert (data.layout, data.held_out) == ("coco", False)
    year = "2017" if name == "coco-tiny" else ""
    for part, images in data.parts.items():
        theirs = COCO(root / "annotations" / f"instances_{part}{year}.json")
        assert [image.image_id for image in images] == list(theirs.imgs)
        assert list(data.category_ids) == sorted(theirs.getCatIds())
        assert list(data.classes) == [theirs.cats[number]["name"] for number in data.category_ids]
        for image in images:
            rows = theirs.imgToAnns[image.image_id]
            assert (image.width, image.height) == tuple(theirs.imgs[image.image_id][k] for k in ("width", "height"))
            xywh = np.concatenate([image.boxes[:, :2], image.boxes[:, 2:] - image.boxes[:, :2]], axis=1)
            np.testing.assert_allclose(xywh, np.array([r["bbox"] for r in rows]).reshape(-1, 4), atol=0.02)
            assert [data.category_ids[label] for label in image.labels] == [row["category_id"] for row in rows]
            assert image.crowd.tolist() == [bool(row["iscrowd"]) for row in rows]
            np.testing.assert_allclose(image.areas, [row["area"] for row in rows], rtol=1e-6)


def test_counts_of_the_real_data(tmp_path):
    bccd = load_detection(shared_boxes("bccd", tmp_path))
    assert {part: len(images) for part, images in bccd.parts.items()} == {"train": 205, "val": 87, "test": 72}
    assert sum(len(image.boxes) for images in bccd.parts.values() for image in images) == 4886
    assert bccd.classes == ("Platelets", "RBC", "WBC")


def test_boxes_become_corners_and_categories_labels(tmp_path):
    data = load_detection(coco_folder(tmp_path, GOOD))
    images = train_and_val(data)
    assert images[1].boxes.tolist() == [[4, 5, 14, 17]]
    assert images[2].labels.tolist() == [1]
    assert (data.classes, data.category_ids, data.held_out) == (("cat", "dog"), (3, 7), True)
    assert images[1].areas.tolist() == [120]
    assert images[1].boxes.dtype == np.float32
    assert images[1].labels.dtype == np.int64
    assert fault_line(data.faults) == ""


@pytest.mark.parametrize(
    ("row", "fault", "remaining"),
    [
        (box(9, 1, [1, 1, 0, 5]), "boxes have no area (dropped)", 0),
        (box(9, 1, [1, 1, 5, -5]), "boxes have no area (dropped)", 0),
        (box(9, 1, [50, 1, 5, 5]), "boxes are outside of their image (dropped)", 0),
        (box(9, 1, [30, 1, 50, 5]), "boxes reach outside of their image (clipped)", 1),
        (box(9, 1, ["1", "1", "5", "5"]), "boxes are text (read as numbers)", 1),
        (box(9, 1, "1, 1, 5, 5"), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, 1, 5]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, 1, None, 5]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, 1, True, 5]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, float("nan"), 5, 5]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, 1, float("inf"), 5]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, [1, 1, 5, float("-inf")]), "boxes are not four numbers (dropped)", 0),
        (box(9, 1, None), "annotations have no box (skipped)", 0),
        (box(9, 1, []), "annotations have no box (skipped)", 0),
        (box(9, 1, [1, 1, 5, 5], 4), "annotations have a category that is not listed (skipped)", 0),
        (box(9, 1, [1, 1, 5, 5], None), "annotations have a category that is not listed (skipped)", 0),
        (box(9, 17, [1, 1, 5, 5]), "annotations belong to no listed image (skipped)", 0),
        (box(1, 1, [4, 5, 10, 12]), "annotations are repeated (used once)", 0),
        (box(1, 1, [4, 5, 10, 13]), "annotations share an id (all used)", 1),
        ("text", "annotations are not objects (skipped)", 0),
    ],
)
def test_faulty_annotations_are_counted(tmp_path, row, fault, remaining):
    data = load_detection(coco_folder(tmp_path, [*GOOD, row]))
    assert counts(data) == {fault: 1}
    assert len(train_and_val(data)[1].boxes) == 1 + remaining
    assert fault_line(data.faults).startswith(f"faults in the annotations: {fault}: 1 (first ")


def test_a_rounded_box_at_the_border_is_no_fault(tmp_path):
    data = load_detection(coco_folder(tmp_path, [*GOOD, box(4, 1, [30.5, 0, 10, 5])]))
    assert data.faults == ()
    assert train_and_val(data)[1].boxes[1].tolist() == [30.5, 0, 40, 5]


def test_numbers_that_are_not_finite_count_as_missing_elsewhere(tmp_path):
    nan = float("nan")
    write_image(tmp_path / "train" / "1.jpg")
    write_image(tmp_path / "train" / "2.jpg")
    write_image(tmp_path / "train" / "3.jpg")
    images = [entry(1, "1.jpg", nan, 30), entry(2, "2.jpg"), entry(nan, "3.jpg")]
    rows = [box(1, 1, [4, 5, 10, 12], area=nan, iscrowd=nan), box(2, 2, [0, 0, 4, 4]), box(3, 2, [0, 0, 4, 4], nan)]
    data = load_detection(coco_folder(tmp_path, rows, images=images))
    assert counts(data) == {
        "image entries lack an id (skipped)": 1,
        "annotations have a category that is not listed (skipped)": 1,
    }
    first = train_and_val(data)[1]
    assert (first.boxes.tolist(), first.areas.tolist(), first.crowd.tolist()) == ([[4, 5, 14, 17]], [120], [False])
    for categories in ([{"id": nan, "name": "cat"}], [{"id": 3, "name": nan}]):
        with pytest.raises(ValueError, match=r"name must be one line|must have an id and a name"):
            load_detection(coco_folder(tmp_path, rows, images=images, categories=categories))


def test_backslashes_of_windows_separate_folders(tmp_path):
    for name in ("a/1.jpg", "a/b/2.jpg", "3\\4.jpg"):
        write_image(tmp_path / "train" / name)
    write_image(tmp_path / "secret.jpg")
    names = [
        "a\\1.jpg",
        "a\\b/2.jpg",
        "3\\4.jpg",
        "a\\absent.jpg",
        "..\\secret.jpg",
        "a\\..\\..\\secret.jpg",
        "\\1.jpg",
    ]
    images = [entry(n, name) for n, name in enumerate(names)]
    data = load_detection(coco_folder(tmp_path, [box(1, 0, [1, 1, 5, 5]), box(2, 2, [2, 2, 5, 5])], images=images))
    assert {number: image.name for number, image in train_and_val(data).items()} == {
        0: "train/a/1.jpg",
        1: "train/a/b/2.jpg",
        2: "train/3\\4.jpg",
    }
    assert counts(data) == {
        "image entries lack the name of a file inside the data (skipped)": 3,
        "listed images do not exist (skipped)": 1,
    }
    with pytest.raises(ValueError, match=r"but none of 1 exists \(the first: 'train/a/absent\.jpg'\)"):
        load_detection(coco_folder(tmp_path, [], images=[entry(1, "a\\absent.jpg")]))


def test_text_and_gaps_in_ids(tmp_path):
    categories = [{"id": "12", "name": "dog"}, {"id": 3.0, "name": "cat"}]
    images = [entry("a", "1.jpg"), entry("b", "2.jpg")]
    rows = [box("x", "a", [1, 1, 5, 5], 12), box("y", "b", [1, 1, 5, 5], "3")]
    for name in ("1.jpg", "2.jpg"):
        write_image(tmp_path / "train" / name)
    data = load_detection(coco_folder(tmp_path, rows, images=images, categories=categories))
    assert (data.classes, data.category_ids, data.faults) == (("cat", "dog"), (3, 12), ())
    assert {number: image.labels.tolist() for number, image in train_and_val(data).items()} == {1: [1], 2: [0]}


def test_text_as_category_ids_gets_numbers(tmp_path):
    categories = [{"id": "d", "name": "dog"}, {"id": "c", "name": "cat"}]
    data = load_detection(coco_folder(tmp_path, [box(1, 1, [1, 1, 5, 5], "c")], categories=categories))
    assert (data.classes, data.category_ids) == (("dog", "cat"), (1, 2))
    assert train_and_val(data)[1].labels.tolist() == [1]


def test_faulty_images_are_counted(tmp_path):
    for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "6.jpg"):
        write_image(tmp_path / "train" / name)
    write_image(tmp_path / "secret.jpg")
    images = [
        *(entry(1, "1.jpg"), entry(2, "2.jpg"), entry(3, "3.jpg"), entry(3, "4.jpg"), entry(5, "absent.jpg")),
        *(entry(6, "../secret.jpg"), entry(7, "/etc/passwd"), entry(8, "https://example.com/1.jpg"), entry(9, 12)),
        *(entry(10, "1.jpg"), entry(None, "6.jpg"), "text"),
    ]
    rows = [*GOOD, box(4, 3, [1, 1, 5, 5]), box(5, 8, [1, 1, 5, 5]), box(6, 10, [2, 2, 6, 6])]
    data = load_detection(coco_folder(tmp_path, rows, images=images))
    assert counts(data) == {
        "image entries are not objects (skipped)": 1,
        "image entries lack an id (skipped)": 1,
        "image entries lack the name of a file inside the data (skipped)": 4,
        "images are listed twice (used once)": 1,
        "images share the id of another image (skipped with their boxes)": 1,
        "listed images do not exist (skipped)": 1,
    }
    assert {number: image.name for number, image in train_and_val(data).items()} == {
        1: "train/1.jpg",
        2: "train/2.jpg",
    }
    assert train_and_val(data)[1].boxes.tolist() == [[4, 5, 14, 17], [2, 2, 8, 8]]


def test_corners_instead_of_sizes_are_refused(tmp_path):
    rows = [box(n, 1 + n % 3, [8 + n, 6 + n, 30 + n, 20 + n]) for n in range(9)]
    with pytest.raises(ValueError, match="7 of 9 boxes") as error:
        load_detection(coco_folder(tmp_path, rows))
    assert str(error.value) == (
        "boxes must be [x, y, width, height], but 7 of 9 boxes in the train part reach outside of their images, and "
        "they fit as [x1, y1, x2, y2]; subtract x1 and y1 from the last two numbers"
    )


def test_an_image_of_another_resolution_scales_its_boxes(tmp_path):
    images = [entry(1, "1.jpg", 80, 60), entry(2, "2.jpg", 30, 40), entry(3, "3.jpg", 0, 0)]
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        write_image(tmp_path / "train" / name)
    rows = [box(1, 1, [8, 10, 20, 24], area=100), box(2, 2, [1, 1, 5, 5]), box(3, 3, [1, 1, 5, 5])]
    data = load_detection(coco_folder(tmp_path, rows, images=images))
    assert counts(data) == {
        "images have another resolution than their annotations say (boxes scaled)": 1,
        "images have another shape than their annotations say (skipped)": 1,
    }
    assert train_and_val(data)[1].boxes.tolist() == [[4, 5, 14, 17]]
    assert train_and_val(data)[1].areas.tolist() == [25]
    assert set(train_and_val(data)) == {1, 3}


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(5, [5, 4, 17, 14]), (6, [13, 4, 25, 14]), (7, [13, 26, 25, 36]), (8, [5, 26, 17, 36])],
)
def test_boxes_of_stored_pixels_turn_with_the_image(tmp_path, orientation, expected):
    """Stored 40 x 30; the file says how to turn it, and the size in the JSON which of both it describes."""
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        write_image(tmp_path / "train" / name, orientation=orientation)
    images = [entry(1, "1.jpg"), entry(2, "2.jpg", 30, 40), entry(3, "3.jpg", 30, 40)]
    rows = [box(1, 1, [4, 5, 10, 12]), box(2, 2, [4, 5, 10, 12])]
    data = load_detection(coco_folder(tmp_path, rows, images=images))
    images = train_and_val(data)
    assert (images[1].width, images[1].height) == (30, 40)
    assert images[1].boxes.tolist() == [expected]
    assert images[2].boxes.tolist() == [[4, 5, 14, 17]]


def test_the_box_contains_the_same_pixels_after_turning(tmp_path):
    from PIL import Image

    from mnas.data.decoding.decoders import opened

    for orientation in (5, 6, 7, 8):
        root = tmp_path / str(orientation)
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[5:17, 4:14] = 255
        for name in ("1.png", "2.png"):
            (root / "train").mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(pixels).save(root / "train" / name, exif=exif)
        rows = [box(1, 1, [4, 5, 10, 12]), box(2, 2, [4, 5, 10, 12])]
        data = load_detection(coco_folder(root, rows, images=[entry(1, "1.png"), entry(2, "2.png")]))
        with opened(data.train[0].path) as image:
            upright = np.asarray(image.rgb())
        x1, y1, x2, y2 = data.train[0].boxes[0].astype(int)
        assert (upright[y1:y2, x1:x2] == 255).all()
        assert upright.sum() == upright[y1:y2, x1:x2].sum()


def test_crowds_and_empty_images(tmp_path):
    rows = [box(1, 1, [1, 1, 5, 5], iscrowd=1), box(2, 2, [1, 1, 5, 5], area="7.5")]
    data = load_detection(coco_folder(tmp_path, rows))
    images = train_and_val(data)
    assert images[1].crowd.tolist() == [True]
    assert images[2].areas.tolist() == [7.5]
    assert images[3].boxes.shape == (0, 4)
    assert images[3].labels.shape == images[3].crowd.shape == images[3].areas.shape == (0,)


@pytest.mark.parametrize("large", [2**64, 10**30, 10**400], ids=["65 bits", "100 bits", "more than any float"])
def test_an_integer_over_64_bits_drops_its_box_only(tmp_path, large):
    rows = [
        *GOOD,
        box(large, 1, [large, 1, 2, 3]),
        box(98, 1, [2, 2, 5, 5], area=large),
        box(99, 1, [1, 1, 5, 5], large),
    ]
    data = load_detection(coco_folder(tmp_path, rows))
    assert counts(data) == {
        "boxes are not four numbers (dropped)": 1,
        "annotations have a category that is not listed (skipped)": 1,
    }
    assert sum(len(image.boxes) for image in train_and_val(data).values()) == len(GOOD) + 1
    assert sum(image.areas.tolist().count(25) for image in train_and_val(data).values()) == 1


def test_large_ids_are_renumbered(tmp_path):
    categories = [{"id": 10**30, "name": "cat"}, {"id": 7, "name": "dog"}]
    images = [entry(10**30 + n, f"{n}.jpg") for n in (1, 2)]
    for row in images:
        write_image(tmp_path / "train" / row["file_name"])
    rows = [box(n, 10**30 + n, [1, 1, 5, 5], category) for n, category in ((1, 10**30), (2, 7))]
    data = load_detection(coco_folder(tmp_path, rows, images=images, categories=categories))
    assert (data.classes, data.category_ids, data.faults) == (("dog", "cat"), (1, 2), ())
    assert {number: image.labels.tolist() for number, image in train_and_val(data).items()} == {1: [1], 2: [0]}


def test_shares_instead_of_pixels_are_refused(tmp_path):
    rows = [box(n, n, [0.1, 0.2, 0.5, 0.5]) for n in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"^boxes must be in pixels, but no number of the boxes in the train part is "
                       r"above 1, as in shares of the image; multiply x and widths by the width"):  # fmt: skip
        load_detection(coco_folder(tmp_path, rows))
    assert load_detection(coco_folder(tmp_path, [*rows, box(4, 1, [1, 1, 5, 5])])).faults == ()


def test_images_in_a_folder_of_another_name_are_missed_where_they_belong(tmp_path):
    coco_folder(tmp_path, GOOD)
    (tmp_path / "train").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"but none of 3 exists \(the first: 'train/1\.jpg'\)"):
        load_detection(tmp_path)


def test_other_parts_use_the_first_parts_classes(tmp_path):
    coco_folder(tmp_path, GOOD)
    other = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    coco_folder(tmp_path, [box(1, 1, [1, 1, 5, 5], 1)], categories=other, part="valid")
    data = load_detection(tmp_path)
    assert data.val[0].labels.tolist() == [1]
    assert (len(data.train), len(data.val), data.held_out) == (3, 3, False)
    coco_folder(tmp_path, [], categories=[*other, {"id": 3, "name": "cow"}], part="valid")
    with pytest.raises(ValueError, match=re.escape("annotations/instances_valid.json also has 'cow'; add it there")):
        load_detection(tmp_path)


def test_roboflows_form(tmp_path):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    images = [entry(0, "a.jpg"), entry(1, "b.jpg")]
    for part in ("train", "valid"):
        for name in ("a.jpg", "b.jpg"):
            write_image(tmp_path / part / name)
        coco_json(tmp_path / part / "_annotations.coco.json", images, [box(0, 0, [1, 1, 5, 5], 2)], categories)
    data = load_detection(tmp_path)
    assert (data.classes, data.category_ids, data.faults) == (("cat", "dog"), (1, 2), ())
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 2, "val": 2}
    assert data.train[0].labels.tolist() == [1]
    assert data.train[0].name == "train/a.jpg"
    coco_json(tmp_path / "train" / "_annotations.coco.json", images, [box(0, 0, [1, 1, 5, 5], 0)], categories)
    coco_json(tmp_path / "valid" / "_annotations.coco.json", images, [box(0, 0, [1, 1, 5, 5], 0)], categories)
    assert load_detection(tmp_path).classes == ("pets", "cat", "dog")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": []}, "annotations/instances_train.json must have 1 to"),
        ({"categories": [{"id": 1}]}, "a class name must be one line of visible text, but got 'None'"),
        ({"categories": [7]}, "each category must have an id and a name, but got '7'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "'a' and 'b' have id 1"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "class names must differ"),
        ({"images": []}, "must list images, but it lists no usable one"),
        ({"annotations": {}}, "but it lacks annotations"),
        ({"images": [entry(1, "x.jpg")]}, "but none of 1 exists (the first: 'train/x.jpg')"),
        ({"annotations": []}, "--data must have boxes in training images, but none of 3"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, change, message):
    path = coco_folder(tmp_path, GOOD) / "annotations" / "instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_detection(tmp_path)
    assert "\n" not in str(error.value)


def test_broken_json_is_refused(tmp_path):
    path = coco_folder(tmp_path, GOOD) / "annotations" / "instances_train.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"^annotations/instances_train.json must be COCO JSON, but"):
        load_detection(tmp_path)


def test_unreadable_images_are_skipped_up_to_one_in_a_hundred(tmp_path):
    images = [entry(n, f"{n}.jpg") for n in range(100)]
    first = write_image(tmp_path / "train" / "0.jpg")
    for row in images[1:]:
        (tmp_path / "train" / row["file_name"]).write_bytes(first.read_bytes())
    (tmp_path / "train" / "5.jpg").write_bytes(b"no image")
    data = load_detection(coco_folder(tmp_path, [box(1, 1, [1, 1, 5, 5])], images=images))
    assert data.unreadable == ("train/5.jpg: it is not an image",)
    assert len(data.train) + len(data.val) == 99
    (tmp_path / "train" / "6.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="at most 1 % of the images may be unreadable, but 2 of 100 are"):
        load_detection(tmp_path)
