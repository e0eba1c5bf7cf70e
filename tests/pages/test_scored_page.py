"""The page of a scored model: its tables, its pictures, hostile names, and unusual data."""

from html.parser import HTMLParser

import numpy as np
import pytest

from mnas.pages.confusion import MOST_CONFUSED
from mnas.pages.gallery import FEW_CLASSES, MISTAKES, SAMPLES, SAMPLES_OF_MANY, Gallery
from mnas.pages.scored import CLASSES, ScoredModel, scored_page
from tests.pages.test_gallery import filled

ATTACK = "</title><script>window.hit = 1</script><img src=http://127.0.0.1:9/x onerror='window.hit = 2'>\" x=\""


class Parsed(HTMLParser):
    """The text of table cells by the class of their table, all images, and all tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""
        self._kind, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        fields = dict(attrs)
        if tag == "table":
            self._kind = fields["class"] or ""
            self.tables[self._kind] = []
        elif tag == "tr":
            self.tables[self._kind].append([])
        elif tag in ("td", "th"):
            self.tables[self._kind][-1].append("")
            self._cell = True
        elif tag == "img":
            self.images.append(fields)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.tables[self._kind][-1][-1] += data


def model(classes: list[str], **changes) -> ScoredModel:
    fields = {"title": "net", "part": "test part of photos", "facts": ["8×8 px"], "name_of": lambda i: f"image {i}"}
    return ScoredModel(**{**fields, "classes": classes, **changes})


def test_the_matrix_has_every_count() -> None:
    gallery, labels, predictions, _ = filled(300, 4, 50)
    page = Parsed(scored_page(model(list("abcd")), gallery))
    head, *rows = page.tables["matrix"]
    assert head[1:] == ["a", "b", "c", "d", "images"]
    for truth, row in enumerate(rows):
        counts = [int(((labels == truth) & (predictions == i)).sum()) for i in range(4)]
        assert row == ["abcd"[truth], *map(str, counts), str(sum(counts))]
    right = int((labels == predictions).sum())
    assert f"{right / 300:.2%}" in page.text
    recalls = [float(((labels == i) & (predictions == i)).sum() / (labels == i).sum()) for i in range(4)]
    precisions = [float(((labels == i) & (predictions == i)).sum() / (predictions == i).sum()) for i in range(4)]
    assert f"{np.mean(recalls):.2%}" in page.text
    assert [row[2:4] for row in page.tables["classes"][1:]] == [
        [f"{recall:.1%}", f"{precision:.1%}"] for recall, precision in zip(recalls, precisions, strict=True)
    ]
    assert page.tables["errors"][1][2:] != []
    assert len(page.images) == MISTAKES + 4 * SAMPLES
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in page.images)
    first = gallery.mistakes()[0]
    assert page.images[0]["alt"] == (
        f"image {first.position}: true class {'abcd'[first.truth]}, predicted {'abcd'[first.prediction]} with "
        f"{first.confidence:.1%} confidence"
    )


def test_hostile_names_are_text() -> None:
    gallery, *_ = filled(60, 3, 60)
    hostile = model(
        [ATTACK, "a\u202eb", "x" * 5000], title=ATTACK, part=ATTACK, facts=[ATTACK], notes=[ATTACK],
        name_of=lambda i: f"{i} {ATTACK}",
    )  # fmt: skip
    text = scored_page(hostile, gallery)
    page = Parsed(text)
    assert "script" not in page.tags
    assert "\u202e" not in text
    assert page.tags.count("title") == 1
    assert all(set(image) <= {"class", "alt", "title", "src"} for image in page.images)
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert ATTACK in page.text
    assert "http-equiv" in text
    assert "script-src" not in text  # default-src 'none' forbids all scripts
    assert "x" * 100 not in page.tables["matrix"][3][0]


def test_a_class_without_images_one_class_and_no_mistakes() -> None:
    gallery = Gallery(3)
    gallery.add(
        np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), np.ones(4, np.float32)
    )
    page = Parsed(scored_page(model(["a", "b", "never"]), gallery))
    assert page.tables["matrix"][3] == ["never", "", "", "", "0"]
    assert page.tables["classes"][3] == ["never", "0", "–", "0.0%", ""]
    assert page.tables["errors"] == [["true class", "prediction", "images", "of class"],
                                     ["a", "never", "1", "50.0%"]]  # fmt: skip

    alone = Gallery(1)
    alone.add(np.full((2, 8, 8, 3), 90, np.uint8), np.zeros(2, int), np.zeros(2, int), np.ones(2, np.float32))
    page = Parsed(scored_page(model(["only"]), alone))
    assert page.tables["matrix"][1] == ["only", "2", "2"]
    assert "Every prediction is right." in page.text
    assert "errors" not in page.tables


@pytest.mark.parametrize("side", [96, pytest.param(224, marks=pytest.mark.slow)])
def test_a_thousand_classes_make_a_page_of_a_few_megabytes(side: int) -> None:
    draw = np.random.default_rng(0)
    gallery = Gallery(1000)
    rough = draw.integers(0, 256, (8, side, side, 3), np.uint8)  # noise compresses worst
    for start in range(0, 4000, 8):
        labels = np.arange(start, start + 8) % 1000
        wrong = draw.random(8) < 0.3
        predictions = np.where(wrong, draw.integers(0, 1000, 8), labels)
        gallery.add(rough, labels, predictions, draw.random(8).astype(np.float32))
    text = scored_page(model([f"class {i}" for i in range(1000)]), gallery)
    assert len(text) < 4_000_000
    page = Parsed(text)
    head, *rows = page.tables["matrix"]
    assert len(rows) == MOST_CONFUSED
    assert head[-2:] == ["all others", "images"]
    assert all(sum(int(cell or 0) for cell in row[1:-1]) == int(row[-1]) for row in rows)
    assert len(page.tables["classes"]) == 1 + CLASSES
    assert len(page.images) == 1 + MISTAKES + CLASSES * SAMPLES_OF_MANY
    recalls = [float(row[2].rstrip("%")) for row in page.tables["classes"][1:]]
    assert recalls == sorted(recalls)


def test_the_limit_of_few_classes() -> None:
    for classes, rows in ((FEW_CLASSES, FEW_CLASSES), (FEW_CLASSES + 1, MOST_CONFUSED)):
        gallery, *_ = filled(2000, classes, 500)
        page = Parsed(scored_page(model([f"class {i}" for i in range(classes)]), gallery))
        assert len(page.tables["matrix"]) == 1 + rows
