"""Find the tar shards of each part and their numbers of images."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mnas.data.batches import Part
from mnas.data.content.digests import stamp_of
from mnas.data.image import SUFFIXES, reason
from mnas.data.listing.walk import images_below
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
    """Absolute path, or URL of http or https."""
    images: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return _tar_name(self.url)


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """All shards of a data set."""

    name: str
    classes: tuple[str, ...]
    parts: dict[Part, tuple[Shard, ...]]
    fingerprint: str
    """Digest of the class names, and of each shard's name and number of images."""
    content: str
    """`stat:` and a digest of the same, with the sizes and times of shards on disk."""
    places: tuple[tuple[str, tuple[int, ...]], ...]
    """(location, stamp) of each shard; the stamp is empty for URLs. Cached facts are valid only for equal places."""
    labelled: bool = True
    """Whether the images have labels."""


def is_shards(data: str) -> bool:
    """Return whether `data` is a pattern of tar files, or a folder that contains training shards."""
    path = Path(data).expanduser()
    if path.is_dir():
        return any(_part_of(file.name) == "train" for file in path.glob("*.tar*"))
    return _TAR.search(data) is not None


def is_unlabelled_shards(data: str) -> bool:
    """Return whether `data` is a pattern of tar files, or a folder that contains tar files and no images."""
    path = Path(data).expanduser()
    if path.is_dir():
        return any(_TAR.search(file.name) for file in path.glob("*.tar*")) and not images_below(path, lambda *_: None)
    return _TAR.search(data) is not None


def read_index(data: str) -> ShardIndex:
    """Return the shards of a folder or a pattern.

    Args:
        data: a folder of train-*.tar and val-*.tar (and test-*.tar); or paths, or URLs of http or https, with
            webdataset's braces, joined by `::`. A shard's name contains its part as a word: `train`, `val`,
            `validation` or `test`. Beside the first training shard are `classes.txt`, with one class per line, and
            `_info.json`, with the number of images in each shard (in timm's format; mnas counts shards on disk
            without it). If these files are elsewhere, the joined patterns name them.

    Raises:
        ValueError: there are no such shards, no training or no validation shards, no list of classes or numbers of
            images, or gaps among the numbered shards of a folder.
        ImportError: webdataset is not installed.
    """
    places, urls = _places(data)
    by_part = _by_part(urls, data)
    if Path(data).expanduser().is_dir():
        _check_gaps(urls)
    named = [place for place in places if place.endswith(".txt")]
    classes = _classes(named[-1] if named else _beside(by_part["train"][0], CLASSES_NAME))
    return _index(data, places, by_part, classes)


def read_unlabelled(data: str) -> ShardIndex:
    """Return all shards of a folder or a pattern as the training part of a data set with one class; see `read_index`.

    Their names need no part, and no `classes.txt` is read.

    Raises:
        ValueError: there are no such shards, or numbers of images or shards are missing.
        ImportError: webdataset is not installed.
    """
    places, urls = _places(data)
    if not urls:
        raise ValueError(f"--unlabelled must be a folder of images or tar shards, but {data!r} has neither")
    if Path(data).expanduser().is_dir():
        _check_gaps(urls)
    return _index(data, places, {"train": urls, "val": []}, ("unlabelled",), labelled=False)


def _places(data: str) -> tuple[list[str], list[str]]:
    """Return all named files, and the tar files among them."""
    path = Path(data).expanduser()
    # a name found on disk is a file, even if it looks like a URL or a pattern
    places = list(map(str, sorted(path.absolute().glob("*.tar*")))) if path.is_dir() else _expanded(data)
    return places, [url for url in places if _TAR.search(_last(url))]


def _index(
    data: str,
    places: Sequence[str],
    by_part: Mapping[Part, Sequence[str]],
    classes: tuple[str, ...],
    *,
    labelled: bool = True,
) -> ShardIndex:
    path, first = Path(data).expanduser(), by_part["train"][0]
    urls = [url for chosen in by_part.values() for url in chosen]
    named = [place for place in places if place.endswith(".json")]
    lengths = _lengths(named[-1] if named else _beside(first, INFO_NAME))
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
        labelled=labelled,
    )


def _stamp(url: str) -> tuple[int, ...]:
    """Return the stamp of a shard on disk; empty for a URL."""
    return stamp_of(os.stat(url)) if _is_local(url) else ()


def _by_part(urls: Sequence[str], data: str) -> dict[Part, list[str]]:
    """Return part -> shards, in the order train, val, test."""
    urls_of: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    for url in urls:
        part = _part_of(_tar_name(url))
        if part is None:
            raise ValueError(f"a shard's name must contain train, val or test (train-000000.tar), but got {url!r}")
        urls_of[part].append(url)
    there: dict[Part, list[str]] = {part: chosen for part, chosen in urls_of.items() if chosen}
    for needed in ("train", "val"):
        if needed not in there:
            raise ValueError(
                f"shards must have a {needed} part ({needed}-000000.tar), but got {', '.join(there) or 'none'} in "
                f"{data!r}; join several patterns with ::"
            )
    return there


