"""Pascal VOC's XML: what is read, and which faults are counted or refused."""

import re

import pytest

from mnas.data.detection.load import load_detection
from tests.data.detection.box_folders import box, coco_folder, voc_folder, voc_xml, write_image

GOOD = [[("cat", 5, 6, 14, 17)], [("dog", 1, 1, 40, 30)], [("cat", 2, 2, 3, 3), ("dog", 10, 10, 20, 20)]]


def counts(data) -> dict[str, int]:
    return {fault.what: fault.count for fault in data.faults}


def by_name(data) -> dict[str, object]:
    return {image.path.stem: image for images in data.parts.values() for image in images}


def test_pixels_count_from_1_and_equal_coco(tmp_path):
    voc = load_detection(voc_folder(tmp_path / "voc", GOOD))
    assert (voc.layout, voc.classes, voc.category_ids, voc.faults) == ("voc", ("cat", "dog"), (1, 2), ())
    images = by_name(voc)
    assert images["0"].boxes.tolist() == [[4, 5, 14, 17]]
    assert images["1"].boxes.tolist() == [[0, 0, 40, 30]]
    assert images["2"].labels.tolist() == [0, 1]
    assert images["0"].name == "JPEGImages/0.jpg"
    rows = [
        box(1, 1, [4, 5, 10, 12]),
        box(2, 2, [0, 0, 40, 30], 7),
        box(3, 3, [1, 1, 2, 2]),
        box(4, 3, [9, 9, 11, 11], 7),
    ]
    coco = {
        image.image_id: image
        for part in load_detection(coco_folder(tmp_path / "coco", rows)).parts.values()
        for image in part
    }
    for number in (1, 2, 3):
        assert coco[number].boxes.tolist() == images[str(number - 1)].boxes.tolist()
        assert coco[number].areas.tolist() == images[str(number - 1)].areas.tolist()


def test_a_box_that_begins_at_0_shows_that_pixels_count_from_0(tmp_path):
    data = load_detection(voc_folder(tmp_path, [*GOOD, [("cat", 0, 3, 9, 9)]]))
    assert by_name(data)["0"].boxes.tolist() == [[5, 6, 14, 17]]
    assert by_name(data)["3"].boxes.tolist() == [[0, 3, 9, 9]]


def test_lists_choose_the_parts(tmp_path):
    voc_folder(tmp_path, [*GOOD, [("cat", 5, 6, 14, 17)]])
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("0\n2  1\n")
    (folder / "val.txt").write_text("1.jpg\nabsent\n")
    (folder / "cat_train.txt").write_text("3 1\n")
    data = load_detection(tmp_path)
    assert {part: [image.path.stem for image in images] for part, images in data.parts.items()} == {
        "train": ["0", "2"],
        "val": ["1"],
    }
    assert counts(data) == {"listed images have no XML file (skipped)": 1}
    (folder / "train.txt").unlink()
    (folder / "val.txt").unlink()
    (folder / "trainval.txt").write_text("0\n1\n2\n")
    assert sum(map(len, load_detection(tmp_path).parts.values())) == 3


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{} 1",
        "{}.jpg",
        "{}.JPG  -1",
        "{}.xml",
        "JPEGImages/{}.jpg",
        "/home/somebody/pets/JPEGImages/{}.jpg",
        "JPEGImages\\{}.jpg",
        "C:\\pets\\Annotations\\{}.xml",
    ],
)
@pytest.mark.parametrize("stem", ["7", "my cat", "v1.2"])
def test_lines_of_lists_may_have_folders_suffixes_and_spaces(tmp_path, form, stem):
    voc_folder(tmp_path, GOOD)
    write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
    voc_xml(tmp_path / "Annotations" / f"{stem}.xml", [("cat", 5, 6, 14, 17)])
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("\ufeff" + form.format("0") + "\r\n" + form.format("1"), encoding="utf-8")
    if " " in stem and " " in form:
        form = "{}"  # a name with spaces before the number of a class's list is ambiguous
    (folder / "val.txt").write_text(form.format(stem))
    (folder / "test.txt").write_text("\n")
    data = load_detection(tmp_path)
    assert {part: [image.path.stem for image in images] for part, images in data.parts.items()} == {
        "train": ["0", "1"],
        "val": [stem],
    }
    assert data.faults == ()


