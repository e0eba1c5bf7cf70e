"""What tar shards there are, of which part, and of how many images each."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mnas.data.batches import Part
from mnas.data.content.digests import stamp_of
from mnas.data.image import SUFFIXES, reason
from mnas.data.shards.tar_files import location, names
from mnas.data.web import download, is_url
from mnas.labels import check_class_names, shown
from mnas.readers import JSON_BYTES, parse_json, read_regular
from mnas.training_data import STAT

_MOST_SHARDS = 200_000
_INDEX_S = 60.0
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")
INFO_NAME, CLASSES_NAME = "_info.json", "classes.txt"
_TAR = re.compile(r"[^/\s\"'?]+\.tar(\.gz)?(?![\w.])")
_NUMBER = re.compile(r"(.*?\D|)(\d+)((?:-of-\d+)?\.tar(?:\.gz)?)")
_TOTAL = re.compile(r"-of-(\d+)")
_PART = re.compile(r"(?:^|[\W_])(train|val|valid|validation|test)(?=[\W_])")
_PARTS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Shard:
    """A tar file."""

    url: str
    """An absolute path, or a URL of http or https."""
    images: int


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """All shards of a data set."""

    name: str
    classes: tuple[str, ...]
    parts: dict[Part, tuple[Shard, ...]]
    fingerprint: str
    """Digest of the class names, and of each shard's name and number of images."""
    content: str
    """`stat:` and a digest of that, and of the sizes and times of shards on disk."""
    places: tuple[tuple[str, tuple[int, ...]], ...]
    """Where each shard lies, and the stamp of one on disk: what is remembered of these shards holds for no others."""


def is_shards(data: str) -> bool:
    """Whether `data` is a pattern of tar files, or a folder with training shards in it."""
    path = Path(data).expanduser()
    if path.is_dir():
        return any(_part_of(file.name) == "train" for file in path.glob("*.tar*"))
    return _TAR.search(data) is not None


def read_index(data: str) -> ShardIndex:
    """The shards of a folder or a pattern.

    Args:
        data: a folder of train-*.tar and val-*.tar (and test-*.tar); or paths, or URLs of http or https, with
            webdataset's braces, several of them joined by `::`. Which part a shard belongs to its name says: `train`,
            `val`, `validation` or `test` between other words. Beside the first training shard lie `classes.txt`, a line
            for each class, and `_info.json`, which says how many images each shard has (as timm writes and reads it;
            shards on disk are counted without). Where they lie elsewhere, they are named among the joined patterns.

    Raises:
        ValueError: no such shards, no training or no validation shards, classes or numbers that nothing says, or a
            folder from whose numbered shards some are missing.
        ImportError: webdataset is not installed.
    """
    path = Path(data).expanduser()
    # what is found on disk is a file, whatever its name looks like
    places = list(map(str, sorted(path.absolute().glob("*.tar*")))) if path.is_dir() else _expanded(data)
    urls = [url for url in places if _TAR.search(_last(url))]
    by_part = _by_part(urls, data)
    if path.is_dir():
        _check_gaps(urls)
    first = by_part["train"][0]
    given = {suffix: url for suffix in (".json", ".txt") for url in places if url.endswith(suffix)}
    classes = _classes(given.get(".txt") or _beside(first, CLASSES_NAME))
    lengths = _lengths(given.get(".json") or _beside(first, INFO_NAME))
    if path.is_dir() and (missing := sorted(set(lengths) - set(map(_tar_name, urls)))):
        raise ValueError(_incomplete(missing, f"{INFO_NAME} lists it"))
    parts: dict[Part, tuple[Shard, ...]] = {
        part: tuple(Shard(url, _images(url, lengths)) for url in by_part[part]) for part in by_part
    }
    listed = [[part, [[_tar_name(shard.url), shard.images] for shard in shards]] for part, shards in parts.items()]
    stamps = [(shard.url, _stamp(shard.url)) for shards in parts.values() for shard in shards]
    stats = [[stamp[2], stamp[3]] if stamp else [] for _, stamp in stamps]
    return ShardIndex(
        name=path.resolve().name if path.is_dir() else _tar_name(first),
        classes=classes,
        parts=parts,
        fingerprint=hashlib.sha256(json.dumps(["shards", classes, listed]).encode()).hexdigest()[:16],
        content=STAT + hashlib.sha256(json.dumps(["shards", classes, listed, stats]).encode()).hexdigest(),
        places=tuple(stamps),
    )


def _stamp(url: str) -> tuple[int, ...]:
    """Return the stamp of a shard on disk, an empty one for a URL."""
    return stamp_of(os.stat(url)) if _is_local(url) else ()


def _by_part(urls: Sequence[str], data: str) -> dict[Part, list[str]]:
    """Train, val, test, in this order."""
    urls_of: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    for url in urls:
        part = _part_of(_tar_name(url))
        if part is None:
            raise ValueError(f"a shard's name must say train, val or test (train-000000.tar), but got {url!r}")
        urls_of[part].append(url)
    there: dict[Part, list[str]] = {part: chosen for part, chosen in urls_of.items() if chosen}
    for needed in ("train", "val"):
        if needed not in there:
            raise ValueError(
                f"shards must have a {needed} part ({needed}-000000.tar), but got {', '.join(there) or 'none'} in "
                f"{data!r}; join patterns by ::"
            )
    return there