def _check_gaps(urls: Sequence[str]) -> None:
    """Raise ValueError if the numbers in a folder's names have a gap, or end before the total (`-of-00008`)."""
    numbers: dict[tuple[str, str], dict[int, int]] = {}  # text around the number -> number -> its digits
    for url in urls:
        if match := _NUMBER.fullmatch(_tar_name(url)):
            numbers.setdefault((match[1], match[3]), {})[int(match[2])] = len(match[2])
    for (before, after), there in numbers.items():
        total = _TOTAL.match(after)
        first, last = min(there), max(there)
        if total:  # most tools number from 0, some from 1
            first = int(0 not in there and int(total[1]) in there)
            last = int(total[1]) - 1 + first
        missing = [f"{before}{n:0{max(there.values())}d}{after}" for n in range(first, last + 1) if n not in there]
        if missing:
            raise ValueError(
                _incomplete(missing, "by the numbers of the others" if not total else "by the total in the names")
            )


def _incomplete(missing: Sequence[str], why: str) -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"a folder of shards must be complete, but {', '.join(missing[:3])}{more} "
        f"{'is' if len(missing) == 1 else 'are'} missing ({why}); copy the missing shards, or name the shards to use "
        "with a brace pattern"
    )


def _expanded(data: str) -> list[str]:
    """Return the paths, made absolute, and the URLs that the user named."""
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
        elif Path(place).expanduser().is_file():  # braces in the name of an existing file are no pattern
            places.append(str(Path(place).expanduser().absolute()))
        else:
            places += (str(Path(path).expanduser().absolute()) for path in _without_braces(shardlists, place))
    return places


def _without_braces(shardlists: Any, pattern: str) -> list[str]:
    most = max((abs(int(last) - int(first)) for first, last in _RANGE.findall(pattern)), default=0)
    try:
        if most > _MOST_SHARDS:  # the library would expand it in full before it yields the first name
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
    """Return the file's name in a path or a URL."""
    return urlsplit(url).path.rpartition("/")[2] if is_url(url) else Path(url).name


def _tar_name(url: str) -> str:
    """Return the name of a shard in the index."""
    return _last(url)


def _part_of(name: str) -> Part | None:
    match = _PART.search(name)
    return None if match is None else _PARTS[match.group(1)]


def _is_local(url: str) -> bool:
    return not is_url(url)


def _beside(url: str, name: str) -> str:
    """Return the path or URL of the file `name` beside a shard."""
    return str(Path(url).with_name(name)) if _is_local(url) else name.join(url.rsplit(_last(url), 1))


def _read(url: str) -> bytes | None:
    """Return the content; None if the file is missing or empty."""
    try:
        if is_url(url):
            return download(url, most_bytes=JSON_BYTES, most_s=_INDEX_S) or None
        return read_regular(url, JSON_BYTES) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if _is_local(url):
            raise ValueError(f"cannot read {url} ({reason(error)}); check its permissions") from None
        return None


def _lengths(url: str) -> dict[str, int]:
    """Return the number of images by the shard's name; empty if there is no such file."""
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
            "again, or remove it if the shards are on disk"
        ) from None


def _classes(url: str) -> tuple[str, ...]:
    text = (_read(url) or b"").decode("utf-8-sig", errors="surrogateescape")
    # only line ends that all tools recognise: a name that contains another one is rejected, not cut in two
    classes = tuple(line.strip(" \t\r") for line in text.rstrip("\r\n\t ").split("\n")) if text.strip() else ()
    if len(classes) < 2:
        raise ValueError(
            f"shards must come with a file of at least 2 classes, one per line, but {url!r} has {len(classes)} lines; "
            "write the file, or name another one after ::"
        )
    check_class_names(classes, shown(url))
    return classes


def _images(url: str, lengths: dict[str, int]) -> int:
    """Return the number of images in a shard: from the index, or counted by the names in it."""
    if not _is_local(url):
        if _tar_name(url) not in lengths:
            raise ValueError(
                f"shards at a URL must come with {INFO_NAME}, which lists their lengths, but got none for {url!r}"
            )
        return lengths[_tar_name(url)]
    if not Path(url).is_file():
        raise ValueError(f"a shard must be a tar file, but got {url!r} (no such file)")
    return lengths.get(_tar_name(url)) or _counted(url)


def image_names(shard: Shard) -> Sequence[str]:
    """Return the names of a shard's images, in order; numbers for a shard at a URL, or one that cannot be read."""
    try:
        listed = list(_image_names(shard.url).values()) if _is_local(shard.url) else []
    except ValueError:
        listed = []
    return listed if len(listed) == shard.images else [f"image {number}" for number in range(shard.images)]


def _counted(url: str) -> int:
    count = len(_image_names(url))
    if not count:
        raise ValueError(f"a shard must contain images (jpg, png, ...), but {url!r} has none")
    return count


def _image_names(url: str) -> dict[str, str]:
    """Return the name of the first image of each sample by the sample's key. Raises ValueError for a damaged shard."""
    by_key: dict[str, str] = {}
    try:
        for member in names(url):
            folder, _, name = member.rpartition("/")
            key, _, suffixes = name.partition(".")  # as in webdataset, all after the first dot
            if f".{suffixes.lower()}" in SUFFIXES:
                by_key.setdefault(f"{folder}/{key}", member)
    except Exception as error:  # tarfile and gzip raise many kinds of exceptions for damaged files
        raise ValueError(f"a shard must be a tar file, but got {url!r} ({reason(error)})") from None
    return by_key