def test_an_empty_list_of_validation_images_counts_as_none(tmp_path):
    folder = voc_folder(tmp_path, GOOD) / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("0\n1\n2\n")
    (folder / "val.txt").write_text("")
    data = load_detection(tmp_path)
    assert (data.held_out, len(data.train) + len(data.val)) == (True, 3)
    (folder / "val.txt").write_text("7\n")
    with pytest.raises(ValueError, match=r"must have usable images in its validation part, but .* has none; faults in "
                       r"the annotations: listed images have no XML file \(skipped\): 1 \(first 7\)"):  # fmt: skip
        load_detection(tmp_path)
    assert load_detection(tmp_path, needs_train=False).parts.keys() == {"train"}


@pytest.mark.parametrize("before", ["", "/home/somebody/", "C:\\pets\\", "images\\", "images/"])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_an_image_is_found_by_the_name_in_its_xml_file(tmp_path, before, suffix):
    voc_folder(tmp_path, GOOD)
    for number in range(3):
        (tmp_path / "Annotations" / f"{number}.xml").unlink()
        voc_xml(tmp_path / "Annotations" / f"a{number}.xml", GOOD[number], filename=f"{before}{number}{suffix}")
    data = load_detection(tmp_path)
    assert (set(by_name(data)), data.faults) == ({"0", "1", "2"}, ())


@pytest.mark.parametrize("wrapping", ["VOC2007", "VOCdevkit/VOC2012"])
def test_a_year_inside_the_folder(tmp_path, wrapping):
    voc_folder(tmp_path / wrapping, GOOD)
    assert len(by_name(load_detection(tmp_path))) == 3


def test_two_years_are_ambiguous(tmp_path):
    voc_folder(tmp_path / "VOC2007", GOOD)
    voc_folder(tmp_path / "VOC2012", GOOD)
    with pytest.raises(ValueError, match="has VOC2007 and VOC2012; name one of them"):
        load_detection(tmp_path)


def test_files_beside_the_images(tmp_path):
    for part, stems in (("train", "abc"), ("valid", "de")):
        for stem in stems:
            write_image(tmp_path / part / f"{stem}.png")
            voc_xml(tmp_path / part / f"{stem}.xml", [("cat", 5, 6, 14, 17)])
    data = load_detection(tmp_path)
    assert {part: len(images) for part, images in data.parts.items()} == {"train": 3, "val": 2}
    assert len(by_name(load_detection(tmp_path / "train"))) == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<annotation><object>", "XML files are broken (skipped with their images)"),
        ("", "XML files are broken (skipped with their images)"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "XML files are broken (skipped with their images)"),
        ("<a>" * 100 + "</a>" * 100, "XML files are broken (skipped with their images)"),
        ("<?xml version='1.0' encoding='none'?><annotation/>", "XML files are broken (skipped with their images)"),
    ],
)
def test_broken_files_are_counted(tmp_path, text, fault):
    (voc_folder(tmp_path, GOOD) / "Annotations" / "3.xml").write_text(text)
    write_image(tmp_path / "JPEGImages" / "3.jpg")
    data = load_detection(tmp_path)
    assert counts(data) == {fault: 1}
    assert "3" not in by_name(data)


