"""Read untrusted files: regular files only, of bounded size, and JSON, TOML, YAML and XML of bounded depth.

For any content, a reader soon returns plain values or raises an OSError or a ValueError.
"""

import collections
import errno
import functools
import json
import math
import os
import re
import reprlib
import stat
import tomllib
import types
import xml.parsers.expat as expat
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

JSON_BYTES = 16 << 20
"""Default limit for a JSON file, in bytes; parsed, it takes at most about 30 times as much memory."""
TOML_BYTES = 1 << 18
"""Largest TOML file, in bytes; people write them by hand."""
YAML_BYTES = 1 << 18
"""Largest YAML file, in bytes; it has the names of a data set's classes."""
XML_BYTES = 1 << 22
"""Largest XML file, in bytes; it has the boxes of one image."""
MODEL_BYTES = 1 << 31
"""Largest model file, in bytes; a flatbuffer is smaller."""
MAX_DEPTH = 64
"""Deepest nesting of lists and objects; files of mnas have fewer than 10 levels."""
_INTEGERS = range(-(2**63), 2**64)
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# TOML's parser takes quadratic time in the parts of a dotted key, so the pattern below bounds them.
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DOTTED_KEY = re.compile(rf"""(?<![\w."'-]){_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{{MAX_DEPTH}}}""")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; reject a pipe, a socket or a device immediately instead of waiting for it.

    Raises:
        OSError: the file does not exist, is not readable, or is not a regular file.
    """
    _require_regular(os.stat(path), path)  # opening a device may have side effects
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        _require_regular(os.fstat(handle), path)  # the file may have been replaced in between
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise OSError(errno.EINVAL, f"Must be a regular file, but is {kind}", str(path))


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        OSError: see `open_regular`.
        ValueError: the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:  # files in /proc report size 0
        raise ValueError(f"{str(path)!r} must have at most {limit:,} bytes, but got {max(size, len(content)):,}")
    return content


def read_json(path: str | os.PathLike[str], limit: int = JSON_BYTES) -> Any:
    """Return the value in a JSON file. Raises OSError as `open_regular`, ValueError as `parse_json`."""
    return parse_json(read_regular(path, limit), limit)


def parse_json(
    text: str | bytes, limit: int = JSON_BYTES, *, omit: frozenset[str] = frozenset(), finite: bool = True
) -> Any:
    """Return the value of a JSON text in UTF-8, with or without a byte-order mark.

    Args:
        omit: keys whose values are dropped as soon as they are parsed, which saves memory in large files.
        finite: refuse NaN, Infinity, numbers that overflow and integers of more than 64 bits; False: the reader of a
            value checks it.

    Raises:
        ValueError: the text is longer than `limit`, not UTF-8, not JSON, nested too deeply, repeats a key, or contains
            a number that `finite` refuses or an integer of thousands of digits.
    """
    if len(text) > limit:
        raise ValueError(f"JSON must have at most {limit:,} bytes, but got {len(text):,}")
    try:
        value = json.loads(
            _decoded(text),
            object_pairs_hook=functools.partial(_object, omit=omit),
            parse_constant=_refuse_constant if finite else float,
        )
    except RecursionError:
        raise ValueError(f"lists and objects must be nested at most {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise ValueError(_digits_explained(error)) from None
    _require_plain(value, finite=finite, bounded=finite)
    return value


def stored_settings(path: str | os.PathLike[str], *keys: str) -> Mapping[str, Any] | None:
    """Return the object under `keys` in a JSON file of settings; None if it is missing or damaged.

    The command that resumes the run or training reports a damaged file.
    """
    try:
        value = read_json(path)
        for key in keys:
            value = value[key]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return value if isinstance(value, dict) else None


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises OSError as `open_regular`, ValueError as `parse_toml`."""
    return parse_toml(read_regular(path, TOML_BYTES))


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """Return the tables of a TOML text in UTF-8, with or without a byte-order mark.

    Raises:
        ValueError: the text is longer than `TOML_BYTES`, not UTF-8, not TOML, nested too deeply, or contains an integer
            of more than 64 bits.
    """
    if len(text) > TOML_BYTES:
        raise ValueError(f"TOML must have at most {TOML_BYTES:,} bytes, but got {len(text):,}")
    text = _decoded(text)
    try:
        if _DOTTED_KEY.search(text):
            raise RecursionError
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"tables and arrays must be nested at most {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise ValueError(_digits_explained(error)) from None
    # TOML allows nan and inf; the reader of a value checks its range
    _require_plain(values, finite=False, bounded=True)
    return values


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return the value in a YAML file. Raises OSError as `open_regular`, ValueError as `parse_yaml`."""
    return parse_yaml(read_regular(path, YAML_BYTES))


def parse_yaml(text: str | bytes) -> Any:
    """Return the value of a YAML text in UTF-8: lists and mappings of texts, as tags and kinds of values are ignored.

    Raises:
        ValueError: the text is longer than `YAML_BYTES`, not UTF-8, not YAML, nested too deeply, or has aliases.
    """
    import yaml  # type: ignore[import-untyped]  # only detection data sets in YOLO's layout need it

    if len(text) > YAML_BYTES:
        raise ValueError(f"YAML must have at most {YAML_BYTES:,} bytes, but got {len(text):,}")

    class _PlainYaml(yaml.BaseLoader):  # type: ignore[misc]  # it makes nothing but lists, mappings and texts
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it must not have aliases, with which a small file describes a large value")
            return super().compose_node(parent, index)

    try:
        return yaml.load(_decoded(text), Loader=_PlainYaml)
    except RecursionError:
        raise ValueError(f"lists and mappings must be nested at most {MAX_DEPTH} deep") from None
    except OverflowError:
        raise ValueError("an escape must stand for a character of Unicode") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def parse_xml(text: bytes) -> ElementTree.Element:
    """Return the root of an XML text.

    Raises:
        ValueError: the text is longer than `XML_BYTES`, not XML, nested too deeply, or declares a document type, whose
            entities could make it as large as any memory.
    """
    if len(text) > XML_BYTES:
        raise ValueError(f"XML must have at most {XML_BYTES:,} bytes, but got {len(text):,}")
    builder, depth = ElementTree.TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"elements must be nested at most {MAX_DEPTH} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("it must not declare a document type")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(" ".join(str(error).split())) from None
    return builder.close()


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


def _digits_explained(error: ValueError) -> str:
    """Return the error's message; replace Python's own about long numbers, which refers to an interpreter setting."""
    text = " ".join(str(error).split())
    return "an integer must fit into 64 bits, but got thousands of digits" if "integer string conv" in text else text


def _object(pairs: list[tuple[str, Any]], *, omit: frozenset[str]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ValueError(f"an object must name each key once, but got {twice[:80]!r} twice")
    for name in omit & values.keys():
        del values[name]
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"a number must be finite, but got {name}")


def _require_plain(value: object, *, finite: bool, bounded: bool) -> None:
    """Raise ValueError if `value` is nested too deeply.

    Args:
        finite: refuse non-finite numbers, too.
        bounded: refuse integers of more than 64 bits, too.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        for number in (item for item in level if type(item) in (int, float)):
            if bounded and isinstance(number, int) and number not in _INTEGERS:
                raise ValueError(f"an integer must fit into 64 bits, but got one of {number.bit_length():,} bits")
            if finite and not math.isfinite(number):
                raise ValueError(f"a number must be finite, but got {number}")
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
    raise ValueError(f"lists and objects must be nested at most {MAX_DEPTH} deep")


def require_types(record: type, values: object) -> None:
    """Raise ValueError unless `values` is a mapping whose values have the types that the dataclass `record` declares.

    The record itself checks for missing and unknown names. A bool is not a number; an int is a valid float.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{record.__name__} must be a mapping of fields, but got {reprlib.repr(values)}")
    for name, kind in _hints(record).items():
        if name in values and not _fits(values[name], kind):
            words = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
            raise ValueError(f"{name} must be of type {words}, but got {reprlib.repr(values[name])}")


@functools.cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _fits(value: object, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool, types.NoneType) else True
