"""The page of a trained detector: its table, its pictures, hostile names, and many classes."""

import dataclasses

from PIL import Image

from mnas.pages.detected import CLASSES, BoxedPicture, DetectedClass, DetectedModel, detected_page
from mnas.pages.gallery import data_uri
from tests.pages.test_scored_page import ATTACK, Parsed


def one_class(name: str, **changes: object) -> DetectedClass:
    fields = {
        "name": name, "training_objects": 1200, "objects": 80, "mean_precision": 0.25, "ap50": 0.5, "missed": 7,
        "wrong": 9,
    }  # fmt: skip
    return DetectedClass(**{**fields, **changes})


def picture(name: str, note: str = "1 missed, 0 wrong") -> BoxedPicture:
    return BoxedPicture(name=name, note=note, picture=data_uri(Image.new("RGB", (480, 360), (200, 80, 40))))


def detected(classes: list[DetectedClass], **changes: object) -> DetectedModel:
    fields = {
        "title": "net", "part": "test part of cells", "facts": ["320×320 px"], "figures": [("25.0%", "mAP")],
        "losses": [(1, 4.0), (2, 2.0)], "precisions": [(2, 0.25)], "ap50s": [(2, 0.5)], "certain": 0.3,
        "misses": [picture("a.jpg"), picture("b.jpg")], "samples": [picture("c.jpg", "2 boxes")],
    }  # fmt: skip
    return DetectedModel(**{**fields, "classes": classes, **changes})


def test_the_table_has_every_number() -> None:
    rare = one_class("rare", objects=0, mean_precision=None, ap50=None, missed=0, wrong=0)
    page = Parsed(detected_page(detected([one_class("cell"), rare])))
    assert page.tables["numbers detected"] == [
        ["class", "training objects", "objects", "mAP", "AP50", "missed", "wrong"],
        ["cell", "1,200", "80", "25.0%", "50.0%", "7", "9"],
        ["rare", "1,200", "0", "–", "–", "0", "0"],
    ]
    assert [image["alt"] for image in page.images] == [
        "a.jpg: 1 missed, 0 wrong", "b.jpg: 1 missed, 0 wrong", "c.jpg: 2 boxes"
    ]  # fmt: skip
    assert "score of at least 0.3" in page.text


def test_of_many_classes_the_worst_are_listed() -> None:
    classes = [one_class(f"c{i}", mean_precision=(i * 37 % 250) / 250) for i in range(250)]
    page = Parsed(detected_page(detected([*classes, one_class("absent", mean_precision=None)])))
    _, *rows = page.tables["numbers detected"]
    assert [row[0] for row in rows] == [c.name for c in sorted(classes, key=lambda c: c.mean_precision)[:CLASSES]]
    assert "The 100 of 251 classes with the lowest mAP." in page.text


def test_without_misses_and_pictures() -> None:
    page = Parsed(detected_page(detected([one_class("cell")], misses=[], samples=[])))
    assert "Every object is found, and every detection is right." in page.text
    assert "true boxes" not in page.text
    assert page.images == []


def test_hostile_names_stay_text() -> None:
    model = detected([one_class(ATTACK)], title=ATTACK, part=ATTACK, facts=[ATTACK])
    attacked = dataclasses.replace(model, misses=[picture(ATTACK, ATTACK)], figures=[(ATTACK, ATTACK)])
    text = detected_page(attacked)
    page = Parsed(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert text.count("default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:\"") == 1  # and no scripts
