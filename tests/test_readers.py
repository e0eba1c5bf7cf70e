import json
import os
import socket
import sys
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from mnas.readers import (
    MAX_DEPTH,
    TOML_BYTES,
    XML_BYTES,
    YAML_BYTES,
    open_regular,
    parse_json,
    parse_toml,
    parse_xml,
    parse_yaml,
    read_json,
    read_regular,
    read_toml,
    require_types,
)


def test_a_regular_file_is_read_whole_and_only_up_to_its_limit(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    with open_regular(file) as opened:
        assert opened.read() == b"12345"
    assert read_regular(file, 5) == b"12345"
    with pytest.raises(ValueError, match=r"at most 4 bytes, but got 5$"):
        read_regular(file, 4)
    if sys.platform == "linux":  # files of /proc say that they have 0 bytes
        with pytest.raises(ValueError, match=r"at most 4 bytes, but got 5$"):
            read_regular("/proc/cpuinfo", 4)


@pytest.mark.timeout(20)
def test_pipes_sockets_devices_and_folders_are_refused_at_once(tmp_path):
    pipe, address = tmp_path / "pipe", tmp_path / "socket"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        for path, kind in [
            (pipe, "a named pipe"),
            (tmp_path / "link", "a named pipe"),
            (address, "a socket"),
            ("/dev/zero", "a device"),
        ]:
            for read in (open_regular, read_json, read_toml):
                with pytest.raises(OSError, match=f"Must be a regular file, but is {kind}") as refused:
                    read(path)
                assert refused.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")


PLAIN = {"a": [1, -(2**63), 2**64 - 1, 0.5, 1e300, None, True, "é\u2028", "\udcff"], "": {}}


def test_plain_values_read_as_they_were_written():
    assert parse_json(json.dumps(PLAIN)) == PLAIN
    assert parse_json(json.dumps(PLAIN["a"][:8], ensure_ascii=False).encode("utf-8-sig")) == PLAIN["a"][:8]
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_toml(b"\xef\xbb\xbfa.b = [1, 0.5]\n[c]\nd = 'x.y'") == {"a": {"b": [1, 0.5]}, "c": {"d": "x.y"}}
    assert parse_toml("a = '" + "b." * 1000 + "'")["a"] == "b." * 1000  # no key, but a text of dots


def test_any_number_of_json_may_be_read_for_a_reader_that_checks_it():
    values = parse_json(f"[{2**64}, 1e999, NaN]", finite=False)
    assert (values[0], values[1], values[2] == values[2]) == (2**64, float("inf"), False)
    with pytest.raises(ValueError, match="64 bits, but got one of 65 bits"):
        parse_toml(f"a = {2**64}")


NO_JSON = {
    "nested lists": ("[" * 100_000, "nested at most 64"),
    "nested just too deeply": ("[" * 65 + "]" * 65, "nested at most 64"),
    "nested below Python's own limit": ('{"a":' * 500 + "1" + "}" * 500, "nested at most 64"),
    "digits without end": ("9" * 5000, "64 bits, but got thousands of digits"),
    "many digits": ("9" * 500, "64 bits, but got one of 1,661 bits"),
    "NaN": ("[NaN]", "finite, but got NaN"),
    "infinity": ('{"a": -Infinity}', "finite, but got -Infinity"),
    "a float that overflows": ("[1e999]", "finite, but got inf"),
    "a key twice": ('{"a": 1, "b": 2, "a": 3}', "each key once, but got 'a' twice"),
    "UTF-16": ("[1]".encode("utf-16"), "not text in UTF-8"),
    "no UTF-8": (b'["\xff"]', "not text in UTF-8"),
    "NUL": (b"[1]\0", "Extra data"),
    "nothing": (b"", "Expecting value"),
    "cut off": (b'{"a": ', "Expecting value"),
    "size": (b"[" + b" " * (16 << 20) + b"]", "at most 16,777,216 bytes"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NO_JSON)
def test_any_other_json_is_one_line(name):
    text, words = NO_JSON[name]
    with pytest.raises(ValueError, match=words) as refused:
        parse_json(text)
    assert type(refused.value) is ValueError
    assert len(str(refused.value).splitlines()) == 1


NO_TOML = {
    "nested arrays": ("a = " + "[" * 100_000, "nested at most 64"),
    "nested tables": ("a = " + "{a=" * 50_000, "nested at most 64"),
    "nested just too deeply": ("a = " + "[" * 65 + "]" * 65, "nested at most 64"),
    "a long dotted key": ("a." * 100_000 + "a = 1", "nested at most 64"),
    "a long dotted table": ("[" + '"a" . ' * 40_000 + "a]", "nested at most 64"),
    "a long dotted key within": ("a = {" + "a." * 100_000 + "a = 1}", "nested at most 64"),
    "digits without end": ("a = " + "9" * 5000, "64 bits, but got thousands of digits"),
    "many hexadecimal digits": ("a = 0x" + "f" * 200_000, "64 bits, but got one of 800,000 bits"),
    "a key twice": ("a = 1\na = 2", "overwrite"),
    "no UTF-8": (b"a = '\xff'", "not text in UTF-8"),
    "NUL": (b"a = 1\0", "at line 1"),
    "size": (b"#" * (TOML_BYTES + 1), "at most 262,144 bytes"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NO_TOML)
def test_any_other_toml_is_one_line(name):
    text, words = NO_TOML[name]
    with pytest.raises(ValueError, match=words) as refused:
        parse_toml(text)
    assert type(refused.value) is ValueError
    assert len(str(refused.value).splitlines()) == 1


@dataclass
class Record:
    count: int
    share: float
    name: str
    on: bool
    most: int | None
    kind: Literal["a", "b"]
    pair: tuple[float, float]
    numbers: tuple[int, ...]
    facts: dict[str, str | int]
    anything: Any


GOOD = {
    "count": 3, "share": 1, "name": "x", "on": True, "most": None, "kind": "a", "pair": [1, 0.5], "numbers": [],
    "facts": {"a": 1}, "anything": object,
}  # fmt: skip
BAD = {
    "count": (True, 1.0, "1", None), "share": (True, "1", None), "name": (1, None, ["x"]), "on": (1, "true"),
    "most": ("1", 1.5, False), "kind": ("c", 1, None, ["a"]), "pair": ([1], [1, 2, 3], "12", [1, None]),
    "numbers": ([1.5], "12", None, {}), "facts": ([], {"a": 1.5}, {1: 1}),
}  # fmt: skip


NO_YAML = {
    "an alias": ("a: &x 1\nb: *x", "must not have aliases"),
    "nested lists": ("[" * 10_000, "nested at most 64"),
    "an open list": ("a: [1", "expected"),
    "a control character": ("a: \x07", "not allowed"),
    "an escape beyond Unicode": ('a: "\\UFFFFFFFF"', "a character of Unicode"),
    "no UTF-8": (b"a: \xff", "not text in UTF-8"),
    "too long a text": ("a" * (YAML_BYTES + 1), "at most 262,144 bytes"),
}


def test_yaml_has_lists_mappings_and_texts():
    text = "a: [1, no, 2026-01-01, ~]\nb: {0: x}\nc: !!python/object/apply:os.system [date]\n"
    assert parse_yaml("\ufeff" + text) == {"a": ["1", "no", "2026-01-01", "~"], "b": {"0": "x"}, "c": ["date"]}
    assert parse_yaml("") is None


@pytest.mark.parametrize("name", NO_YAML)
def test_any_other_yaml_is_one_line(name):
    text, rule = NO_YAML[name]
    with pytest.raises(ValueError, match=rule) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


NO_XML = {
    "nothing": (b"", "no element found"),
    "an open element": (b"<a><b></a>", "mismatched tag"),
    "nested elements": (b"<a>" * 10_000, "nested at most 64"),
    "a document type": (b"<!DOCTYPE a><a/>", "must not declare a document type"),
    "one in UTF-16": ("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a><a/>".encode("utf-16"), "document type"),
    "an entity": (b"<a>&b;</a>", "undefined entity"),
    "an unknown encoding": (b"<?xml version='1.0' encoding='none'?><a/>", "unknown encoding"),
    "too long a text": (b" " * (XML_BYTES + 1), "at most 4,194,304 bytes"),
}


def test_xml_is_a_tree_of_elements():
    root = parse_xml(b"\xef\xbb\xbf<a x='1'><b>c &amp; d</b><b/><![CDATA[<e>]]></a>")
    assert (root.tag, root.attrib, root.findtext("b"), root[1].tail) == ("a", {"x": "1"}, "c & d", "<e>")
    assert parse_xml("<?xml version='1.0' encoding='utf-16'?><a>é</a>".encode("utf-16")).text == "é"


@pytest.mark.parametrize("name", NO_XML)
def test_any_other_xml_is_one_line(name):
    text, rule = NO_XML[name]
    with pytest.raises(ValueError, match=rule) as error:
        parse_xml(text)
    assert "\n" not in str(error.value)


def test_values_of_a_record_are_of_its_types():
    require_types(Record, GOOD)
    for name, values in BAD.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{name} must be of type "):
                require_types(Record, GOOD | {name: value})
    for values in ([], None, "x", 3):
        with pytest.raises(ValueError, match="Record must be a mapping of fields"):
            require_types(Record, values)
