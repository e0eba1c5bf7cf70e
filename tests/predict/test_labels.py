"""Label files in common forms, each read as its author meant it."""

import codecs
import os

import pytest

from mnas.predict.labels import names_of_lines, read_class_names


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\nfish\n",
        "\ufeffcat\r\ndog\r\nfish\r\n\r\n\n",
        "0 cat\n1 dog\n2 fish",
        "2: fish\n0: cat\n1: dog\n",
        "0,cat\n1,dog\n2,fish\n",
        "0\tcat\n1\tdog\n2\tfish\n",
        "0;cat\n1;dog\n2;fish\n",
        "00 cat\n01 dog\n02 fish\n",
        "  0  cat\n  1  dog\n  2  fish\n",
        "1 cat\n2 dog\n3 fish\n",
        "index,label\n0,cat\n1,dog\n2,fish\n",
        'id,name\n1,"dog"\n0,"cat"\n2,"fish"\n',
        "n02123045 cat\nn02084071 dog\nn02512053 fish\n",
        "0 n02123045 cat\n1 n02084071 dog\n2 n02512053 fish\n",
        '["cat", "dog", "fish"]',
        '{"1": "dog", "0": "cat", "2": "fish"}',
        '{"dog": 1, "cat": 0, "fish": 2}',
        '{"0": ["n02123045", "cat"], "1": ["n02084071", "dog"], "2": ["n02512053", "fish"]}',
        '{"architectures": ["x"], "id2label": {"0": "cat", "1": "dog", "2": "fish"}, "label2id": {"cat": 0}}',
        '{"label2id": {"cat": 0, "dog": 1, "fish": 2}}',
    ],
)
def test_every_form_gives_the_names_in_order(tmp_path, content):
    path = tmp_path / "labels"
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
        for before in {b"", mark}:
            path.write_bytes(before + content.encode(encoding))
            assert read_class_names(path) == ("cat", "dog", "fish")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["1 cent", "2 cent"], None),  # coins
        (["10 cent", "20 cent", "50 cent"], None),
        (["0 cat", "1 dog", "cow"], None),
        (["0 cat", "2 dog"], None),
        (["0 cat", "0 dog"], None),
        (["3d printer", "2d printer"], None),
        (["0", "1", "2"], None),
        (["7", "3"], None),
        (["n02123045", "n02084071"], None),
        (["n02123045 crane", "n02084071 crane"], None),  # ImageNet has two cranes
        (["0 a b", "1 c, d"], ("a b", "c, d")),
        (["0 0", "1 1"], ("0", "1")),
        (["id card", "passport"], None),
    ],
)
def test_numbers_that_are_names(lines, names):
    assert names_of_lines(lines) == (tuple(lines) if names is None else names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must contain one name per line"),
        (b'{"0": "a", "2": "b"}', "keys of --class-file .* must be 0 to 1"),
        (b'{"a": 1, "b": 5}', "keys of --class-file .* must be 0 to 1"),
        (b'{"a": 0, "b": 0}', "must contain one name per line"),
        (b'{"0": {"1": "a"}}', "must contain one name per line"),
        (b"\xff\xfe\x00", "must be text in UTF-8 or UTF-16"),
        (b"caf\xe9\n", "must be text in UTF-8 or UTF-16"),
        (b"[" * 100_000, "must contain one name per line|nested"),
    ],
)
def test_what_is_no_label_file(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    if content[:1] == b"[":
        assert read_class_names(tmp_path / "labels") == (content.decode(),)
        return
    with pytest.raises(ValueError, match=message) as caught:
        read_class_names(tmp_path / "labels")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "labels")
    with pytest.raises(OSError, match="regular file"):
        read_class_names(tmp_path / "labels")