def test_entities_are_not_expanded(tmp_path):
    """A billion laughs, and a file outside of the data, in the name of a class."""
    laughs = (
        '<!DOCTYPE a [<!ENTITY l "ha">'
        + "".join(f'<!ENTITY l{n} "{"&l" * 0}{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        + "]>"
    )
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    for start, name in ((laughs, "&l9;"), (outside, "&x;")):
        path = voc_folder(tmp_path, GOOD) / "Annotations" / "3.xml"
        write_image(tmp_path / "JPEGImages" / "3.jpg")
        path.write_text(start + f"<annotation><object><name>{name}</name></object></annotation>")
        data = load_detection(tmp_path)
        assert data.classes == ("cat", "dog")
        assert counts(data) == {"XML files are broken (skipped with their images)": 1}
        assert data.faults[0].example.endswith("declare a document type")


@pytest.mark.parametrize(
    ("objects", "more", "fault", "boxes"),
    [
        ([("cat", 5, 5, 5, 5)], "", None, 1),
        ([("cat", 9, 9, 5, 5)], "", "boxes have no area (dropped)", 0),
        ([("cat", 5, 5, 90, 9)], "", "boxes reach outside of their image (clipped)", 1),
        ([("cat", 50, 50, 90, 90)], "", "boxes are outside of their image (dropped)", 0),
        ([("cat", "a", 5, 9, 9)], "", "boxes are not four numbers (dropped)", 0),
        ([("cat", "", 5, 9, 9)], "", "boxes are not four numbers (dropped)", 0),
        ([("cat", "inf", 5, 9, 9)], "", "boxes are not four numbers (dropped)", 0),
        ([(" ", 5, 5, 9, 9)], "", "objects have no name (skipped)", 0),
        ([], "<object><name>cat</name></object>", "annotations have no box (skipped)", 0),
        ([("cat", 5, 5, 9, 9), ("cat", 5, 5, 9, 9)], "", "annotations are repeated (used once)", 1),
        ([("cat", 5.5, 5, 9, 9.25)], "", None, 1),
        ([], "", None, 0),
    ],
)
def test_faulty_objects_are_counted(tmp_path, objects, more, fault, boxes):
    write_image(voc_folder(tmp_path, GOOD) / "JPEGImages" / "3.jpg")
    voc_xml(tmp_path / "Annotations" / "3.xml", objects, more=more)
    data = load_detection(tmp_path)
    assert counts(data) == ({} if fault is None else {fault: 1})
    assert len(by_name(data)["3"].boxes) == boxes


def test_missing_images_names_and_sizes(tmp_path):
    voc_folder(tmp_path, GOOD)
    voc_xml(tmp_path / "Annotations" / "absent.xml", [("cat", 5, 6, 14, 17)])
    voc_xml(tmp_path / "Annotations" / "other.xml", [("cat", 5, 6, 14, 17)], filename="named.bmp")
    voc_xml(tmp_path / "Annotations" / "outside.xml", [("cat", 5, 6, 14, 17)], filename="../../../etc/0.jpg")
    voc_xml(tmp_path / "Annotations" / "twice.xml", [("cat", 5, 6, 14, 17)], filename="0.jpg")
    voc_xml(tmp_path / "Annotations" / "3.xml", [("cat", 9, 11, 28, 34)], width=80, height=60)
    voc_xml(tmp_path / "Annotations" / "4.xml", [("cat", 5, 6, 14, 17)], width=0, height=0)
    for name in ("named.bmp", "3.jpg", "4.jpg"):
        write_image(tmp_path / "JPEGImages" / name)
    data = load_detection(tmp_path)
    assert counts(data) == {
        "XML files have no image (skipped)": 2,
        "images are listed twice (used once)": 1,
        "images have another resolution than their annotations say (boxes scaled)": 1,
    }
    assert by_name(data)["3"].boxes.tolist() == [[4, 5, 14, 17]]
    assert set(by_name(data)) == {"0", "1", "2", "3", "4", "named"}


def test_difficult_objects_are_crowds_and_parts_of_objects_no_boxes(tmp_path):
    voc_folder(tmp_path, GOOD)
    more = "<object><name>dog</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    more += "<bndbox><ymin>3</ymin><xmin>2</xmin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
    voc_xml(tmp_path / "Annotations" / "0.xml", [("cat", 5, 6, 14, 17, 1)], more=more)
    image = by_name(load_detection(tmp_path))["0"]
    assert image.crowd.tolist() == [True, False]
    assert image.boxes.tolist() == [[4, 5, 14, 17], [1, 2, 9, 8]]


def test_without_objects_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="--data must have objects in its XML files"):
        load_detection(voc_folder(tmp_path, [[], []]))
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text("<annotation><obj")
    with pytest.raises(ValueError, match=r"has none; faults in the annotations: XML files are broken .*: 2 \(first"):
        load_detection(tmp_path)


def test_class_names_are_checked(tmp_path):
    name = "x" * 300
    with pytest.raises(ValueError, match="a class name must be one line of visible text"):
        load_detection(voc_folder(tmp_path, [*GOOD, [(name, 5, 6, 14, 17)]]))


def test_two_layouts_are_ambiguous(tmp_path):
    coco_folder(voc_folder(tmp_path, GOOD), [])
    with pytest.raises(ValueError, match=re.escape("has those of coco and voc; move the annotations of the others")):
        load_detection(tmp_path)