def _check_gaps(urls: Sequence[str]) -> None:
    """Raise ValueError where the numbers in a folder's names leave one out, or end before `-of-00008` does."""
    numbers: dict[tuple[str, str], dict[int, int]] = {}  # what is around the number -> number -> its digits
    for url in urls:
        if match := _NUMBER.fullmatch(_tar_name(url)):
            numbers.setdefault((match[1], match[3]), {})[int(match[2])] = len(match[2])
    for (before, after), there in numbers.items():
        total = _TOTAL.match(after)
        first, last = min(there), max(there)
        if total:  # numbered from 0, by some from 1
            first = int(0 not in there and int(total[1]) in there)
            last = int(total[1]) - 1 + first
        missing = [f"{before}{n:0{max(there.values())}d}{after}" for n in range(first, last + 1) if n not in there]
        if missing:
            raise ValueError(_incomplete(missing, "others have the numbers around it" if not total else "by its name"))


def _incomplete(missing: Sequence[str], why: str) -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"a folder of shards must be whole, but {', '.join(missing[:3])}{more} {'is' if len(missing) == 1 else 'are'} "
        f"missing ({why}); copy what is missing, or name the shards that are to do without by a pattern with braces"
    )


def _expanded(data: str) -> list[str]:
    """The paths, made absolute, and the URLs that a user named."""
    try:
        from webdataset import shardlists
    except ImportError:
        raise ImportError("tar shards need webdataset; pip install 'mnas[webdataset]'") from None
    patterns = [data] if Path(data).expanduser().is_file() else data.split("::")
    places: list[str] = []
    for pattern in patterns:
        place = location(pattern)
        if is_url(place):
            places += _without_braces(shardlists, place)
        elif Path(place).expanduser().is_file():  # braces in a name that there is are no pattern
            places.append(str(Path(place).expanduser().absolute()))
        else:
            places += (str(Path(path).expanduser().absolute()) for path in _without_braces(shardlists, place))
    return places


def _without_braces(shardlists: Any, pattern: str) -> list[str]:
    most = max((abs(int(last) - int(first)) for first, last in _RANGE.findall(pattern)), default=0)
    try:
        if most > _MOST_SHARDS:  # it would be made whole before the first name comes out
            raise OverflowError
        names = list(islice(shardlists.braceexpand.braceexpand(shardlists.envsubst(pattern)), _MOST_SHARDS + 1))
        if len(names) > _MOST_SHARDS:
            raise OverflowError
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the braces of {pattern[:200]!r} must be in pairs, but got {reason(error)}") from None
    except OverflowError:
        raise ValueError(f"a pattern must name at most {_MOST_SHARDS:,} shards, but got {pattern[:200]!r}") from None
    return names


def _last(url: str) -> str:
    """The file's name in a path or a URL."""
    return urlsplit(url).path.rpartition("/")[2] if is_url(url) else Path(url).name


def _tar_name(url: str) -> str:
    """The name by which the index knows a shard."""
    return _last(url)


def _part_of(name: str) -> Part | None:
    match = _PART.search(name)
    return None if match is None else _PARTS[match.group(1)]


def _is_local(url: str) -> bool:
    return not is_url(url)


def _beside(url: str, name: str) -> str:
    """That name in the place of the shard's."""
    return str(Path(url).with_name(name)) if _is_local(url) else name.join(url.rsplit(_last(url), 1))


def _read(url: str) -> bytes | None:
    """Return the content, None where there is none."""
    try:
        if is_url(url):
            return download(url, most_bytes=JSON_BYTES, most_s=_INDEX_S) or None
        return read_regular(url, JSON_BYTES) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if _is_local(url):
            raise ValueError(f"{url} must be readable, but got {reason(error)!r}; see to its permissions") from None
        return None


def _lengths(url: str) -> dict[str, int]:
    """Images by the shard's name; empty where there is no such file."""
    content = _read(url)
    if content is None:
        return {}
    try:
        splits = parse_json(content)["splits"].values()
        pairs = [pair for s in splits for pair in zip(s["filenames"], s["shard_lengths"], strict=True)]
        return {str(name): int(count) for name, count in pairs}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{url} must be JSON of splits with filenames and shard_lengths, but got {reason(error)!r}; write it "
            "again, or remove it where the shards are on disk"
        ) from None


def _classes(url: str) -> tuple[str, ...]:
    text = (_read(url) or b"").decode("utf-8-sig", errors="surrogateescape")
    # only what every tool takes for the end of a line: a name that holds another one is refused, not cut in two
    classes = tuple(line.strip(" \t\r") for line in text.rstrip("\r\n\t ").split("\n")) if text.strip() else ()
    if len(classes) < 2:
        raise ValueError(
            f"shards must come with a file of their classes, a line for each, but got {len(classes)} lines in {url!r}; "
            "write it, or name another one after ::"
        )
    check_class_names(classes, shown(url))
    return classes


def _images(url: str, lengths: dict[str, int]) -> int:
    """Return the number of images in a shard: from the index, or counted by the names in it."""
    if not _is_local(url):
        if _tar_name(url) not in lengths:
            raise ValueError(
                f"shards of a URL must come with {INFO_NAME}, which says their lengths, but got none for {url!r}"
            )
        return lengths[_tar_name(url)]
    if not Path(url).is_file():
        raise ValueError(f"a shard must be a tar file, but got {url!r} (no such file)")
    return lengths.get(_tar_name(url)) or _counted(url)


def _counted(url: str) -> int:
    keys: set[str] = set()
    try:
        for member in names(url):
            folder, _, name = member.rpartition("/")
            key, _, suffixes = name.partition(".")  # as webdataset: all after the first dot
            if f".{suffixes.lower()}" in SUFFIXES:
                keys.add(f"{folder}/{key}")
    except Exception as error:  # of damaged ones tarfile and gzip raise much
        raise ValueError(f"a shard must be a tar file, but got {url!r} ({reason(error)})") from None
    if not keys:
        raise ValueError(f"a shard must have images (jpg, png, ...), but got none in {url!r}")
    return len(keys)
